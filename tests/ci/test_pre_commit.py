# SPDX-License-Identifier: Apache-2.0
"""The hooks, as pre-commit itself installs and runs them in somebody's repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.scene import CASES, ROOT, commit, git, repository

PROJECT = (
    "orchestrator",
    "policies",
    "playbooks",
    "schemas",
    "LICENSES",
    "LICENSE",
    "CHANGELOG.md",
    "docs",
    "README.md",
    "pyproject.toml",
    ".pre-commit-hooks.yaml",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """This checkout as a repository that hooks can come from, whether or not it is one."""
    folder = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    commit(folder, "all of it")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where pre-commit keeps the environment of the hooks; made once."""
    return tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def repo(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    repository(folder)
    return folder


def configure(repo: Path, project: Path, lines: str) -> None:
    revision = git(project, "rev-parse", "HEAD")
    text = f"repos:\n  - repo: {project}\n    rev: {revision}\n    hooks:\n{lines}"
    (repo / ".pre-commit-config.yaml").write_text(text)


def pre_commit(*words: str, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PRE_COMMIT_HOME": str(home), "GIT_CONFIG_GLOBAL": "/dev/null", "NO_COLOR": "1"}
    env |= {"PIP_NO_COMPILE": "1"}  # what is run compiles itself, which is a tenth of what is installed
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pre_commit", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def test_the_manifest_is_valid(home):
    done = pre_commit("validate-manifest", str(ROOT / ".pre-commit-hooks.yaml"), cwd=ROOT, home=home)
    assert done.returncode == 0, done.stdout


def test_a_commit_goes_through_the_hooks(project, repo, home):
    """A good change passes, a typing error and a broken case do not, and what is no policy is left alone."""
    configure(repo, project, "      - id: kdo-policy-lint\n      - id: kdo-policy-test\n")
    git(repo, "add", "-A")
    done = pre_commit("run", "--all-files", cwd=repo, home=home)
    assert done.returncode == 0 and len(re.findall(r"\.Passed", done.stdout)) == 2, done.stdout + done.stderr
    commit(repo, "hooks")
    (repo / "other.yaml").write_text("kind: Other\n")
    (repo / "policies/waivers").mkdir()
    (repo / "policies/waivers/w.yaml").write_text("kind: Other\n")
    git(repo, "add", "other.yaml")
    none = pre_commit("run", cwd=repo, home=home)
    assert none.returncode == 0 and none.stdout.count("(no files to check)Skipped") == 2, none.stdout
    policy = repo / "policies/fleet.yaml"
    good = policy.read_text()
    policy.write_text(good.replace("256M", "512M"))
    git(repo, "add", "policies/fleet.yaml")
    broken = pre_commit("run", cwd=repo, home=home)  # the case lies in a file that did not change
    assert broken.returncode == 1 and broken.stdout.count("Passed") == 1 and "256M" in broken.stdout, broken.stdout
    policy.write_text(good.replace("memory:", "memroy:"))
    git(repo, "add", "policies/fleet.yaml")
    typo = pre_commit("run", "kdo-policy-lint", cwd=repo, home=home)
    assert typo.returncode == 1 and "policies/fleet.yaml:9" in typo.stdout and "memroy" in typo.stdout, typo.stdout
    (repo / "more").mkdir()
    (repo / "more/cases.yaml").write_text(
        CASES.replace("../fleet.yaml", "default").replace("[room]", "[]").replace("256M", "128M")
    )
    configure(repo, project, "      - id: kdo-policy-test\n        args: [more/cases.yaml]\n        verbose: true\n")
    named = pre_commit("run", "--all-files", cwd=repo, home=home)
    assert named.returncode == 0 and "more/cases.yaml" in named.stdout, named.stdout
