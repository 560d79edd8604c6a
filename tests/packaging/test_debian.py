# SPDX-License-Identifier: Apache-2.0
"""The Debian package: the same bytes each time, no fault that lintian knows, and files where this system looks for them.

How it installs, runs and goes away on a real Debian 13 is tests/lab/test_debian_package.py.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from orchestrator import resources
from orchestrator.agent.services import units
from orchestrator.documents.base import encode
from orchestrator.fleet import doctor
from orchestrator.packaging.debian import EXTRAS, NAMES, build, depends
from tests.builders import debian
from tests.once import once
from tests.packaging.trees import ROOT, copy, make

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed here")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def deb(tmp_path_factory):
    (found,) = once(tmp_path_factory, "deb", lambda place: build(ROOT, place) and None).glob("*.deb")
    return found


@pytest.fixture(scope="module")
def root(deb, tmp_path_factory):
    """The package unpacked, without its scripts."""
    place = tmp_path_factory.mktemp("root")
    subprocess.run(["dpkg-deb", "-x", deb, place], check=True)
    return place


def field(deb, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def test_two_builds_are_identical(tmp_path):
    when = {"SOURCE_DATE_EPOCH": "1800000002"}
    (first,) = make("deb", copy(tmp_path / "a", 0o022, 1_000_000_000), tmp_path / "out/1", **when)
    elsewhere = copy(tmp_path / "some where/else", 0o077, 1_900_000_000)
    (second,) = make("deb", elsewhere, tmp_path / "out/2", 0o077, TZ="Pacific/Auckland", LANG="de_DE.UTF-8", **when)
    assert first.name == second.name == "kdump-orchestrator_0.1.0_all.deb"
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed here")
def test_lintian_has_nothing_to_say(deb):
    words = ["lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", deb]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not re.search(r"^[EW]: ", done.stdout, re.MULTILINE), done.stdout + done.stderr


def test_it_depends_on_what_the_project_needs(deb):
    ours = [Requirement(r) for r in PROJECT["dependencies"]]
    assert {r.name for r in ours} == set(NAMES)
    extras = {
        Requirement(r).name
        for name in ("png", "rehearse", "fleet", "web")
        for r in PROJECT["optional-dependencies"][name]
    }
    assert extras == set(EXTRAS)
    assert field(deb, "Depends") == ", ".join(depends(ROOT))
    assert "ansible-core (>= 2.19~)" in depends(ROOT) and "python3 (>= 3.11)" in depends(ROOT)


def test_everything_is_where_debian_looks_for_it(root):
    manual = sorted((root / "usr/share/man/man1").iterdir())
    assert len(manual) > 40 and b'.TH "KDO" "1"' in gzip.decompress((manual[0].parent / "kdo.1.gz").read_bytes())
    for path, word in (("bash-completion/completions/kdo", "complete -o nosort -F _kdo_completion kdo"),
                       ("zsh/vendor-completions/_kdo", "#compdef kdo"), ("fish/vendor_completions.d/kdo.fish", "complete")):  # fmt: skip
        assert word in (root / "usr/share" / path).read_text()
    found = {p.name: p.read_text() for p in (root / "usr/lib/systemd/system").iterdir()}
    assert found == {name: unit.text("/usr/bin/kdo") for name, unit in units().items() if name != "kdo-serve.service"}
    documents = root / "usr/share/doc/kdump-orchestrator"
    changelog = gzip.decompress((documents / "changelog.gz").read_bytes()).decode()
    assert changelog.startswith("kdump-orchestrator (0.1.0) ") and (documents / "docs/getting-started.md").is_file()
    assert not [p for p in root.rglob("*") if p.name == "__pycache__" or p.suffix == ".pyc"]


def test_every_file_has_its_licence(root):
    said = (root / "usr/share/doc/kdump-orchestrator/copyright").read_text()
    (stanza,) = (s for s in said.split("\n\n") if "License: GPL-3.0-or-later\nComment" in s)
    named = {w for w in stanza.split() if w.startswith("usr/share/")}
    gpl = set()
    for path in (root / "usr/share/kdump-orchestrator").rglob("*"):
        text = path.read_bytes()[:300] if path.is_file() else b""
        if b"SPDX-License-Identifier: GPL-3.0-or-later" in text:
            gpl.add(str(path.relative_to(root)))
    assert named == gpl and len(gpl) > 5


def test_it_runs_unpacked(root, tmp_path):
    """The command as it is, with this environment's packages instead of Debian's; also from a directory with names of ours."""
    (tmp_path / "orchestrator.py").write_text("raise SystemExit('the wrong one')\n")
    script = (root / "usr/bin/kdo").read_text()
    assert script.startswith("#!/usr/bin/python3\n")
    kdo = tmp_path / "kdo"
    kdo.write_text(script.replace('"/usr/share/', f'"{root}/usr/share/'))
    (tmp_path / "facts.json").write_bytes(encode(debian()))
    words = [sys.executable, "-B", kdo, "plan", "--facts", "facts.json", "--format", "json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["hosts"][0]["strategy"] == "custom_handler"


def test_what_to_do_is_said_in_debians_words(monkeypatch):
    """Where the code comes from the package, pip is no answer: Debian's Python does not let it in."""
    monkeypatch.setattr(resources, "from_debian", lambda: True)
    assert resources.how_to_install("png", "python3-pil") == "apt-get install python3-pil"
    assert "pip install 'kdump-orchestrator[web]' in an environment of its own" in resources.how_to_install("web")
    monkeypatch.setattr(doctor, "from_debian", lambda: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"ansible-runner": "0.0.0"}.get(name, "0.1"))
    found = {f.what: f for f in doctor.examine(lab=False)}
    assert found["ansible-runner"].ok and "does not say" in found["ansible-runner"].seen
    assert not found["pyudev"].ok and found["pyudev"].fix == "apt-get install python3-pyudev"
    assert found["ansible-core"].fix == "apt-get install ansible-core"


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_the_scripts_can_be_read_by_sh(deb, tmp_path, name):
    subprocess.run(["dpkg-deb", "-e", deb, tmp_path], check=True)
    subprocess.run(["sh", "-n", tmp_path / name], check=True)
    text = (tmp_path / name).read_text()
    assert not re.search(r"systemctl .* (enable|start|restart)\b", text)
    if name == "postinst":
        assert "try-restart kdo-watch.service" in text
    if name == "prerm":
        assert "kdo-watch.service" in text and "'kdo-worker@*.service'" in text and "kdo-pull.timer" in text
