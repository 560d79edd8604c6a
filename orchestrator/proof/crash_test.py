# SPDX-License-Identifier: Apache-2.0
"""The crash of one real host, with consent: everything is looked at before, the vmcore is judged on the host afterwards."""

from __future__ import annotations

import fcntl
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from orchestrator import __version__
from orchestrator.checks.waive import judge_host, plan_host
from orchestrator.documents.base import pretty
from orchestrator.documents.decision import LAYERS
from orchestrator.documents.facts import Facts
from orchestrator.documents.proof import Dump, Proof, Stage
from orchestrator.errors import Exit, KdoError, Problem
from orchestrator.fleet.crash import RETURN_DELAY, ask
from orchestrator.fleet.rollout import may_reboot
from orchestrator.fleet.runner import Answer, Whom
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import seal
from orchestrator.policy.waivers import Waivers
from orchestrator.proof.store import read, state_dir

_TOKEN: Final = re.compile("[0-9a-f]{16}")  # it comes back from a host
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_AFTERWARDS: Final = (
    "look at its console or its BMC and power-cycle it if it hangs; its next boot is an ordinary one. "
    "Then: kdo crash-test {host} --verdict"
)


class NotReady(KdoError):
    """The host may not be crashed now; nothing was done."""

    exit_code = Exit.PENDING


class NotBack(KdoError):
    """The host was crashed and has not come back."""

    exit_code = Exit.FAILED


@contextmanager
def only_one() -> Iterator[None]:
    """One crash test at a time from this account; the kernel drops the lock when its holder dies."""
    folder = state_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "crash-test.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = "its lock is held: crashing two hosts at a time is how a cluster is lost"
            raise NotReady("another crash test is running from here", why=why, fix="wait until it has ended") from None
        yield


@dataclass(frozen=True)
class CrashTest:
    """One host, as its facts show it before the crash."""

    pipeline: Pipeline
    whom: Whom
    facts: Facts
    waivers: Waivers
    cpu: int | None = None

    @property
    def host(self) -> str:
        """Its inventory name."""
        return self.facts.host

    @property
    def folder(self) -> str:
        """The directory on the host where its dumps are: the policy's, or what the family uses."""
        target = self.pipeline.judge(self.facts).decision.settings.target
        return target.path if target.kind in ("", "path") and target.path else "/var/crash"

    def expected(self) -> Proof:
        """What is to be proven. Raises :class:`NotReady`, with everything that is in the way."""
        judged = self.pipeline.judge(self.facts)
        plan = plan_host(self.pipeline, self.facts, self.waivers)
        verdict = judge_host(self.pipeline, self.facts, self.waivers)
        problems = []

        def wrong(what: str, why: str, fix: str) -> None:
            problems.append(Problem(what, self.host, why, fix))

        if plan.status != "none":
            why = f"{len(plan.changes)} changes are planned" if plan.changes else plan.status
            wrong("the host is not set up as the policy wants it", why, "kdo apply first")
        if verdict.status != "pass":
            bad = [
                f"{c.id}: {c.evidence}" for c in verdict.checks if c.verdict not in ("pass", "skip", "warn", "waived")
            ]
            wrong("the host does not validate", "; ".join(bad) or verdict.status, "kdo validate says what to do")
        unproven = [c.id for c in verdict.checks if c.verdict == "waived"]
        if unproven:
            wrong("the host only validates by waivers", ", ".join(unproven), "mend what is waived first")
        if why := may_reboot(plan, datetime.now(UTC)):
            wrong("the host may not be rebooted now", why, "wait for the window")
        target = judged.decision.settings.target
        if target.kind in ("filesystem", "raw", "nfs", "ssh"):
            why = f"the dump goes to {target.kind} {target.place}, which the host does not have mounted afterwards"
            wrong(
                "the dump could not be judged on the host", why, "look at the server yourself, or rehearse the policy"
            )
        if problems:
            raise NotReady(problems)
        return Proof(
            how="crash-test", host=self.host, at=_now(), tool=__version__,
            cpu=self.cpu, crash="sysrq" if self.cpu is None else "sysrq-cpu", arch=judged.platform.arch,
            machine=verdict.platform, system=f"{judged.platform.distribution} {judged.platform.distribution_version}",
            boot=judged.platform.boot_stack, kernel=verdict.kernel, state=verdict.state,
            plan=seal(self.pipeline.policy, [plan]).hash, policy=self.pipeline.policy.name,
            policy_hash=self.pipeline.policy.hash, knowledge=judged.decision.knowledge[0],
            strategy=judged.decision.strategy, reservation=self.facts.kexec.crash_size,
            layers={name: judged.decision.layer(name).state for name in LAYERS},
        )  # fmt: skip

    def check(self) -> str:
        """Every precondition on the host itself; returns its boot id. Raises :class:`NotReady`."""
        answer = ask(self.whom, self.host, "check", {"folder": self.folder, "cpu": self.cpu})
        boot = str(_result(answer, self.host).get("boot_id", ""))
        if _BOOT_ID.is_file() and boot == _BOOT_ID.read_text().strip():
            why = "its boot id is that of the machine on which kdo runs: nobody would be left to see what comes of it"
            raise NotReady("this machine cannot crash-test itself", where=self.host, why=why, fix="run kdo elsewhere")
        return boot

    def crash(self, boot: str, proof: Proof, timeout: int) -> Proof:
        """Crash it, wait at most ``timeout`` seconds for its return, judge. Raises :class:`NotBack`."""
        token = secrets.token_hex(8)
        spec = {"folder": self.folder, "cpu": self.cpu, "boot_id": boot, "token": token}
        pending = _pending(token)
        pending.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pending.write_bytes(pretty(proof))  # what the crash is to prove, should the verdict be fetched later
        began = time.monotonic()
        answer = ask(self.whom, self.host, "crash", spec)
        if isinstance(answer.result.get("error"), dict):
            pending.unlink()  # the host itself has said no
        if answer.status == "ok" or "error" in answer.result:
            _result(answer, self.host)
        # Else the connection was lost on the way: whether it crashes is seen by what comes back.
        ordered = time.monotonic()
        told = verdict_of(self.whom, self.host, token, timeout)
        stages = [Stage(name="order", seconds=round(ordered - began, 1)),
                  Stage(name="crash, dump, boot, read", seconds=round(time.monotonic() - ordered, 1))]  # fmt: skip
        pending.unlink()
        return judged_by_host(msgspec.structs.replace(proof, stages=stages), told)

    def late(self, timeout: int) -> Proof:
        """The verdict of a crash that was ordered before. Raises :class:`NotBack`, :class:`NotReady`."""
        answer = verdict_of(self.whom, self.host, "", timeout)
        token = str(answer.get("token", ""))
        pending = _pending(token) if _TOKEN.fullmatch(token) else None
        if pending is None or not pending.is_file():
            # Ordered by somebody else: what is known of it is what the host has noted.
            proof = Proof(
                how="crash-test",
                host=self.host,
                at=_now(),
                tool=__version__,
                kernel=str(answer.get("kernel", ""))[:100],
            )
            return judged_by_host(proof, answer)
        proof = read(pending)
        pending.unlink()
        return judged_by_host(proof, answer)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pending(token: str) -> Path:
    return state_dir() / "crash-tests" / f"{token}.json"


