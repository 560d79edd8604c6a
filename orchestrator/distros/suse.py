# SPDX-License-Identifier: Apache-2.0
"""SLES and openSUSE: /etc/sysconfig/kdump. The facts that it works with are in policies/knowledge/families.yaml.

From 2.0.19 on kdump writes ``crashkernel=`` into the boot loader itself at every boot, from ``KDUMP_CRASHKERNEL``. So the
wanted value goes there, and kdump's own tool is the one who writes it: two owners would take turns for ever.
Sources: openSUSE/kdump (init/load.sh, init/mkdumprd, kdumptool/kdumptool, kdump-read-config.sh), kdump(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.bootloaders.base import NextBoot
from orchestrator.cmdline import check_safe, ensure, key_of, pair, split, without
from orchestrator.distros.base import Capture, Module, text_of
from orchestrator.distros.base import variables as read_variables
from orchestrator.documents.decision import Decision, DumpTarget, Settings
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredFile, DesiredState
from orchestrator.documents.platform import Platform
from orchestrator.errors import InvalidInput
from orchestrator.versions import compare

_COMPRESSION = {"zlib": "compressed", "lzo": "lzo", "snappy": "snappy", "zstd": "zstd"}
_TRUE = ("yes", "1", "true")
_SHELL = ("KDUMP_COMMANDLINE", "KDUMP_COMMANDLINE_APPEND", "KDUMP_CPUS", "KDUMP_CRASHKERNEL", "KDUMP_SAVEDIR")
_TPM = "/var/lib/systemd/pcrlock.json"
_SNAPSHOT = (
    "its root is a read-only snapshot: nothing of it can be taken back by a transaction of ours. By hand: "
    "transactional-update setup-kdump --crashkernel=<low>[,<high>] (sizes in MiB), then reboot into the new snapshot"
)


@dataclass(frozen=True)
class _Host:
    """All of a host that its wanted state depends on; hosts that agree in it share one."""

    config: str
    version: str  # of the installed kdump; empty = not installed
    arch: str
    distribution: str
    release: str
    read_only: bool
    snapshots: bool  # transactional-update is there
    predicted: bool  # the disk is unlocked by the measured command line
    xen: bool
    inherited: tuple[str, ...]  # arguments that the capture kernel gets from the first kernel's command line


class Suse(Module):
    """The family module."""

    # What load.sh makes of the configuration.

    def _inherited(self, arguments: list[str], arch: str) -> list[str]:
        off = {*self.data["capture_removed"]["*"], *self.data["capture_removed"].get(arch, [])}
        return [a for a in arguments if a.replace('"', "").partition("=")[0] not in off]

    def _given(self, variables: Mapping[str, str | None], arch: str, xen: bool) -> list[str]:
        """What is appended besides KDUMP_COMMANDLINE_APPEND; a whole command line of the administrator replaces it."""
        if whole := variables.get("KDUMP_COMMANDLINE"):
            return split(whole)
        table = self.data["capture_default"]
        cpus = "1" if xen else variables.get("KDUMP_CPUS") or self.data["cpus"]
        return [*table["*"], *([f"nr_cpus={cpus}"] if cpus != "0" else []), *table.get(arch, [])]

    def capture(self, facts: Facts, platform: Platform, boot: NextBoot) -> Capture:
        """The present state. What kexec was given is recorded nowhere, so it is concluded where that is possible."""
        d, variables = self.data, read_variables(text_of(facts.files.get(self.data["config"])))
        arch, xen = platform.arch, platform.hypervisor == "xen"
        whole = bool(variables.get("KDUMP_COMMANDLINE"))
        inherited = [] if whole else self._inherited(boot.arguments, arch)
        running = [] if whole else self._inherited(split(facts.kernel.cmdline), arch)
        added = [*self._given(variables, arch, xen), *split(variables.get("KDUMP_COMMANDLINE_APPEND") or "")]
        release = self._release(facts, variables, boot)
        file = facts.files.get(d["image"])
        present = file is not None and not file.error
        place = _place(variables.get("KDUMP_SAVEDIR") or d["target"], variables.get("KDUMP_SSH_IDENTITY") or "")
        seen = self._loaded(facts)
        return Capture(
            [*(a for a in running if a not in added), *added] if seen else None,
            [*(a for a in inherited if a not in added), *added],
            place.path if place.kind == "path" else d["target"],
            d["image"],
            present,
            self._stale(facts, release) if present else "",
            release,
            DumpTarget() if place.kind == "path" else place,
            ""
            if seen is not False
            else f"{d['config']} has changed since the boot, and nothing tells whether it was loaded",
        )

    def _loaded(self, facts: Facts) -> bool | None:
        """Whether what is loaded was loaded with the configuration as it is; None where that cannot be concluded.

        It was when the file is older than the boot (the service loaded it), or the host side's note of its own load names
        this very content. load.sh makes the command line from that file and /proc/cmdline alone.
        """
        file, booted = facts.files.get(self.data["config"]), facts.kernel.booted
        if not facts.kexec.crash_loaded or file is None or file.error or not file.sha256:
            return None
        if text_of(facts.files.get(self.data["load_note"])).strip() == file.sha256:
            return True
        return None if booted is None else file.mtime < booted

    def _release(self, facts: Facts, variables: Mapping[str, str | None], boot: NextBoot) -> str:
        """The kernel that mkdumprd builds for: the configured one, else what the link in /boot leads to."""
        named = variables.get("KDUMP_KERNELVER") or ""
        if named:
            return named.rsplit("/", 1)[-1].partition("-")[2] if named.startswith("/") else named
        for path in self.data["kernels"]:
            file = facts.files.get(path)
            if file is not None and (release := _release_of(file.link)):
                return release
        return boot.release or facts.kernel.release

    def _stale(self, facts: Facts, release: str) -> str:
        """mkdumprd builds anew when its configuration is newer, or when it is to be for another kernel."""
        image, config = facts.files[self.data["image"]], facts.files.get(self.data["config"])
        if config is not None and config.mtime > image.mtime:
            return f"{self.data['config']} is newer than the capture image"
        link = facts.files.get(self.data["image_kernel"])
        built = _release_of(link.link) if link is not None else ""
        return f"the capture image is for {built}" if built and built != release else ""

    # The wanted state.

    def _row(self, version: str) -> Mapping[str, Any]:
        rows: list[Mapping[str, Any]] = self.data["versions"]
        return next((r for r in rows if "below" not in r or compare(version, r["below"]) < 0), rows[-1])

    def _unsupported(self, host: _Host, s: Settings) -> str:
        release = self.data["releases"].get(host.distribution)
        if host.read_only:
            return _SNAPSHOT if host.snapshots else "the root filesystem is read-only"
        if release is None:
            known = ", ".join(self.data["releases"])
            return f"distribution {host.distribution or 'unknown'} is not supported yet ({known} are)"
        if release["min"] and host.release and compare(host.release, release["min"]) < 0:
            return f"{host.distribution} {host.release} is older than {release['min']}"
        if host.version and (why := self._row(host.version).get("why_not", "")):
            return f"kdump {host.version}: {why}"
        if host.version and (low := self.data["arch_min"].get(host.arch)) and compare(host.version, low) < 0:
            return f"kdump {host.version} limits the CPUs by maxcpus on {host.arch}: {low} or newer is needed"
        if not host.version and release["kdump"] and compare(host.release, release["kdump"]) < 0 and s.enabled:
            why = f"before {host.distribution} {release['kdump']} it depends on its version who writes the boot loader"
            return f"kdump is not installed, and {why}: install it, then plan again"
        if host.predicted:
            return f"the disk is unlocked by measurements of the command line ({_TPM}): change it with sdbootutil"
        if s.fadump in ("on", "nocma") or read_variables(host.config).get("KDUMP_FADUMP") in _TRUE:
            return "fadump makes the system's own initrds anew, which cannot be taken back yet"
        return ""

    def desired(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> DesiredState:
        """The wanted state in SUSE's words; like hosts with one decision share it."""
        d = self.data
        first = {key_of(a): a for a in self._inherited(boot.arguments, platform.arch)}
        host = _Host(
            text_of(facts.files.get(d["config"])),
            (facts.packages or {}).get(d["package"], ""),
            platform.arch,
            platform.distribution,
            platform.distribution_version,
            facts.distribution.read_only_root,
            "transactional-update" in facts.boot.tools or "/etc/transactional-update.conf" in facts.boot.markers,
            _TPM in facts.boot.markers,
            platform.hypervisor == "xen",
            tuple(a for a in first.values() if a in decision.settings.capture_ensure),
        )
        return self._shared(decision, host, lambda: self._make(decision, host))

    def _make(self, decision: Decision, host: _Host) -> DesiredState:
        s, d = decision.settings, self.data
        if why := self._unsupported(host, s):
            return DesiredState(supported=False, why_not=why)
        if not s.enabled:
            return self._without(host, s)
        now = read_variables(host.config)
        if bad := next((k for k in _SHELL if now.get(k, "") is None), ""):
            return DesiredState(
                supported=False, why_not=f"{d['config']} computes {bad} in shell: it cannot be changed safely"
            )
        try:
            pairs, capture = self._command_line(s, host, now)
            pairs += self._reservation(s, host, now)
        except InvalidInput as e:  # of this host alone: the fleet goes on
            return DesiredState(supported=False, why_not=f"{d['config']}: {e.problems[0].what}")
        pairs += [*_target(s.target, now, d["target"]), *_dump(s, now)]
        package = "" if host.version else d["package"]
        files = [
            DesiredFile(
                path=d["config"],
                assignments=[(k, v) for k, v in pairs if now.get(k) != v],
                package=package,
                image=True,
                why="the capture kernel gets the arguments of the strategy, and the boot loader the reservation",
            )
        ]
        return self._state(s, files, packages=[package] if package else [], capture_arguments=capture, presets=False)

    def _command_line(
        self, s: Settings, host: _Host, now: Mapping[str, str | None]
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """Assignments for the capture kernel's command line, and all that is appended to it then."""
        whole, pairs = bool(now.get("KDUMP_COMMANDLINE")), list[tuple[str, str]]()
        wanted = {key_of(a): a for a in s.capture_ensure}
        cpus = None if whole or host.xen else _cpus(wanted)
        if cpus is not None and now.get("KDUMP_CPUS") != cpus:  # what is meant when it is not set differs by version
            pairs.append(("KDUMP_CPUS", cpus))
        given = self._given({**now, **dict(pairs)}, host.arch, host.xen)
        if stuck := [a for a in given if a not in without([a], s.capture_remove) and a not in s.capture_ensure]:
            raise InvalidInput(f"load.sh always adds {' '.join(stuck)}: the policy's capture.remove cannot be met")
        append = split(now.get("KDUMP_COMMANDLINE_APPEND") or "")
        # What load.sh adds already, or the first kernel's command line brings, would stand there twice.
        brought = {*given, *(() if whole else host.inherited)}
        base = [a for a in without(append, s.capture_remove) if key_of(a) not in wanted or a == wanted[key_of(a)]]
        out = ensure([a for a in base if a not in brought], [a for a in s.capture_ensure if a not in brought])
        for argument in out:
            check_safe(argument, where=self.data["config"])
        if out != append:
            pairs.append(("KDUMP_COMMANDLINE_APPEND", " ".join(out)))
        over = {key_of(a) for a in out}
        return pairs, [*(a for a in given if key_of(a) not in over), *out]

    def _reservation(self, s: Settings, host: _Host, now: Mapping[str, str | None]) -> list[tuple[str, str]]:
        """The value that kdump's own updater works from, where it has one."""
        if not self._row(host.version or "9").get("updates") or not s.reservation.arguments:
            return []
        value = " ".join(check_safe(f"crashkernel={a}") for a in s.reservation.arguments)
        automatic = " ".join((now.get("KDUMP_CRASHKERNEL") or "auto").split()) == "auto"
        pairs = [] if s.reservation.origin == "kept" and automatic else [("KDUMP_CRASHKERNEL", value)]
        # Or kdump gives memory back at every boot, and the reservation is never what was asked for.
        return [*pairs, *([("KDUMP_AUTO_RESIZE", "false")] if now.get("KDUMP_AUTO_RESIZE") in _TRUE else [])]

    def _without(self, host: _Host, s: Settings) -> DesiredState:
        """No kdump: its services off, so that nobody writes the boot loader, and nothing on the command line."""
        d = self.data
        return DesiredState(
            supported=True,
            enabled=False,
            files=[DesiredFile(path=d["config"], why="no kdump is wanted on this host")] if host.config else [],
            boot_remove=list(s.boot_remove),
            boot_owned=[*d["boot_owned"], "fadump"],
            service=d["service"],
            presets=False,
        )


def _release_of(path: str) -> str:
    """The release in the name of a kernel file, or in that of its directory below /lib/modules."""
    parts = path.split("/")
    if "modules" in parts[:-2]:
        return parts[parts.index("modules") + 1]
    return parts[-1].partition("-")[2]


def _cpus(wanted: Mapping[str, str]) -> str | None:
    """KDUMP_CPUS for the wanted arguments; 0 = load.sh adds none. None where the policy says nothing of CPUs."""
    if "nr_cpus" in wanted:
        return pair(wanted["nr_cpus"])[1]
    return "0" if "maxcpus" in wanted else None


def _place(url: str, key: str) -> DumpTarget:
    """Where a KDUMP_SAVEDIR sends dumps, in the words of a policy."""
    protocol, there, rest = url.partition("://")
    if not there or protocol.lower() == "file":
        return DumpTarget(kind="path", path=rest if there else url)
    server, slash, path = rest.partition("/")
    if protocol.lower() == "nfs":
        return DumpTarget(kind="nfs", place=f"{server}:/{path}")
    return DumpTarget(kind="ssh", place=server.rpartition("@")[0].partition(":")[0] + "@" + server.rpartition("@")[2],
                      path=slash + path, key=key)  # fmt: skip


def _target(target: DumpTarget, now: Mapping[str, str | None], default: str) -> list[tuple[str, str]]:
    """KDUMP_SAVEDIR for a target. A path is written as one where the file says it as a URL with the same meaning."""
    if target.kind not in ("path", "nfs", "ssh"):
        return []
    have = now.get("KDUMP_SAVEDIR") or default
    old = _place(have, "")
    path = target.path or (old.path if old.kind == target.kind else default)
    if target.kind == "nfs":
        server, _, export = target.place.partition(":")
        url = f"nfs://{server}{export.rstrip('/')}{target.path}"
    elif target.kind == "ssh":
        url = f"ssh://{target.place}{path}"
    else:
        url = have if old.kind == "path" and old.path == path else path
    out = [("KDUMP_SAVEDIR", url)] if url != have else []
    return [*out, *([("KDUMP_SSH_IDENTITY", target.key)] if target.key else [])]


def _dump(s: Settings, now: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """How the dump is written and kept, and what happens then."""
    out = []
    if s.dump_level is not None:
        out.append(("KDUMP_DUMPLEVEL", str(s.dump_level)))
    if s.collector == "copy":
        out.append(("KDUMP_DUMPFORMAT", "raw"))
    elif s.dump_compression or (s.collector and now.get("KDUMP_DUMPFORMAT") in ("raw", "none")):
        out.append(("KDUMP_DUMPFORMAT", _COMPRESSION[s.dump_compression or "zlib"]))
    if s.keep_dumps is not None:
        out.append(("KDUMP_KEEP_OLD_DUMPS", str(s.keep_dumps)))
    if s.minimum_free is not None:
        out.append(("KDUMP_FREE_DISK_SIZE", str(-(-s.minimum_free >> 20) if s.minimum_free else 0)))
    if s.final_action == "reboot" and now.get("KDUMP_IMMEDIATE_REBOOT", "true") not in _TRUE:
        out.append(("KDUMP_IMMEDIATE_REBOOT", "true"))
    goes_on = {"reboot": True, "shell": False}.get(s.failure_action)
    if goes_on is not None and ((now.get("KDUMP_CONTINUE_ON_ERROR") or "true") in _TRUE) != goes_on:
        out.append(("KDUMP_CONTINUE_ON_ERROR", "true" if goes_on else "false"))
    return out
