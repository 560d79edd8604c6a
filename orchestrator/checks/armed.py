# SPDX-License-Identifier: Apache-2.0
"""Is kdump armed as decided? Memory, image, command line, the three layers, the target, and what stands in the way."""

from __future__ import annotations

from orchestrator.checks.base import Answer, Subject, check
from orchestrator.cmdline import key_of, last, truthy, values
from orchestrator.crashkernel import format_size
from orchestrator.planning.rows import once, wanted_values

_TOLERANCE = 4 << 20


@check("reservation", "memory is reserved, and enough of it")
def reservation(s: Subject) -> Answer:
    """kexec_crash_size against what the decision wants for this much RAM."""
    size, wanted = s.facts.kexec.crash_size, s.decision.settings.reservation.wanted
    if s.facts.kexec.supported is False:
        return "fail", "the kernel has no kexec", "boot a kernel with CONFIG_KEXEC or CONFIG_KEXEC_FILE"
    if size is None:
        return "unknown", "kexec_crash_size could not be read"
    asked = values(s.facts.kernel.cmdline, "crashkernel")
    if size == 0:
        why = (
            f"crashkernel={asked[-1]} was ignored by the kernel"
            if asked
            else "the running kernel was started without crashkernel="
        )
        return "fail", f"nothing is reserved: {why}", "kdo apply, then reboot"
    if wanted is not None and size < wanted - _TOLERANCE:
        return "fail", f"{format_size(size)} reserved, wanted is {format_size(wanted)}", "kdo apply, then reboot"
    return "pass", f"{format_size(size)} reserved" + (f", wanted is {format_size(wanted)}" if wanted else "")


@check("crashkernel-once", "exactly one crashkernel= on the running command line")
def crashkernel_once(s: Subject) -> Answer:
    """The kernel takes the last one, people read the first one."""
    found = values(s.facts.kernel.cmdline, "crashkernel")
    if len(found) == 1:
        return "pass", f"crashkernel={found[0]}"
    if not found:
        return "fail", "no crashkernel= on /proc/cmdline", "kdo apply, then reboot"
    if any(v.endswith((",high", ",low", ",cma")) for v in found):
        return "pass", " ".join(f"crashkernel={v}" for v in found)
    return "fail", "several: " + " ".join(f"crashkernel={v}" for v in found), "kdo apply, then reboot"


@check("next-boot", "the next boot keeps the configuration")
def next_boot(s: Subject) -> Answer:
    """The arguments of the entry that boots next."""
    if not s.boot.known:
        return "unknown", s.boot.why
    wrong = []
    for key, wanted in wanted_values(s.desired).items():
        if values(s.boot.arguments, key) != wanted:
            wrong.append(" ".join(f"{key}={v}" if v else key for v in wanted))
    stray = [k for k in s.desired.boot_remove if values(s.boot.arguments, k)]
    if wrong or stray:
        return "fail", "; ".join([f"lacks {a} once" for a in wrong] + [f"still has {k}" for k in stray]), "kdo apply"
    return "pass", f"{s.boot.title or 'the default entry'}: " + " ".join(s.desired.boot_ensure)


@check("capture-loaded", "a capture kernel is loaded")
def capture_loaded(s: Subject) -> Answer:
    """kexec_crash_loaded; the service's state proves nothing."""
    loaded = s.facts.kexec.crash_loaded
    if loaded is None:
        return "unknown", "kexec_crash_loaded could not be read"
    if loaded:
        return "pass", "kexec_crash_loaded is 1"
    return "fail", "kexec_crash_loaded is 0", f"look at `journalctl -u {s.desired.service}`; kdo apply loads it"


@check("capture-arguments", "the capture kernel got the strategy's arguments, each once")
def capture_arguments(s: Subject) -> Answer:
    """The command line that kexec was given, as the distribution's tool recorded it at the load."""
    loaded = s.capture.loaded_arguments
    if not s.facts.kexec.crash_loaded:
        return "fail", "no capture kernel is loaded"
    if loaded is None:
        return (
            "unknown",
            "no record of the command line that it was loaded with",
            "load it again with the distribution's own tool",
        )
    problems = []
    for argument in s.desired.capture_arguments:
        same = [a for a in loaded if key_of(a) == key_of(argument)]
        if argument not in same:
            problems.append(f"lacks {argument}")
        elif same[-1] != argument:
            problems.append(f"{argument} is overridden by {same[-1]}")
        elif not once(same, argument):
            problems.append(f"has {len(same)} × {argument}")
    unwanted = [a for a in s.decision.settings.capture_remove if any(a in (x, key_of(x)) for x in loaded)]
    problems += [f"has {a}, which must not be there" for a in unwanted]
    if problems:
        return "fail", "; ".join(problems), "kdo apply"
    return "pass", " ".join(s.desired.capture_arguments)


