# SPDX-License-Identifier: Apache-2.0
"""The built wheel in an empty environment, run from another directory: it has its data, and misses no extra until one is wanted."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from orchestrator.collection import build
from orchestrator.documents.base import encode
from tests.builders import debian
from tests.packaging.trees import ROOT, bare

HELP = """
import click
from orchestrator.cli.main import cli

def walk(command, words):
    try:
        cli.main([*words, "--help"], prog_name="kdo", standalone_mode=False)
    except click.exceptions.Exit as e:
        assert e.exit_code == 0, words
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            walk(command.get_command(context, name), [*words, name])

walk(cli, [])
"""
#: What needs an extra, and how it is asked for. drgn (rehearse) is a second reader: without it there is one reader less.
NEEDS = {
    "png": [("policy", "matrix", "-o", "matrix.png")],
    "fleet": [
        ("detect", "-i", "web1,", "--lane", "fast"),
        ("sweep", "-i", "web1,", "--lane", "fast"),
        ("status", "--store", "postgresql://127.0.0.1:1/kdo"),
        ("worker", "--store", "postgresql://127.0.0.1:1/kdo"),
        ("apply", "-i", "web1,", "--engine", "queue", "--store", "postgresql://127.0.0.1:1/kdo", "-y"),
    ],
    "web": [("serve",)],
}


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory) -> Path:
    return bare(tmp_path_factory) / "env/bin"


def test_installed_from_a_wheel(bin_dir: Path, tmp_path: Path) -> None:
    kdo = bin_dir / "kdo"
    (tmp_path / "facts.json").write_bytes(encode(debian()))
    assert run(kdo, "policy", "lint", cwd=tmp_path).returncode == 0
    plan = run(kdo, "plan", "--facts", "facts.json", "--format", "json", cwd=tmp_path)
    assert plan.returncode == 2 and json.loads(plan.stdout)["hosts"][0]["strategy"] == "custom_handler"
    assert "policies/default.yaml:" in plan.stdout and str(bin_dir.parent) not in plan.stdout
    run(kdo, "plan", "--facts", "facts.json", "-o", "plan.json", cwd=tmp_path)
    assert run(kdo, "report", "plan.json", "--format", "html", "-o", "page.html", cwd=tmp_path).returncode == 2
    assert "web1" in (tmp_path / "page.html").read_text()
    live = run(kdo, "detect", "--format", "json", cwd=tmp_path)
    assert live.returncode == 0, live.stderr
    assert json.loads(live.stdout)["hosts"][0]["host"] == "localhost"
    assert run(kdo, "doctor", cwd=tmp_path).returncode == 0
    listing = "import orchestrator.resources as r, os; print(*os.listdir(r.data_root()))"
    inside = set(run(bin_dir / "python", "-c", listing, cwd=tmp_path).stdout.split())
    assert {"policies", "playbooks", "schemas"} <= inside


def test_every_verb_says_what_it_does_without_any_extra(bin_dir: Path, tmp_path: Path) -> None:
    said = run(bin_dir / "python", "-I", "-c", HELP, cwd=tmp_path)
    assert said.returncode == 0 and said.stderr == "", said.stderr
    assert said.stdout.count("Usage: kdo ") > 40 and "Usage: kdo serve " in said.stdout


@pytest.mark.parametrize("extra", NEEDS)
def test_a_verb_that_needs_an_extra_says_which(extra: str, bin_dir: Path, tmp_path: Path) -> None:
    for words in NEEDS[extra]:
        done = run(bin_dir / "kdo", *words, cwd=tmp_path)
        assert done.returncode == 5 and f"pip install 'kdump-orchestrator[{extra}]'" in done.stderr, (words, done)
        assert "Traceback" not in done.stderr and done.stdout == "" and not list(tmp_path.iterdir()), words


def test_no_extra_is_forgotten(bin_dir: Path, tmp_path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == {*NEEDS, "rehearse", "docs", "dev"}
    asked = "import orchestrator.proof.rehearse; from orchestrator.proof import readers; print(readers.available())"
    assert run(bin_dir / "python", "-I", "-c", asked, cwd=tmp_path).stdout == "False\n"


def test_the_collection_is_the_same_from_a_wheel(bin_dir: Path, tmp_path: Path) -> None:
    made = run(bin_dir / "python", "-I", "-m", "orchestrator.collection", tmp_path / "dist", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    ours = build(tmp_path / "ours")
    assert (tmp_path / "dist" / ours.name).read_bytes() == ours.read_bytes()
