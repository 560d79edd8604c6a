# SPDX-License-Identifier: Apache-2.0
"""Rehearsals as a user orders them: every strategy that is allowed, every kind of crash, and what must fail.

With ``KDO_PROOF_RESULTS=FILE`` each proof is appended to FILE; docs/proof.md is made from them (`make proof`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from orchestrator.documents.proof import Proof
from orchestrator.lab.process import LabError
from orchestrator.lab.requirements import require

pytestmark = pytest.mark.lab

RESULTS = "KDO_PROOF_RESULTS"


def rehearse(artifacts: Path, *arguments: str, code: int = 0, timeout: float = 3600) -> list[Proof]:
    """`kdo rehearse`, as its own process."""
    command = [sys.executable, "-m", "orchestrator", "rehearse", *arguments, "--format", "jsonl"]
    command += ["--artifacts", str(artifacts / "rehearsal")]
    done = subprocess.run(command, capture_output=True, timeout=timeout, cwd=artifacts, check=False)
    proofs = [msgspec.json.decode(line, type=Proof) for line in done.stdout.splitlines()]
    if os.environ.get(RESULTS):
        with Path(os.environ[RESULTS]).open("ab") as file:
            file.write(done.stdout)
    assert done.returncode == code, (done.returncode, done.stdout.decode()[-6000:], done.stderr.decode()[-3000:])
    return proofs


def dumped(proofs: list[Proof], *, cpus: int = 1) -> None:
    """Each is a good dump that two readers have read, saved by one CPU."""
    for proof in proofs:
        assert proof.outcome == proof.predicted == "dumped", proof
        # drgn is no witness for every architecture, and then says so.
        assert proof.dump.complete and len(proof.dump.readers) + len(proof.dump.notes) == 2, proof.dump
        assert proof.arch != "x86_64" or not proof.dump.notes, proof.dump
        assert proof.capture.cpus == cpus and "reset_devices" in proof.capture.command_line.split(), proof.capture
        assert proof.state and proof.policy_hash and proof.plan and proof.console


@pytest.mark.lab_full
def test_every_strategy_that_is_allowed_on_x86_64(artifacts: Path) -> None:
    proofs = rehearse(artifacts, "--arch", "x86_64", "--strategy", "all")
    assert {p.strategy for p in proofs} == {"kdump_reset", "crash_kexec_post_notifiers"}
    dumped(proofs)
    by_strategy = {p.strategy: p for p in proofs}
    assert by_strategy["crash_kexec_post_notifiers"].layers["crash_kexec_post_notifiers"] == "on"
    assert by_strategy["kdump_reset"].layers["crash_kexec_post_notifiers"] == "off"


@pytest.mark.lab_full
def test_every_strategy_that_is_allowed_on_aarch64(artifacts: Path) -> None:
    try:
        require(("x86_64", "aarch64"))
    except LabError as error:
        pytest.skip(f"no arm64 guest can be made on this machine: {error}")
    proofs = rehearse(artifacts, "--arch", "aarch64", "--strategy", "all")
    assert {p.strategy for p in proofs} == {"kdump_reset", "crash_kexec_post_notifiers"}
    dumped(proofs)


@pytest.mark.lab_full
def test_every_kind_of_crash(artifacts: Path) -> None:
    kinds = ("oops", "nmi", "soft-lockup", "out-of-memory", "busy-disk", "second-crash")
    proofs = rehearse(artifacts, "--arch", "x86_64", *(word for kind in kinds for word in ("--crash", kind)))
    assert [p.crash for p in proofs] == list(kinds)
    dumped(proofs[:-1])
    assert proofs[-1].outcome == proofs[-1].predicted == "lost", proofs[-1]


@pytest.mark.lab_full
@pytest.mark.parametrize("cpu", [0, 1])
def test_each_cpu_can_be_the_one_that_panics(artifacts: Path, cpu: int) -> None:
    dumped(rehearse(artifacts, "--arch", "x86_64", "--cpus", "2", "--crash", "sysrq-cpu", "--cpu", str(cpu)))


@pytest.mark.lab_full
def test_the_smallest_reservation_is_found(artifacts: Path) -> None:
    proofs = rehearse(artifacts, "--arch", "x86_64", "--minimise", timeout=7200)
    sizes = {p.reservation: p.outcome for p in proofs}
    smallest = min(size for size, outcome in sizes.items() if outcome == "dumped" and size)
    assert smallest < max(sizes), sizes


@pytest.mark.lab_full
def test_ppc64le_dumps_and_what_knowledge_forbids_fails_as_predicted(artifacts: Path) -> None:
    experiments = ("--experiment", "none", "--experiment", "crash_kexec_post_notifiers=on")
    good, against = rehearse(artifacts, "--arch", "ppc64le", *experiments, timeout=7200)
    dumped([good])
    assert against.outcome == against.predicted == "lost" and not against.proven
    assert "panic notifier" in against.what, against
