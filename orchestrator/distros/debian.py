# SPDX-License-Identifier: Apache-2.0
"""Debian and Ubuntu: kdump-tools with GRUB. The facts that it works with are in policies/knowledge/families.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.bootloaders.base import NextBoot
from orchestrator.cmdline import check_safe, ensure, key_of, split, without
from orchestrator.distros import login
from orchestrator.distros.base import Capture, Module, text_of, variables
from orchestrator.documents.decision import Decision, DumpTarget, Settings
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredFile, DesiredState
from orchestrator.documents.platform import Platform
from orchestrator.errors import InvalidInput
from orchestrator.versions import compare

_COMMAND_LINE = re.compile(r'--command-line="((?:[^"\\]|\\.)*)"')
_COMPRESSION = {"zlib": "-c", "lzo": "-l", "snappy": "-p", "zstd": "-z"}
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,120}\Z")


class Debian(Module):
    """The family module."""

    def _config(self, facts: Facts) -> Mapping[str, str | None]:
        return variables(text_of(facts.files.get(self.data["config"])))

    def _default_append(self, arch: str) -> list[str]:
        table = self.data["capture_default"]
        return list(table.get(arch, table["*"]))

    def capture(self, facts: Facts, platform: Platform, boot: NextBoot) -> Capture:
        """The present state: configuration, image, and what is loaded."""
        config = self._config(facts)
        append = config.get("KDUMP_CMDLINE_APPEND")
        # kdump-config appends to the command line of the running kernel, whatever stands there.
        configured = [*boot.arguments, *(split(append) if append else self._default_append(platform.arch))]
        target = config.get("KDUMP_COREDIR") or self.data["target"]
        loaded: list[str] | None = None
        recorded = text_of(facts.files.get(f"{target.rstrip('/')}/kexec_cmd"))
        if facts.kexec.crash_loaded and (m := _COMMAND_LINE.search(recorded)):
            loaded = split(m[1].replace('\\"', '"'))
        release = boot.release or facts.kernel.release
        image = f"{self.data['image']}-{release}"
        present, stale = self._image(facts, release, image)
        return Capture(loaded, configured, target, image, present, stale, release, _server(config))

    def _image(self, facts: Facts, release: str, image: str) -> tuple[bool, str]:
        file = facts.files.get(image)
        if file is None or file.error:
            return False, ""
        for path in (
            f"/lib/modules/{release}/modules.dep",
            "/etc/initramfs-tools/modules",
            "/etc/initramfs-tools/initramfs.conf",
        ):
            source = facts.files.get(path)
            if source is not None and source.mtime > file.mtime:
                return True, f"{path} is newer than the capture image"
        stamp = facts.files.get(self.data["sysctl_stamp"] + release)
        sysctl = facts.files.get(self.data["sysctl_source"])
        if sysctl is not None and sysctl.sha256 and (stamp is None or stamp.sha256 != sysctl.sha256):
            return True, f"kdump-config builds it anew at the next load: {self.data['sysctl_source']} has changed since"
        return True, ""

    def _unsupported(self, facts: Facts, platform: Platform) -> str:
        release = self.data["releases"].get(platform.distribution)
        if release is None:
            return f"distribution {platform.distribution or 'unknown'} is not supported yet (Debian and Ubuntu are)"
        if platform.distribution_version and compare(platform.distribution_version, release["min"]) < 0:
            return f"{platform.distribution} {platform.distribution_version} is older than {release['min']}"
        if facts.distribution.read_only_root:
            return "the root filesystem is read-only"
        return ""

    def desired(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> DesiredState:
        """The wanted state in Debian's words; like hosts with one decision share it."""
        wanted = {*decision.settings.capture_ensure, *self._default_append(platform.arch)}
        last = {key_of(a): a for a in boot.arguments}
        inherited = tuple([a for a in last.values() if a in wanted])
        host = (
            text_of(facts.files.get(self.data["config"])),
            tuple([p in (facts.packages or {}) for p in self.data["packages"]]),
            (platform.arch, platform.distribution, platform.distribution_version, platform.boot_stack),
            facts.distribution.read_only_root,
            inherited,
            tuple(login.needed(decision.settings.target, facts).items()),
            login.note(decision.settings.target, facts),
        )
        return self._shared(decision, host, lambda: self._make(decision, facts, platform, inherited))

    def _make(self, decision: Decision, facts: Facts, platform: Platform, inherited: tuple[str, ...]) -> DesiredState:
        """``inherited``: wanted arguments that the capture kernel gets from the first kernel's command line anyway."""
        if why := self._unsupported(facts, platform):
            return DesiredState(supported=False, why_not=why)
        s, d = decision.settings, self.data
        if not s.enabled:
            return self._without(facts, s)
        config = self._config(facts)
        if any(v is None for k, v in config.items() if k.startswith("KDUMP_CMDLINE")):
            why = f"{d['config']} computes the capture command line in shell: it cannot be changed safely"
            return DesiredState(supported=False, why_not=why)
        append = config.get("KDUMP_CMDLINE_APPEND")
        base = split(append) if append else self._default_append(platform.arch)
        capture = ensure(without(base, s.capture_remove), [*s.capture_ensure, *d["capture_required"]])
        try:
            for argument in capture:
                check_safe(argument, where=d["config"])
        except InvalidInput as e:  # of this host alone: the fleet goes on
            return DesiredState(supported=False, why_not=f"{d['config']}: {e.problems[0].what}")
        assignments = [("USE_KDUMP", "1"), ("KDUMP_CMDLINE_APPEND", " ".join(a for a in capture if a not in inherited))]
        assignments += self._target(s.target, config)
        if s.keep_dumps is not None:
            assignments.append(("KDUMP_NUM_DUMPS", str(s.keep_dumps)))
        if s.failure_action:
            assignments.append(("KDUMP_FAIL_CMD", f"{s.failure_action} -f"))
        if s.dump_level is not None or s.dump_compression:
            flag = _COMPRESSION[s.dump_compression or "zlib"]
            assignments.append(("MAKEDUMP_ARGS", f"{flag} -d {31 if s.dump_level is None else s.dump_level}"))
        wanted = [(k, v) for k, v in assignments if config.get(k) != v]
        missing = d["package"] not in (facts.packages or {})
        files = [
            DesiredFile(
                path=d["config"],
                assignments=wanted,
                package=d["package"] if missing else "",
                why="the capture kernel gets the arguments of the strategy",
            ),
        ]
        return self._state(
            s,
            files,
            packages=[p for p in d["packages"] if p not in (facts.packages or {})],
            capture_arguments=capture,
            login=login.needed(s.target, facts),
            notes=[text for text in (login.note(s.target, facts),) if text],
        )

    def _target(self, target: DumpTarget, config: Mapping[str, str | None]) -> list[tuple[str, str]]:
        """Assignments for the dump target. The kinds exclude each other; kdump-config would send to every server it is told."""
        if not target.kind:
            return []
        out = []
        path = target.path or ("" if target.kind == "nfs" else config.get("KDUMP_COREDIR") or self.data["target"])
        if target.kind != "nfs" and (config.get("KDUMP_COREDIR") or self.data["target"]) != path:
            out.append(("KDUMP_COREDIR", path))
        nfs = target.place.rstrip("/") + path if target.kind == "nfs" else ""
        ssh = target.place if target.kind == "ssh" else ""
        out += [(key, value) for key, value in (("NFS", nfs), ("SSH", ssh)) if (config.get(key) or "") != value]
        if target.key:
            out.append(("SSH_KEY", target.key))
        return out

    def _without(self, facts: Facts, s: Settings) -> DesiredState:
        """No kdump: the service off, nothing on the command line. What is not installed needs nothing."""
        d = self.data
        there = d["config"] in facts.files
        wanted = [("USE_KDUMP", "0")] if there and self._config(facts).get("USE_KDUMP") != "0" else []
        why = "no kdump is wanted on this host"
        return DesiredState(
            supported=True,
            enabled=False,
            files=[DesiredFile(path=d["config"], assignments=wanted, why=why)],
            boot_remove=list(s.boot_remove),
            boot_owned=[*d["boot_owned"], "fadump"],
            service=d["service"],
        )


def _server(config: Mapping[str, str | None]) -> DumpTarget:
    """The server of the host's own configuration; kdump-config sends to SSH before it looks at NFS."""
    if config.get("SSH"):
        return DumpTarget(kind="ssh", place=config["SSH"] or "", key=config.get("SSH_KEY") or "")
    return DumpTarget(kind="nfs", place=config["NFS"] or "") if config.get("NFS") else DumpTarget()


def valid_release(release: str) -> bool:
    """Whether a kernel release may be handed to the host side as an argument."""
    return bool(_RELEASE.match(release))
