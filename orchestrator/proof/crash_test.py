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

from orchestrator import __version__, bootloaders
from orchestrator.checks.waive import judge_host, plan_host
from orchestrator.documents.base import pretty
from orchestrator.documents.decision import LAYERS, PLACES, DumpTarget
from orchestrator.documents.facts import Facts
from orchestrator.documents.proof import Dump, Proof, Stage
from orchestrator.errors import Exit, KdoError, Problem
from orchestrator.fleet.crash import RETURN_DELAY, ask
from orchestrator.fleet.rollout import may_reboot
from orchestrator.fleet.runner import Answer, Whom
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import seal
from orchestrator.policy.waivers import Waivers
from orchestrator.proof.store import keep, read
from orchestrator.resources import state_dir

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
def only_one(*, write: bool = True) -> Iterator[None]:
    """One crash test at a time from this account; the kernel drops the lock when its holder dies.

    ``write=False`` only looks at a lock that is there: a check leaves nothing behind, not even here.
    """
    path = state_dir() / "crash-test.lock"
    try:
        if write:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not path.exists():
            yield
            return
        handle = path.open("a" if write else "r")
    except OSError as error:
        raise KdoError("the lock for crash tests cannot be taken", where=str(path), why=str(error)) from error
    with handle:
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
    def target(self) -> DumpTarget:
        """Where the next dump goes: as the policy says, else as the host's own configuration says."""
        judged = self.pipeline.judge(self.facts)
        wish = judged.decision.settings.target
        family = self.pipeline.planner.families.get(judged.platform.family)
        if family is None or wish.kind in PLACES:
            return wish
        boot = bootloaders.next_boot(judged.platform.boot_stack, self.facts)
        now = family.capture(self.facts, judged.platform, boot)
        if not wish.kind and now.place.kind:
            return now.place
        return DumpTarget(kind="path", path=wish.path or now.target)

    @property
    def folder(self) -> str:
        """The directory on the host where its dumps are."""
        return self.target.path or "/var/crash"

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
        target = self.target
        if target.kind in PLACES:
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

    def crash(self, boot: str, proof: Proof, timeout: int) -> tuple[Proof, Path]:
        """Crash it, wait at most ``timeout`` seconds for its return, judge, keep. Raises :class:`NotReady`.

        A host that does not come back leaves an unfinished proof, and what its verdict needs later stays.
        """
        token = secrets.token_hex(8)
        spec = {"folder": self.folder, "cpu": self.cpu, "boot_id": boot, "token": token}
        pending = _pending(token)
        _note(pending, proof)  # what the crash is to prove, should the verdict be fetched later
        began = time.monotonic()
        answer = ask(self.whom, self.host, "crash", spec)
        if isinstance(answer.result.get("error"), dict):
            pending.unlink()  # the host itself has said no
        if answer.status == "ok" or "error" in answer.result:
            _result(answer, self.host)
        # Else the connection was lost on the way: whether it crashes is seen by what comes back.
        ordered = time.monotonic()
        try:
            told = verdict_of(self.whom, self.host, token, timeout)
        except NotBack as error:
            (problem,) = error.problems
            lost = msgspec.structs.replace(proof, what=problem.what, why=problem.why, fix=problem.fix)
            return lost, keep(lost)
        except NotReady:
            pending.unlink()  # it is back and knows of no such order
            raise
        stages = [Stage(name="order", seconds=round(ordered - began, 1)),
                  Stage(name="crash, dump, boot, read", seconds=round(time.monotonic() - ordered, 1))]  # fmt: skip
        return _kept(judged_by_host(msgspec.structs.replace(proof, stages=stages), told), pending)


def late(whom: Whom, host: str, timeout: int) -> tuple[Proof, Path]:
    """The verdict of a crash that was ordered before, kept. Raises :class:`NotBack`, :class:`NotReady`.

    Nothing but its name is needed of the host: it may still be down, and is waited for.
    """
    answer = verdict_of(whom, host, "", timeout)
    token = str(answer.get("token", ""))
    pending = _pending(token) if _TOKEN.fullmatch(token) else None
    if pending is not None and pending.is_file():
        proof = read(pending)
        if proof.host == host:  # a host could name another one's token
            return _kept(judged_by_host(proof, answer), pending)
    if answer.get("again"):
        why = "its last crash was judged, and the proof was kept where that was asked for"
        raise NotReady(
            "no crash test waits for its verdict", where=host, why=why, fix="kdo validate says what is proven"
        )
    # Ordered by somebody else: what is known of it is what the host has noted.
    proof = Proof(how="crash-test", host=host, at=_now(), tool=__version__, kernel=str(answer.get("kernel", ""))[:100])
    return _kept(judged_by_host(proof, answer), None)


def _note(path: Path, proof: Proof) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(pretty(proof))
    except OSError as error:
        why = f"{error}: nothing was crashed"
        raise KdoError("what the crash is to prove cannot be noted", where=str(path), why=why) from error


def _kept(proof: Proof, pending: Path | None) -> tuple[Proof, Path]:
    path = keep(proof)
    if pending is not None:  # only now: the host tells its verdict again as long as nobody has kept it
        pending.unlink()
    return proof, path


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
        why = "what was to write to sysrq-trigger was ended before it could (KillUserProcesses=, a limit), or had no effect"
        return msgspec.structs.replace(proof, what=what, why=why, fix="look at its kernel log and journal")
    raw: Any = answer.get("dump")
    if not isinstance(raw, dict):
        what, fix = "the host is back, and there is no new dump", "kdo rehearse shows the capture kernel's console"
        return msgspec.structs.replace(proof, outcome="lost", what=what, fix=fix,
                                       why="the capture kernel did not come up, or could not write")  # fmt: skip

    def words(name: str, number: int, longest: int) -> list[str]:
        found = raw.get(name)
        return [str(word)[:longest] for word in found[:number]] if isinstance(found, list) else []

    size = raw.get("size")
    dump = Dump(
        path=str(raw.get("path", ""))[:400],
        size=size if isinstance(size, int) else 0,
        complete=raw.get("complete") is True,
        panic=str(raw.get("panic", ""))[:200],
        readers=words("readers", 4, 40),
        problems=words("problems", 8, 300),
        notes=words("notes", 4, 300),
    )
    if dump.complete:
        return msgspec.structs.replace(proof, outcome="dumped", dump=dump)
    if dump.notes and not dump.problems:
        what, fix = "the host is back with a dump that could not be read there", f"read {dump.path} with crash or drgn"
        return msgspec.structs.replace(proof, dump=dump, what=what, why="; ".join(dump.notes), fix=fix)
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