def verdict_of(whom: Whom, host: str, token: str, timeout: int) -> dict[str, Any]:
    """What the host says of its crash, once it is back. Raises :class:`NotBack`."""
    answer = ask(whom, host, "verdict", {"token": token}, timeout=timeout, delay=RETURN_DELAY if token else 0)
    if answer.status == "unreachable" or (answer.status != "ok" and "state" not in answer.result):
        why = f"no answer within {timeout} s: {answer.message}"
        fix = _AFTERWARDS.format(host=host)
        raise NotBack("the host has not come back from its crash", where=host, why=why, fix=fix)
    return _result(answer, host)


def judged_by_host(proof: Proof, answer: dict[str, Any]) -> Proof:
    """The proof with what the host says. Its words are data: cut, and never trusted to be anything."""
    if answer.get("state") == "not-crashed":
        what = "the host did not crash: it is still in the same boot"
        return msgspec.structs.replace(proof, what=what, why="writing c to sysrq-trigger had no effect",
                                       fix="look at its kernel log")  # fmt: skip
    raw: Any = answer.get("dump")
    if not isinstance(raw, dict):
        what, fix = "the host is back, and there is no new dump", "kdo rehearse shows the capture kernel's console"
        return msgspec.structs.replace(proof, outcome="lost", what=what, fix=fix,
                                       why="the capture kernel did not come up, or could not write")  # fmt: skip
    size = raw.get("size")
    dump = Dump(
        path=str(raw.get("path", ""))[:400],
        size=size if isinstance(size, int) else 0,
        complete=raw.get("complete") is True,
        panic=str(raw.get("panic", ""))[:200],
        readers=[str(r)[:40] for r in raw.get("readers") or []][:4],
        problems=[str(p)[:300] for p in raw.get("problems") or []][:8],
    )
    if dump.complete:
        return msgspec.structs.replace(proof, outcome="dumped", dump=dump)
    what, fix = "the host is back, and its dump is not good", "kdo rehearse shows the capture kernel's console"
    return msgspec.structs.replace(proof, outcome="lost", dump=dump, what=what, why="; ".join(dump.problems), fix=fix)


def _result(answer: Answer, host: str) -> dict[str, Any]:
    error: Any = answer.result.get("error")
    if isinstance(error, dict):
        words = {key: str(error.get(key, ""))[:400] for key in ("what", "why", "fix")}
        raise NotReady(words["what"], where=host, why=words["why"], fix=words["fix"])
    if answer.status != "ok":
        raise NotReady("the host cannot be asked", where=host, why=answer.message or answer.status, fix="kdo detect")
    return answer.result
