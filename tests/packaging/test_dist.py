# SPDX-License-Identifier: Apache-2.0
"""Wheel and sdist: the same tree gives the same bytes, wherever, whenever and with whatever umask it is built."""

from __future__ import annotations

import email
import subprocess
import tarfile
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.errors import InvalidInput
from orchestrator.packaging.tree import DEFAULT, moment
from tests.packaging.trees import ROOT, copy, make


def digests(paths: list[Path]) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in paths}


def test_two_builds_are_identical_and_so_is_one_from_the_sdist(tmp_path):
    when = {"SOURCE_DATE_EPOCH": "1800000002"}  # an even one: zip knows no others
    first = make("dist", copy(tmp_path / "a", 0o022, 1_000_000_000), tmp_path / "out/1", **when)
    elsewhere = copy(tmp_path / "some where/else", 0o077, 1_700_000_000)
    second = make("dist", elsewhere, tmp_path / "out/2", 0o077, TZ="Pacific/Auckland", LC_ALL="C", **when)
    assert digests(first) == digests(second)
    wheel, sdist = sorted(first, key=lambda p: p.suffix != ".whl")
    assert {p.stat().st_mode & 0o777 for p in second} == {0o644}

    with tarfile.open(sdist) as archive:
        inside = archive.getmembers()
        assert {i.mtime for i in inside} == {1800000002} and {(i.uid, i.uname) for i in inside} == {(0, "")}
        archive.extractall(tmp_path / "unpacked", filter="data")
    (tree,) = (tmp_path / "unpacked").iterdir()
    # Nobody says when: the sdist does, by the times of its files.
    assert digests(make("dist", tree, tmp_path / "out/3")) == digests(first)

    names = zipfile.ZipFile(wheel).namelist()
    carried = [p for d in ("policies", "playbooks", "schemas") for p in (ROOT / d).rglob("*") if p.is_file()]
    carried = [p for p in carried if "__pycache__" not in p.parts]
    assert {f"orchestrator/_data/{p.relative_to(ROOT)}" for p in carried} <= set(names)
    (metadata,) = (n for n in names if n.endswith("/METADATA"))
    said = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    assert said["License-Expression"] == "Apache-2.0 AND GPL-3.0-or-later"
    assert set(said.get_all("Provides-Extra")) == {"dev", "docs", "fleet", "png", "rehearse", "web"}
    for licence in said.get_all("License-File"):
        assert f"{metadata.rpartition('/')[0]}/licenses/{licence}" in names


def test_the_moment(tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert moment(tmp_path) == DEFAULT
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert moment(tmp_path) == DEFAULT  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True,
                   env={"PATH": "/usr/bin:/bin", "GIT_COMMITTER_DATE": "1234567890 +0200"})  # fmt: skip
    assert moment(tmp_path) == 1234567890
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "99")
    assert moment(tmp_path) == 99
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(time.strftime("%c")))
    with pytest.raises(InvalidInput):
        moment(tmp_path)
