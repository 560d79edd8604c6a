# SPDX-License-Identifier: Apache-2.0
"""Is kdump off, where the policy wants no kdump? Memory, capture kernel, service, next boot."""

from __future__ import annotations

from orchestrator.checks.base import Answer, Subject, check
from orchestrator.cmdline import values
from orchestrator.crashkernel import format_size
from orchestrator.services import is_masked, is_there, service_of


@check("off-memory", "no memory is reserved", enabled=False)
def off_memory(s: Subject) -> Answer:
    """kexec_crash_size: memory that is set aside and never used."""
    size = s.facts.kexec.crash_size
    if size is None:
        return ("pass", "the kernel has no kexec") if s.facts.kexec.supported is False else ("unknown", "not readable")
    return ("pass", "0 bytes") if size == 0 else ("fail", f"{format_size(size)} reserved", "kdo apply, then reboot")


@check("off-loaded", "no capture kernel is loaded", enabled=False)
def off_loaded(s: Subject) -> Answer:
    """kexec_crash_loaded."""
    loaded = s.facts.kexec.crash_loaded
    if loaded is None:
        return ("pass", "the kernel has no kexec") if s.facts.kexec.supported is False else ("unknown", "not readable")
    return ("fail", "kexec_crash_loaded is 1", "kdo apply") if loaded else ("pass", "kexec_crash_loaded is 0")


@check("off-service", "the service does not start", enabled=False)
def off_service(s: Subject) -> Answer:
    """UnitFileState of the family's service."""
    found = service_of(s.facts, s.desired.service)
    if found is None or not is_there(found):
        return _no_service(s)
    if found.enabled == "enabled":
        return "fail", f"{s.desired.service} is enabled", "kdo apply"
    return "pass", f"{s.desired.service} is {found.enabled or 'not enabled'}"


@check("off-mask", "nothing can start the service", enabled=False)
def off_mask(s: Subject) -> Answer:
    """UnitFileState of the family's service, where the policy manages masks."""
    if s.decision.settings.mask != "manage":
        return "skip", "the policy leaves masks alone"
    found = service_of(s.facts, s.desired.service)
    if found is None or not is_there(found):
        return _no_service(s)
    if is_masked(found):
        return "pass", f"{s.desired.service} is masked"
    return "fail", f"{s.desired.service} is {found.enabled or found.load}, not masked", "kdo apply"


def _no_service(s: Subject) -> Answer:
    unasked = service_of(s.facts, s.desired.service) is None and any(u.what == "services" for u in s.facts.probe.unseen)
    return ("unknown", "services could not be asked") if unasked else ("pass", f"{s.desired.service} is not there")


@check("off-next-boot", "the next boot reserves nothing", enabled=False)
def off_next_boot(s: Subject) -> Answer:
    """The arguments of the entry that boots next."""
    if not s.boot.known:
        return "unknown", s.boot.why
    stray = [f"{k}={v}" for k in s.desired.boot_remove for v in values(s.boot.arguments, k)]
    return ("fail", " ".join(stray), "kdo apply") if stray else ("pass", "no crashkernel=")