@check("post-notifiers", "crash_kexec_post_notifiers is as decided")
def post_notifiers(s: Subject) -> Answer:
    """The effective value, and who set it: the kernel, the command line, a tmpfiles.d entry, or somebody at run time."""
    value, wanted = s.facts.kernel.post_notifiers, s.decision.settings.post_notifiers
    if value is None:
        return "unknown", "the parameter could not be read"
    evidence = f"{value}, set by {setter(s)}"
    if wanted is None or (value == "Y") == wanted:
        return "pass", evidence
    return "fail", f"{evidence}; wanted is {'Y' if wanted else 'N'}", "kdo apply"


def setter(s: Subject) -> str:
    """Who is responsible for the present value of crash_kexec_post_notifiers."""
    value = s.facts.kernel.post_notifiers
    command_line = truthy(last(s.facts.kernel.cmdline, "crash_kexec_post_notifiers"))
    kernel = any("enabling crash_kexec_post_notifiers" in line for line in s.facts.signals.kernel_log)
    if value == "Y":
        if kernel or s.decision.layer("crash_kexec_post_notifiers").forced:
            return "the kernel"
        if command_line:
            return "the command line"
        if s.facts.kexec.notifier_setters:
            return f"tmpfiles.d ({s.facts.kexec.notifier_setters[0]})"
        return "somebody at run time"
    if command_line or kernel:
        return "somebody at run time, against " + ("the kernel" if kernel else "the command line")
    return "nobody (the kernel's default)"


@check("custom-handler", "the crash handler that is relied on is there")
def custom_handler(s: Subject) -> Answer:
    """Only a question where the strategy relies on it."""
    layer = s.decision.layer("custom_handler")
    if s.decision.strategy != "custom_handler":
        return "skip", f"not relied on ({layer.state})"
    if layer.state == "verified":
        return "pass", layer.why
    return "warn", layer.why, "run as root, so that the kernel's symbols can be read"


@check("capture-image", "the capture image is newer than what it was built from")
def capture_image(s: Subject) -> Answer:
    """Times and recorded hashes of the image's inputs."""
    if not s.capture.image_present:
        return "fail", f"{s.capture.image} is not there", "kdo apply"
    if s.capture.image_stale:
        return "fail", s.capture.image_stale, "kdo apply"
    return "pass", s.capture.image


@check("kexec-allowed", "nothing keeps the capture kernel from being loaded again")
def kexec_allowed(s: Subject) -> Answer:
    """kexec_load_disabled, load limits and lockdown."""
    x, k = s.facts.kexec, s.facts.kernel
    if x.load_disabled:
        return (
            "warn" if x.crash_loaded else "fail",
            "kernel.kexec_load_disabled is 1 (until reboot)",
            "remove the sysctl, reboot",
        )
    if x.limit_panic == 0:
        return (
            "warn" if x.crash_loaded else "fail",
            "kernel.kexec_load_limit_panic is 0 (until reboot)",
            "raise the limit, reboot",
        )
    if "[integrity]" in k.lockdown or "[confidentiality]" in k.lockdown:
        if k.config.get("KEXEC_FILE", "n") != "y":
            return (
                "fail",
                f"lockdown is on ({k.lockdown}) and the kernel has no kexec_file_load",
                "use a kernel with CONFIG_KEXEC_FILE",
            )
        return "pass", f"lockdown is on: only signed images through kexec_file_load ({k.lockdown})"
    return "pass", "kexec_load_disabled is 0, no limit is used up, no lockdown"


@check("vmcore-header", "the loaded image can describe the kernel's memory")
def vmcore_header(s: Subject) -> Answer:
    """kexec-tools (2.0.25 and 2.0.29, measured) needs ``_text`` in /proc/kallsyms on arm64; without it the vmcore cannot be read, yet everything reports success."""
    if s.platform.arch != "aarch64":
        return "skip", "a matter of arm64"
    symbols = s.facts.kernel.symbols
    if symbols is None:
        return "unknown", "/proc/kallsyms could not be read"
    if "_text" in symbols or s.facts.kernel.config.get("KEXEC_FILE") == "y":
        return "pass", "_text is known to kexec, or the kernel makes the header itself"
    version = (s.facts.packages or {}).get("kexec-tools", "unknown")
    return (
        "fail",
        f"the kernel hides _text (no KALLSYMS_ALL) and kexec-tools {version} needs it",
        "use a kernel with CONFIG_KEXEC_FILE or CONFIG_KALLSYMS_ALL, or the unit in docs/arm64.md",
    )
