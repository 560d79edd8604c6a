# SPDX-License-Identifier: Apache-2.0
"""Gaps between kernel and tools that nothing reports until the dump is looked at."""

import msgspec
import pytest

from orchestrator.checks.base import Subject
from orchestrator.checks.tools import collector, gaps
from orchestrator.documents.facts import Facts, Kernel
from orchestrator.documents.platform import Platform
from orchestrator.knowledge.load import knowledge

WIDE = {"ARM64_VA_BITS": "52", "ARM64_4K_PAGES": "y"}


def subject(arch, config, version):
    packages = {} if version is None else {"makedumpfile": version}
    facts = Facts(host="a", kernel=Kernel(config=config), packages=packages)
    return Subject(facts, Platform(arch=arch), None, None, None, None, None)


@pytest.mark.parametrize(
    ("arch", "config", "version", "verdict"),
    [
        ("x86_64", WIDE, "1:1.7.6-1", "skip"),
        ("aarch64", WIDE, "1:1.7.6-1", "fail"),
        ("aarch64", WIDE, "1.7.9-4.el10", "fail"),
        ("aarch64", WIDE, "1:1.7.10-1", "pass"),
        ("aarch64", {**WIDE, "ARM64_VA_BITS": "48"}, "1:1.7.6-1", "pass"),
        ("aarch64", {"ARM64_VA_BITS": "52", "ARM64_64K_PAGES": "y"}, "1:1.7.6-1", "pass"),
        ("aarch64", {}, "1:1.7.6-1", "unknown"),
        ("aarch64", WIDE, None, "unknown"),
    ],
)
def test_a_gap_is_found_where_the_kernel_and_the_version_fit(arch, config, version, verdict):
    answer = collector(subject(arch, config, version))
    assert answer[0] == verdict
    if verdict == "fail":
        assert "an empty dump" in answer[1] and "CONFIG_ARM64_VA_BITS=48" in answer[2]


def test_every_gap_has_a_source_and_is_asked_for_by_the_probe():
    from orchestrator.resources import read_text
    from orchestrator.yamlmarks import load

    asked = load(read_text("policies/knowledge/probe.yaml"), "probe.yaml").data
    text = str(msgspec.json.encode(asked))
    for gap in gaps():
        knowledge().cite(gap["sources"])
        assert gap["package"] in text
        assert all(f'"{name}"' in text for name in gap["config"])
