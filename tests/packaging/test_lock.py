# SPDX-License-Identifier: Apache-2.0
"""The locked development set says the same as pyproject.toml, and lacks nothing."""

from __future__ import annotations

import importlib.metadata
import tomllib

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from orchestrator.errors import KdoError
from orchestrator.packaging.lock import ARA, FILE, canonical, constraints, read
from tests.packaging.trees import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TEXT = (ROOT / "tests" / FILE).read_text()
PINS = read(TEXT)
WANTED = [Requirement(r) for r in PROJECT["dependencies"] + EXTRAS["dev"]]
PYTHONS = ("3.11.9", "3.12.3", "3.13.5")


def on(marker: str, python: str) -> bool:
    """Whether a package is wanted by that Python on Linux."""
    where = {"python_version": python[:4], "python_full_version": python, "sys_platform": "linux", "os_name": "posix",
             "platform_system": "Linux", "platform_python_implementation": "CPython", "implementation_name": "cpython"}  # fmt: skip
    return not marker or Marker(marker).evaluate({**where, "extra": ""})


@pytest.mark.parametrize("wanted", WANTED, ids=lambda r: r.name)
def test_what_the_project_asks_for_is_in_it(wanted):
    pin = PINS[canonical(wanted.name)]
    assert wanted.specifier.contains(pin.version), f"run: make lock ({pin.version} is not {wanted.specifier})"
    assert all(on(pin.marker, python) for python in PYTHONS) and pin.files


def test_the_development_set_has_every_extra():
    ours = {(canonical(r.name), str(r.specifier), tuple(sorted(r.extras))) for r in map(Requirement, EXTRAS["dev"])}
    for name in set(EXTRAS) - {"dev"}:
        found = {(canonical(r.name), str(r.specifier), tuple(sorted(r.extras))) for r in map(Requirement, EXTRAS[name])}
        assert found <= ours, name


def test_nothing_that_is_needed_is_missing():
    """Of what this Python has installed from the lock, every requirement is in the lock, and of a version that will do."""
    lacking = []
    for pin in PINS.values():
        if not on(pin.marker, PYTHONS[0]):
            continue
        try:
            distribution = importlib.metadata.distribution(pin.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # another Python than the one of the marker
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            found = PINS.get(canonical(requirement.name))
            if found is None or not requirement.specifier.contains(found.version, prereleases=True):
                lacking.append(f"{pin.name} needs {requirement}")
    assert not lacking


def test_what_is_tried_beside_us_is_locked_too():
    """ARA's set: whole by itself, hashes for everything, and of what both sets have the same version."""
    text = (ROOT / "tests" / ARA).read_text()
    pins = read(text)
    assert "ara" in pins and "django" in pins and all(p.files for p in pins.values()) and "://" not in text
    assert [n for n in pins if n in PINS and pins[n].version != PINS[n].version] == []


def test_it_names_no_index_and_every_file_by_its_hash():
    assert "://" not in TEXT and "--index" not in TEXT and "find-links" not in TEXT
    assert all(pin.files for pin in PINS.values()) and len(PINS) > 90
    assert TEXT.count("--hash=sha256:") == sum(len(p.files) for p in PINS.values())


def test_versions_alone_and_lines_that_are_not_ours():
    lines = constraints(PINS).splitlines()
    assert f"click=={PINS['click'].version}" in lines and all(Requirement(line) for line in lines)
    for text in ("click>=8\n", "click==8 \\\n    --hash=md5:00\n", "--index-url x\n", "a==1 \\\nA==2 \\\n"):
        with pytest.raises(KdoError):
            read(text)
