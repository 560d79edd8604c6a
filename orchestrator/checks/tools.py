# SPDX-License-Identifier: Apache-2.0
"""Can the tools do their work for this kernel? Gaps that only show when the dump is looked at (knowledge/tools.yaml)."""

from __future__ import annotations

from functools import cache
from typing import Any

from orchestrator.checks.base import Answer, Subject, check
from orchestrator.resources import read_text
from orchestrator.versions import Version
from orchestrator.yamlmarks import load as load_yaml

FILE = "policies/knowledge/tools.yaml"


@cache
def gaps() -> list[dict[str, Any]]:
    """The rows of the data file."""
    found: list[dict[str, Any]] = load_yaml(read_text(FILE), FILE).data["gaps"]
    return found


def _upstream(version: str) -> str:
    """A package's version without epoch and the distribution's part."""
    return version.rpartition(":")[2].partition("-")[0].partition("+")[0]


@check("collector", "the tools can read this kernel's memory")
def collector(s: Subject) -> Answer:
    """Kernel options that a tool of the installed version cannot cope with, although it loads and reports success."""
    applies = [gap for gap in gaps() if gap["match"]["arch"] == s.platform.arch]
    if not applies:
        return "skip", f"no such gap is known on {s.platform.arch}"
    config, packages = s.facts.kernel.config, s.facts.packages or {}
    for gap in applies:
        wanted = gap["config"]
        if not config:
            return "unknown", "the configuration of the kernel could not be read"
        if any(config.get(name) != value for name, value in wanted.items()):
            continue
        version = packages.get(gap["package"])
        if version is None:
            return "unknown", f"the version of {gap['package']} is not known; {gap['what']}", gap["fix"]
        if Version(_upstream(version)) <= Version(gap["up_to"]):
            said = ", ".join(f"{name}={value}" for name, value in wanted.items())
            return "fail", f"{gap['package']} {version}, kernel with {said}: {gap['what']}", gap["fix"]
    return "pass", "no known gap between kernel and tools"
