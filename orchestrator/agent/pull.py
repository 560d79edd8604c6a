# SPDX-License-Identifier: Apache-2.0
"""Pull mode: the host fetches the signed bundle, judges itself by it, may act on it, and reports. Nobody comes in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec

from orchestrator.agent.bundle import MAX_BUNDLE, expired, fingerprint, opened, parse
from orchestrator.agent.fetch import get, is_url
from orchestrator.agent.look import Me, Orders, Seen, look, report, stamp, told
from orchestrator.agent.record import STATE_DIR, PullRecord, alone, recall, remember
from orchestrator.documents.bundle import Bundle
from orchestrator.documents.report import HostReport, ReportPolicy
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.errors import Exit, InvalidInput, KdoError, Problem, Unreachable
from orchestrator.files import read_limited
from orchestrator.fleet.collect import Collected, HostProblem
from orchestrator.fleet.rollout import may_reboot
from orchestrator.fleet.runner import Whom, run_directory
from orchestrator.fleet.session import Run
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning.plan import seal
from orchestrator.policy.signatures import Signers
from orchestrator.policy.waivers import Waivers

MAX_SIGNATURE = 64 << 10
REBOOT_AGAIN = timedelta(hours=24)  # between two reboots for the same wanted state
_REMEMBERED = 8  # reboots
REBOOT = ("systemctl", "reboot", "--message=kdump-orchestrator: boot arguments have changed")
_BAD = ("failed", "undone", "undo-incomplete", "refused", "unreachable", "stale")


@dataclass(frozen=True)
class Way:
    """Where the bundle comes from, whose signature counts, and what may be done with it."""

    source: str
    allowed_signers: str
    who: Me
    state: Path = STATE_DIR
    apply: bool = False
    reboot: bool = False
    ca: str = ""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass
class Pulled:
    """What came of it. ``reboot``: the machine is to be rebooted once everything is told."""

    report: HostReport
    code: Exit
    problems: list[Problem] = field(default_factory=list)
    verdict: Verdict | None = None
    reboot: bool = False
    bundle: Bundle | None = None


@dataclass(frozen=True)
class Got:
    """A bundle whose signature was checked."""

    data: bytes
    signature: bytes
    signer: str
    etag: str = ""
    signature_etag: str = ""


# ---------------------------------------------------------------------- splay


def delay(splay: float, machine: str) -> float:
    """Seconds to wait, from 0 to below ``splay``: the same each time on one machine, and evenly spread over many."""
    number = int.from_bytes(sha256(f"kdump-orchestrator pull {machine}".encode()).digest()[:8])
    return splay * (number / 2**64)


def machine_id(root: str = "/") -> str:
    """What tells this machine from others of its name; empty where it has no id (then its name has to do)."""
    try:
        data = read_limited(Path(root) / "etc/machine-id", 256)
    except OSError:
        return ""
    return (data or b"").decode("ascii", "replace").strip()


# ---------------------------------------------------------------------- the bundle


def local_bytes(path: Path, what: str, limit: int) -> bytes:
    """A file beside which nothing else is read. Raises :class:`InvalidInput`."""
    try:
        data = read_limited(path, limit)
    except OSError as e:
        fix = "ssh-keygen -Y sign -n kdump-orchestrator -f KEY FILE" if what == "signature" else "mend the path"
        raise InvalidInput(f"the {what} cannot be read", where=str(path), why=e.strerror or str(e), fix=fix) from None
    if data is None:
        raise InvalidInput(
            f"the {what} is too large", where=str(path), why=f"more than {limit} bytes", fix="is that it?"
        )
    return data


def signer_of(data: bytes, signature: bytes, allowed: str, where: str) -> str:
    """Who has signed these bytes. Raises :class:`PolicyError` (P06x), naming ``where`` they came from."""
    signers = Signers(allowed)
    with run_directory() as folder:
        path = folder / "FLEET.bundle"
        (folder / "FLEET.bundle.sig").write_bytes(signature)
        try:
            return signers(path, data)
        except KdoError as e:
            e.problems = [
                replace(
                    p, where=where, why=p.why.replace(str(path), where), fix=p.fix.replace(str(path), "FLEET.bundle")
                )
                for p in e.problems
            ]
            raise


def obtain(source: str, allowed: str, record: PullRecord, ca: str = "") -> Got:
    """The bundle and its signature, checked: fetched, read, or the remembered one where the server has no other."""
    if not is_url(source):
        data = local_bytes(Path(source), "bundle", MAX_BUNDLE)
        signature = local_bytes(Path(f"{source}.sig"), "signature", MAX_SIGNATURE)
        return Got(data, signature, signer_of(data, signature, allowed, source))
    known = bool(record.bundle) and record.source == source
    body = get(source, MAX_BUNDLE, etag=record.etag if known else "", ca=ca)
    signed = get(f"{source}.sig", MAX_SIGNATURE, etag=record.signature_etag if known else "", ca=ca)
    if not known and (body.body is None or signed.body is None):
        why = "it says that nothing has changed, and was not asked that"
        raise Unreachable("the server's answer makes no sense", where=source, why=why, fix="look at the server")
    data = record.bundle.encode() if body.body is None else body.body
    signature = record.signature.encode() if signed.body is None else signed.body
    return Got(data, signature, signer_of(data, signature, allowed, source), body.etag, signed.etag)


def admit(bundle: Bundle, got: Got, record: PullRecord, now: datetime, where: str) -> None:
    """Raise :class:`InvalidInput` for a bundle that is over, or older than one that this host has seen."""
    if over := expired(bundle, now.date(), where):
        raise InvalidInput([over])
    if bundle.serial < record.serial:
        what = f"the bundle {bundle.serial} is older than one that this host has seen"
        why = f"it has seen {record.serial} on {record.at[:10]}; an old bundle is signed as well as a new one"
        fix = f"to go back to older content, make it anew with a serial above {record.serial}, and sign it"
        raise InvalidInput(what, where=where, why=why, fix=fix)
    if bundle.serial == record.serial and fingerprint(got.data) != record.fingerprint:
        what = f"this is another bundle {bundle.serial} than the one that this host has seen"
        fix = f"give it a serial above {bundle.serial}, and sign it"
        raise InvalidInput(what, where=where, why="one serial means one content", fix=fix)


def _noted(bundle: Bundle, got: Got, record: PullRecord, source: str, now: datetime) -> PullRecord:
    return msgspec.structs.replace(
        record,
        serial=bundle.serial,
        fingerprint=fingerprint(got.data),
        source=source,
        etag=got.etag,
        signature_etag=got.signature_etag,
        bundle=got.data.decode("utf-8"),
        signature=got.signature.decode("utf-8", "replace"),
        at=stamp(now),
    )


def remembered(state: Path, allowed: str, known: Knowledge, now: datetime) -> Orders:
    """The orders of the last bundle that this host has taken, its signature checked again (for ``kdo watch --pulled``)."""
    record = recall(state)
    if not record.bundle:
        fix = "kdo pull first"
        raise InvalidInput("this host has taken no bundle yet", where=str(state), fix=fix)
    data = record.bundle.encode()
    where = f"bundle {record.serial} from {record.source}"
    signer = signer_of(data, record.signature.encode(), allowed, where)
    bundle = parse(data, where)
    over = expired(bundle, now.date(), where)
    return replace(opened(bundle, known, signer), problems=[over] if over else [])


# ---------------------------------------------------------------------- the whole way


@dataclass
class _Trip:
    """What is known on the way; a report can be made of it at any moment."""

    way: Way
    now: datetime
    policy: ReportPolicy = field(default_factory=ReportPolicy)
    bundle: Bundle | None = None
    seen: Seen | None = None
    outcome: Outcome | None = None
    verdict: Verdict | None = None
    pending: str = ""
    reboot: bool = False
    code: Exit = Exit.OK
    problems: list[Problem] = field(default_factory=list)

    def fail(self, code: Exit, problems: list[Problem]) -> None:
        self.code = code
        self.problems += problems


def pull(way: Way, known: Knowledge) -> Pulled:
    """Fetch, check, judge, act where that is asked for. Never raises a :class:`KdoError`: it is in the report instead."""
    trip = _Trip(way, way.clock())
    try:
        with alone(way.state), _told(trip):
            record = recall(way.state)
            got = obtain(way.source, way.allowed_signers, record, way.ca)
            bundle = trip.bundle = parse(got.data, way.source)
            trip.policy = ReportPolicy(
                serial=bundle.serial,
                policy=bundle.policy_name,
                policy_hash=bundle.policy_hash,
                signer=got.signer,
            )
            admit(bundle, got, record, trip.now, way.source)
            noted = _noted(bundle, got, record, way.source, trip.now)
            remember(way.state, noted)
            orders = opened(bundle, known, got.signer)
            trip.policy = orders.policy
            found = look(way.who, orders, trip.now)
            if isinstance(found, HostProblem):
                trip.fail(Exit.FAILED, [Problem(found.what, found.host, found.why, found.fix)])
            else:
                trip.seen, trip.verdict, trip.code = found, found.verdict, found.code
                if way.apply and found.plan.status == "changes":
                    _act(trip, orders, found, noted)
    except KdoError as e:  # of the directory and its lock
        trip.fail(e.exit_code, e.problems)
    made = report(way.who, "pull", trip.now, trip.policy, trip.seen, [told(p) for p in trip.problems])
    made = msgspec.structs.replace(made, outcome=trip.outcome, pending_reboot=trip.pending, verdict=trip.verdict)
    return Pulled(made, trip.code, trip.problems, trip.verdict, trip.reboot, trip.bundle)


@contextmanager
def _told(trip: _Trip) -> Iterator[None]:
    try:
        yield
    except KdoError as e:
        trip.fail(e.exit_code, e.problems)


def _act(trip: _Trip, orders: Orders, seen: Seen, record: PullRecord) -> None:
    """Run the plan of this machine as one transaction, and look again."""
    way, waivers = trip.way, Waivers(orders.waivers, trip.now.date())
    plan = seal(waivers.signed(orders.pipeline.policy), [seen.plan])
    whom = Whom(name=way.who.host, groups=way.who.groups)
    run = Run(orders.pipeline, whom, plan, waivers=waivers, clock=way.clock)
    done = run.apply(Collected([seen.facts]))
    trip.outcome = next(iter(done.outcomes), None)
    trip.verdict = next(iter(done.verdicts), trip.verdict)
    if trip.outcome is not None and trip.outcome.state in _BAD:
        error = trip.outcome.error or {}
        what = error.get("what", "the transaction failed")
        trip.fail(
            Exit.FAILED, [Problem(what, way.who.host, error.get("why", trip.outcome.state), error.get("fix", ""))]
        )
        return
    if done.pending_reboot:
        trip.code = Exit.PENDING
        again = look(way.who, orders, trip.now)  # the verdict so far is that of before the transaction
        if isinstance(again, Seen):
            trip.verdict = again.verdict
        trip.pending = _reboot(trip, seen, record)
        return
    trip.code = Exit.OK if trip.verdict is not None and trip.verdict.status == "pass" else Exit.PENDING


def _reboot(trip: _Trip, seen: Seen, record: PullRecord) -> str:
    """Why the reboot that is needed waits; ``now`` when it is made, and that is remembered first."""
    if not trip.way.reboot:
        return "--reboot was not given"
    if why := may_reboot(seen.plan, trip.now):
        return why
    wanted = seen.verdict.state or seen.plan.fingerprint
    last = record.rebooted.get(wanted)
    if last is not None and trip.now - _time(last) < REBOOT_AGAIN:
        # What a reboot did not bring, another one will not: a machine that reboots for ever is worse than one without kdump.
        return f"it was rebooted for this on {last}, and still needs it; not again within {REBOOT_AGAIN.total_seconds() / 3600:.0f} hours"
    kept = dict(sorted(record.rebooted.items(), key=lambda item: item[1])[1 - _REMEMBERED :])
    remember(trip.way.state, msgspec.structs.replace(record, rebooted={**kept, wanted: stamp(trip.now)}))
    trip.reboot = True
    return "now"


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC) - REBOOT_AGAIN  # unreadable: as if it had been just now


def reboot_now(command: tuple[str, ...] = REBOOT) -> None:
    """Ask the service manager for a reboot. Raises :class:`KdoError`."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        why = "" if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip()[:300]
    except (OSError, subprocess.TimeoutExpired) as e:
        why, done = str(e)[:300], None
    if done is None or done.returncode != 0:
        raise KdoError("the reboot could not be ordered", why=why or "no reason was given", fix="reboot it by hand")


def wait(splay: float, who: Me, sleep: Callable[[float], None] = time.sleep) -> float:
    """Sleep this machine's part of the splay, in seconds, and return it."""
    seconds = delay(splay, machine_id(who.root) or who.host)
    if seconds > 0:
        sleep(seconds)
    return seconds
