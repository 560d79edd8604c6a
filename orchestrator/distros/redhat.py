# SPDX-License-Identifier: Apache-2.0
"""RHEL, its rebuilds, Fedora and Amazon Linux: kdumpctl. The facts that it works with are in families.yaml.

Sources: rhkdump/kdump-utils kdumpctl, kdump-lib.sh prepare_cmdline(), gen-kdump-sysconfig.sh, 92-crashkernel.install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import hostside
from orchestrator.bootloaders.base import NextBoot
from orchestrator.cmdline import check_safe, ensure, key_of, split, values, without
from orchestrator.distros import login
from orchestrator.distros.base import Capture, Module, text_of
from orchestrator.distros.base import variables as read_variables
from orchestrator.distros.kdump_conf import Conf, Unfit, filesystem_of, read
from orchestrator.documents.decision import Decision, Settings
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredFile, DesiredState
from orchestrator.documents.platform import Platform
from orchestrator.errors import InvalidInput
from orchestrator.services import service_of
from orchestrator.versions import compare

_APPEND, _REMOVE = "KDUMP_COMMANDLINE_APPEND", "KDUMP_COMMANDLINE_REMOVE"
_AUTO = "crashkernel=auto: only the kernels of RHEL 7 and 8 know it, every other one reserves nothing; its size is written out"


@dataclass(frozen=True)
class _Host:
    """All of a host that its wanted state depends on; hosts that agree in it share one."""

    conf: str
    sysconfig: str
    there: tuple[bool, bool]
    installed: bool
    arch: str
    distribution: str
    version: str
    read_only: bool
    inherited: tuple[
        str, ...
    ]  # arguments of the first kernel under a key that the capture kernel is to have or to lack
    filesystem: str  # driver of the policy's filesystem
    unfit: str
    login: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


class RedHat(Module):
    """The family module."""

    def _version(self, distribution: str, version: str) -> Mapping[str, Any] | None:
        """The row for a release; None for a distribution that is not one of the family's supported ones."""
        release = self.data["releases"].get(distribution)
        if release is None:
            return None
        rows: list[Mapping[str, Any]] = self.data["versions"][release["line"]]
        return next((r for r in rows if "below" not in r or (version and compare(version, r["below"]) < 0)), rows[-1])

    def _default(self, table: str, arch: str, row: Mapping[str, Any]) -> list[str]:
        rows = self.data[table] if table == "remove_default" else self.data[table][row["defaults"]]
        return list(rows.get(arch, rows["*"]))

    # The present state.

    def capture(self, facts: Facts, platform: Platform, boot: NextBoot) -> Capture:
        """The present state. What kexec was given is recorded nowhere, so it is concluded where that is possible."""
        d, variables = self.data, read_variables(text_of(facts.files.get(self.data["sysconfig"])))
        row = self._version(platform.distribution, platform.distribution_version) or d["versions"]["el"][-1]
        try:
            conf = Conf(read(text_of(facts.files.get(d["config"]))), d, platform.arch)
        except Unfit:
            conf = Conf({}, d, platform.arch)
        append = variables.get(_APPEND)
        added = split(append) if append is not None else self._default("capture_default", platform.arch, row)
        off = {*d["remove_always"], *self._removed(variables)}
        first = split(variables.get("KDUMP_COMMANDLINE") or "") or boot.arguments
        configured = [*(a for a in first if a.partition("=")[0] not in off), *added]
        # kdumpctl builds for the kernel that runs, never for the next one: the service builds that one's at its boot.
        release = variables.get("KDUMP_KERNELVER") or facts.kernel.release
        paths = [path % release for path in d["images"]]
        image = next((p for p in paths if (f := facts.files.get(p)) is not None and not f.error), "")
        target = conf.now.get("path", d["target"])
        seen = self._loaded(facts)
        now = [
            a
            for a in split(variables.get("KDUMP_COMMANDLINE") or facts.kernel.cmdline)
            if a.partition("=")[0] not in off
        ]
        return Capture(
            [*now, *added] if seen else None,
            configured,
            target,
            image or paths[0],
            bool(image),
            self._stale(facts, image, release) if image else "",
            release,
            conf.place(),
            ""
            if seen is not False
            else f"{d['sysconfig']} has changed since the boot, and nothing tells whether it was loaded",
        )

    def _loaded(self, facts: Facts) -> bool | None:
        """Whether what is loaded was loaded with /etc/sysconfig/kdump as it is; None where there is nothing to conclude from.

        It was when the file is older than the boot (the service loaded it), or the host side's note of its own load names
        this very content. kdumpctl makes the command line from that file and /proc/cmdline alone.
        """
        file, booted = facts.files.get(self.data["sysconfig"]), facts.kernel.booted
        if not facts.kexec.crash_loaded or file is None or file.error or not file.sha256:
            return None
        if text_of(facts.files.get(self.data["load_note"])).strip() == file.sha256:
            return True
        return None if booted is None else file.mtime < booted

    def _removed(self, variables: Mapping[str, str | None]) -> list[str]:
        now = variables.get(_REMOVE)
        return now.split() if now is not None else list(self.data["remove_unset"])

    def _stale(self, facts: Facts, image: str, release: str) -> str:
        """What the image was made from is newer than it. /etc/sysconfig/kdump is read at the load and is not in it."""
        for pattern in self.data["image_sources"]:
            path = pattern.replace("%s", release)
            source = facts.files.get(path)
            if source is not None and source.mtime > facts.files[image].mtime:
                return f"{path} is newer than the capture image"
        return ""

    # The wanted state.

    def _unsupported(self, host: _Host, s: Settings) -> str:
        release = self.data["releases"].get(host.distribution)
        if release is None:
            known = ", ".join(self.data["releases"])
            return f"distribution {host.distribution or 'unknown'} is not supported yet ({known} are)"
        if host.version and compare(host.version, release["min"]) < 0:
            return f"{host.distribution} {host.version} is older than {release['min']}"
        if host.read_only:
            return "the root filesystem is read-only"
        if s.fadump in ("on", "nocma"):
            return "fadump makes the system's own initramfs anew, which cannot be taken back yet"
        return host.unfit

    def desired(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> DesiredState:
        """The wanted state in kdumpctl's words; like hosts with one decision share it."""
        host = self._host(decision, facts, platform, boot)
        return self._shared(decision, host, lambda: self._make(decision, host))

    def _host(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> _Host:
        d, s = self.data, decision.settings
        conf, sysconfig = (facts.files.get(d[name]) for name in ("config", "sysconfig"))
        row = self._version(platform.distribution, platform.distribution_version)
        filesystem = unfit = ""
        try:
            known = Conf(read(text_of(conf)), d, platform.arch)
            filesystem = filesystem_of(s.target, facts, known)
            known.wanted(s, filesystem)
        except Unfit as e:
            unfit = f"{d['config']}: {e}"
        first = split(read_variables(text_of(sysconfig)).get("KDUMP_COMMANDLINE") or "") or boot.arguments
        touched = {key_of(a) for a in (*s.capture_ensure, *(r for r in s.capture_remove if "=" not in r))}
        names = {a.partition("=")[0] for a in first if key_of(a) in touched or a in s.capture_remove}
        return _Host(
            text_of(conf), text_of(sysconfig), (conf is not None, sysconfig is not None),
            row is not None and row["package"] in (facts.packages or {}),
            platform.arch, platform.distribution, platform.distribution_version, facts.distribution.read_only_root,
            tuple(sorted(names - set(d["remove_always"]))), filesystem, unfit,
            tuple(login.needed(s.target, facts).items()), self._notes(decision, facts, boot),
        )  # fmt: skip

    def _notes(self, decision: Decision, facts: Facts, boot: NextBoot) -> tuple[str, ...]:
        notes = [text for text in (login.note(decision.settings.target, facts),) if text]
        notes += [_AUTO] if "auto" in values(boot.arguments, "crashkernel") else []
        service = service_of(facts, self.data["service"])
        # ExecCondition= leaves a result, the older ConditionKernelCommandLine= a condition. Neither is a failure.
        if service is not None and (service.condition == "no" or service.result == "exec-condition"):
            notes.append(f"{self.data['service']} was skipped at this boot, not started: systemd reports no failure")
        return tuple(notes)

    def _make(self, decision: Decision, host: _Host) -> DesiredState:
        s, d = decision.settings, self.data
        if why := self._unsupported(host, s):
            return DesiredState(supported=False, why_not=why)
        row = self._version(host.distribution, host.version) or {}
        if not s.enabled:
            return self._without(host, s, row)
        if host.installed and not all(host.there):
            lost = d["config" if not host.there[0] else "sysconfig"]
            return DesiredState(supported=False, why_not=f"{lost} is not there, though its package is: reinstall it")
        package = "" if host.installed else row["package"]
        try:
            assignments, capture = self._command_line(s, host, row)
        except InvalidInput as e:  # of this host alone: the fleet goes on
            return DesiredState(supported=False, why_not=f"{d['sysconfig']}: {e.problems[0].what}")
        files = [
            DesiredFile(
                path=d["config"],
                settings=self._settings(s, host, row),
                package=package,
                image=True,
                why="where the dump goes, and what happens then",
            ),
            DesiredFile(
                path=d["sysconfig"],
                assignments=assignments,
                package=package,
                load=True,
                why="the capture kernel gets the arguments of the strategy",
            ),
        ]
        if why := _refused(files):
            return DesiredState(supported=False, why_not=why)
        return self._state(
            s,
            files,
            packages=[package] if package else [],
            capture_arguments=capture,
            login=dict(host.login),
            notes=list(host.notes),
        )

    def _settings(self, s: Settings, host: _Host, row: Mapping[str, Any]) -> list[tuple[str, str | None]]:
        """What changes in kdump.conf."""
        now = read(host.conf)
        out = Conf(now, self.data, host.arch).wanted(s, host.filesystem)
        extra: dict[str, str | None] = {}
        if s.failure_action:
            # Both names are one setting: the one that this version calls old must not contradict the other.
            extra |= {"default": None, "failure_action": None, row["failure"]: s.failure_action}
            if row["failure"] == "default" and "failure_action" in now:
                extra |= {"default": None, "failure_action": s.failure_action}
        if s.final_action:
            extra["final_action"] = s.final_action
        # Or the package's next update, and every new kernel, would bring the distribution's own size back.
        if s.reservation.origin == "fixed" and row["auto_reset"]:
            extra["auto_reset_crashkernel"] = "no"
        return [*out, *((k, v) for k, v in extra.items() if now.get(k) != v)]

    def _command_line(
        self, s: Settings, host: _Host, row: Mapping[str, Any]
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """Assignments for the capture kernel's command line, and the arguments that are appended."""
        d, now = self.data, read_variables(host.sysconfig)
        if any(now.get(k, "") is None for k in (_APPEND, _REMOVE, "KDUMP_COMMANDLINE", "KDUMP_KERNELVER")):
            raise InvalidInput("it computes the capture command line in shell: it cannot be changed safely")
        append, removed = now.get(_APPEND), now.get(_REMOVE)
        base = split(append) if append is not None else self._default("capture_default", host.arch, row)
        capture = ensure(without(base, s.capture_remove), s.capture_ensure)
        out = []
        if capture != (split(append) if append is not None else base):
            for argument in capture:
                check_safe(argument, where=d["sysconfig"])
            out.append((_APPEND, " ".join(capture)))
        off = removed.split() if removed is not None else list(d["remove_unset"])
        if removed is None and not host.installed:
            off = self._default("remove_default", host.arch, row)
        more = [name for name in host.inherited if name not in off]
        if more:
            out.append((_REMOVE, " ".join([*off, *(check_safe(name, where=d["sysconfig"]) for name in more)])))
        return out, capture

    def _without(self, host: _Host, s: Settings, row: Mapping[str, Any]) -> DesiredState:
        """No kdump: the service off, nothing on the command line, and nobody who puts it back with the next kernel."""
        d = self.data
        keep = host.there[0] and row["auto_reset"] and read(host.conf).get("auto_reset_crashkernel") != "no"
        wanted: list[tuple[str, str | None]] = [("auto_reset_crashkernel", "no")] if keep else []
        why = "no kdump is wanted on this host, and a new kernel would bring crashkernel= back"
        return DesiredState(
            supported=True,
            enabled=False,
            files=[DesiredFile(path=d["config"], settings=wanted, why=why)],
            boot_remove=list(s.boot_remove),
            boot_owned=[*d["boot_owned"], "fadump"],
            service=d["service"],
        )


def _refused(files: list[DesiredFile]) -> str:
    """Why the host side would not write a value, such as a collector with options that are not known to be harmless."""
    rules = hostside.load("kdo_txn_text")
    for file in files:
        for key, value in (*file.assignments, *file.settings):
            if value is not None and (why := rules.assignment(file.path, key, value)):
                return f"{file.path}: {why}: {value[:60]}"
    return ""
