# SPDX-License-Identifier: Apache-2.0
"""Rehearsals: a disposable guest is set up by the same playbooks as a host, crashed for real, and its dump is judged.

One guest serves several attempts, one after the other: strategies, experiments, kinds of crashes. Each attempt ends in a
:class:`Proof`, whatever happens; only a guest that cannot be made or set up at all ends the rehearsal.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from orchestrator import __version__
from orchestrator.checks.waive import judge_host
from orchestrator.documents.base import pretty
from orchestrator.documents.decision import LAYERS
from orchestrator.documents.proof import CaptureSeen, Proof, Stage
from orchestrator.documents.verdict import Verdict
from orchestrator.errors import KdoError
from orchestrator.fleet.collect import from_hosts
from orchestrator.fleet.runner import Whom
from orchestrator.fleet.session import Run
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import build_image
from orchestrator.lab.process import LabError
from orchestrator.lab.resets import Resets
from orchestrator.lab.userimage import prepare
from orchestrator.planning.pipeline import Judged, Pipeline
from orchestrator.planning.plan import seal
from orchestrator.proof import instruments, judge
from orchestrator.proof.crashes import Kind
from orchestrator.proof.experiment import Experiment, bent, perform, predicted
from orchestrator.proof.scene import Scene

NAME: Final = "rehearsal"
BOOT_SECONDS: Final = 900  # an emulated guest on a busy machine
CRASH_SECONDS: Final = 900  # from the order to the end of the capture kernel
CONSOLE_LINES: Final = 12

Say = Callable[[str], None]


@dataclass(frozen=True)
class Attempt:
    """One crash. ``strategy`` "" is the policy's own; ``settings`` are laid over the policy's."""

    kind: Kind
    strategy: str = ""
    experiment: Experiment | None = None
    cpu: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    anyway: bool = False  # crash a guest that does not validate: its checks are what is put to the test


class Unfinished(KdoError):
    """The attempt never came to its crash."""


class Rehearsal:
    """A context manager around one guest; ``home`` gets its disk, console log, plans and proofs."""

    def __init__(self, scene: Scene, pipeline: Pipeline, home: Path, *, say: Say = lambda text: None,
                 trial: bool = False) -> None:  # fmt: skip
        self.scene, self.pipeline, self.home, self.say, self.trial = scene, pipeline, home, say, trial
        self.stages: list[Stage] = []
        self.number = 0
        self._bent: tuple[str, dict[str, Any]] | None = None  # what the guest is set up for
        self._current = pipeline
        self._judged: Judged | None = None
        self._verdict = Verdict()
        self._plan = ""
        self._proof = Proof()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        extra: tuple[str, ...] = ()
        with self._stage("image"):
            if scene.image is None:
                image = build_image(scene.spec)
            else:
                image, extra = prepare(scene.image, home / "image")
        machine = Machine(arch=scene.spec.arch, memory_mb=scene.memory_mb, cpus=scene.cpus, extra=extra)
        self.guest = Guest(image, home / "guest", name=NAME, machine=machine)

    def __enter__(self) -> Rehearsal:
        self.guest.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.guest.stop()
        for name in ("disk.qcow2", "efi-variables.fd"):
            (self.home / "guest" / name).unlink(missing_ok=True)

    def attempt(self, wanted: Attempt) -> Proof:
        """Set up what is not set up yet, crash, judge. Never raises for what goes wrong in the guest."""
        self.number += 1
        self._proof = self._base(wanted)
        try:
            self._up()
            self._set_up(wanted)
            self._describe(wanted)
            with self._stage("arrange"):
                instruments.arrange(self.guest, wanted.kind, self.scene.spec)
                if wanted.experiment is not None:
                    reset = self.pipeline.decider.knowledge.capture[self.scene.spec.arch]["reset"]
                    perform(self.guest, wanted.experiment, reset)
                    self._bent = None  # the next attempt sets everything up again
            self._crash(wanted)
        except KdoError as error:
            problem = error.problems[0]
            lines = [line for line in problem.why.splitlines() if line.strip()]
            tail = lines[-CONSOLE_LINES:] if isinstance(error, LabError) else []
            why = problem.why if not tail else f"at the stage {self.stages[-1].name!r}" if self.stages else ""
            self._note(what=problem.what, why=why, fix=problem.fix, console=tail)
            self._bent = None
            if not isinstance(error, Unfinished):
                self.guest.stop()  # whatever state it is in
        self._note(stages=self.stages)
        self.stages = []
        (self.home / f"proof-{self.number}.json").write_bytes(pretty(self._proof))
        return self._proof

    # ---- the stages

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        self.say(name)
        try:
            yield
        finally:
            self.stages.append(Stage(name=name, seconds=round(time.monotonic() - began, 1)))

    def _note(self, **values: Any) -> None:
        """More is known of this attempt."""
        self._proof = msgspec.structs.replace(self._proof, **values)

    def _base(self, wanted: Attempt) -> Proof:
        spec = self.scene.spec
        return Proof(
            host=NAME, at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), tool=__version__, crash=wanted.kind.id,
            cpu=wanted.cpu, arch=spec.arch, machine=self._machine(), system=spec.suite, strategy=wanted.strategy,
            boot=spec.boot, experiment=str(wanted.experiment or ""), policy=self.pipeline.policy.name,
            predicted=wanted.kind.predicted,
        )  # fmt: skip

    def _machine(self) -> str:
        firmware = "UEFI" if self.scene.spec.uefi else "its own firmware"
        cpus = f"{self.scene.cpus} CPU{'s' if self.scene.cpus > 1 else ''}"
        return f"QEMU, emulated, {cpus}, {self.scene.memory_mb} MiB, {firmware}"

    def _up(self) -> None:
        with self._stage("boot"):
            if not self.guest.alive():
                self.guest.start()
            self.guest.wait_ssh(BOOT_SECONDS)

    def _set_up(self, wanted: Attempt) -> None:
        """Plan, apply, reboot and validate, as `kdo apply --reboot` does it."""
        if self._bent == (wanted.strategy, wanted.settings):
            return
        with self._stage("apply"):
            policy = bent(self.pipeline.policy, wanted.strategy, wanted.settings)
            self._current = pipeline = Pipeline(policy, self.pipeline.decider.knowledge)
            whom = Whom((str(self.guest.ansible_inventory()),))
            found = from_hosts(whom, pipeline.targets())
            if not found.facts:
                reasons = "; ".join(f"{p.what}: {p.why}" for p in found.problems)
                raise LabError("the guest cannot be asked", where="collect facts", why=reasons)
            host = pipeline.plan(found.facts[0])
            self._judged = pipeline.judge(found.facts[0])
            plan = seal(policy, [host])
            self._plan = plan.hash
            (self.home / f"plan-{self.number}.json").write_bytes(pretty(plan))
            if host.status not in ("changes", "none"):
                refusals = [f"{r.what}: {r.why}" for r in host.refusals] or host.notes
                raise Unfinished(f"the guest is {host.status}", why="; ".join(refusals), fix="kdo explain says more")
            if host.status == "changes":
                with Resets(self.guest, None):
                    done = Run(pipeline, whom, plan, reboot=True, trial=self.trial).apply(found)
                for outcome in done.outcomes:
                    if outcome.error is not None or outcome.state not in ("committed", "nothing"):
                        error = outcome.error or {"what": outcome.state, "why": ""}
                        raise LabError(error["what"], where="apply", why=error.get("why", ""))
        with self._stage("validate"):
            self.guest.wait_ssh(BOOT_SECONDS)
            seen = from_hosts(whom, pipeline.targets()).facts
            if not seen:
                raise LabError("the guest cannot be asked after it was set up", where="validate")
            self._judged = pipeline.judge(seen[0])
            self._verdict = judge_host(pipeline, seen[0], None)
            bad = [f"{c.id}: {c.evidence}" for c in self._verdict.checks if c.verdict in ("fail", "unknown")]
            if self._verdict.status != "pass" and not wanted.anyway:
                why = "; ".join(bad) or self._verdict.status
                raise Unfinished("the guest does not validate", why=why, fix="kdo validate")
        instruments.install(self.guest)
        self._bent = (wanted.strategy, wanted.settings)

    def _describe(self, wanted: Attempt) -> None:
        """What the crash will be about, now that the guest is set up."""
        judged, verdict = self._judged, self._verdict
        if judged is None:
            raise Unfinished("nothing is known of the guest", why="it was never set up")
        layers = {name: judged.decision.layer(name).state for name in LAYERS}
        prediction = predicted(wanted.experiment, judged.decision, self.pipeline.decider.knowledge)
        if wanted.settings:
            prediction = ""  # the search for the smallest reservation has to fail somewhere
        against = [str(wanted.experiment)] if wanted.experiment is not None else []
        if verdict.status != "pass":  # what its checks say is put to the test, too
            failing = [c.id for c in verdict.checks if c.verdict in ("fail", "unknown")]
            against.append(f"it does not validate ({', '.join(failing)})")
            prediction = "lost"
        if wanted.experiment is not None:
            layers[wanted.experiment.layer] = "on" if wanted.experiment.on else "off"
        self._note(
            kernel=verdict.kernel, state=verdict.state, plan=self._plan, layers=layers,
            strategy=judged.decision.strategy, knowledge=judged.decision.knowledge[0],
            policy_hash=self._current.policy.hash, reservation=judged.facts.kexec.crash_size,
            predicted="lost" if wanted.kind.predicted == "lost" else prediction,
            experiment="; ".join(against),
        )  # fmt: skip

    def _crash(self, wanted: Attempt) -> None:
        with self._stage("crash"):
            began = time.monotonic()
            mark = instruments.order(self.guest, wanted.kind, wanted.cpu)
            seen = judge.watch(self.guest, mark, wanted.kind.panic, CRASH_SECONDS)
        total, least = instruments.memory_seen(seen.lines)
        size = self._proof.reservation
        capture = CaptureSeen(
            command_line=seen.command_line, cpus=seen.cpus, memory=total,
            peak=size - least if size and least is not None else None,
        )  # fmt: skip
        self._note(capture=capture, outcome="lost", console=seen.telling())
        self.stages.append(Stage(name="panic to reset", seconds=round(time.monotonic() - began - seen.waited, 1)))
        with self._stage("boot after it"):
            self.guest.start()
            self.guest.wait_ssh(BOOT_SECONDS)
        with self._stage("read"):
            work = self.home / "vmcore"
            dump = judge.read(self.guest, work, wanted.kind.panic)
            shutil.rmtree(work, ignore_errors=True)  # a machine's memory: nobody else's business, and large
        outcome = "dumped" if dump.complete else "lost"
        cause = None if dump.complete else judge.cause(seen, dump)
        self._note(
            dump=dump, outcome=outcome, what=cause.what if cause else "", fix=cause.fix if cause else "",
            why="; ".join(dump.problems),
        )  # fmt: skip


def rehearse(rehearsal: Rehearsal, attempts: Sequence[Attempt]) -> Iterator[Proof]:
    """Each attempt's proof as it comes; the guest ends with the last one, or with whoever stops asking."""
    with rehearsal:
        for wanted in attempts:
            yield rehearsal.attempt(wanted)
