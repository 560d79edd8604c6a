# SPDX-License-Identifier: Apache-2.0
"""examples/ci: valid by the public schemas, and every line that a runner would run is run here, in a repository with a change."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ci.scene import ROOT, commit, git, repository
from tests.installed import installed

EXAMPLES = ROOT / "examples/ci"
STRICT = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]  # as GitHub runs `shell: bash`, and GitLab a script
BROKEN = "      match: {memroy: {min: 2G}}\n"


@pytest.fixture(scope="module")
def tools(tmp_path_factory) -> Path:
    """An environment into which pip really installs kdo; what kdo needs is found where the tests have it."""

    return installed(tmp_path_factory) / "bin"


@pytest.fixture
def repo(tmp_path):
    """A repository with a change on top: more memory for the capture kernel. ``base`` is the commit before."""
    folder = tmp_path / "repo"
    folder.mkdir()
    base = repository(folder)
    for path in (folder / "policies").rglob("fleet.yaml"):
        path.write_text(path.read_text().replace("256M", "512M"))
    commit(folder, "policy: more room")
    return folder, base


class Runner:
    """Runs lines of a job in order, as a runner does: the first that fails ends the job."""

    def __init__(self, folder: Path, tools: Path, env: dict[str, str]) -> None:
        self.folder = folder
        (wheel,) = tools.parent.glob("*.whl")
        self.env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KDO_PACKAGE": str(wheel), **env}
        self.ran: list[str] = []

    def __call__(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.ran.append(script)
        return subprocess.run(
            [*STRICT, script], cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True
        )


def steps() -> list[dict]:
    return yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())["jobs"]["policy"]["steps"]


def github(
    folder: Path, base: str, tools: Path, tmp_path: Path
) -> tuple[Runner, dict[str, subprocess.CompletedProcess[str]]]:
    """Every step with ``run`` until one fails; the last one only where its ``if`` says so."""
    top = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    env = {k: v for k, v in top["env"].items() if k != "KDO_PACKAGE"}
    env |= {
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    runner, done = Runner(folder, tools, env), {}
    for step in steps():
        if "run" not in step:
            continue
        if "if" in step and "code=2" not in (tmp_path / "output").read_text():
            continue
        own = {k: v.replace("${{ github.event.pull_request.base.sha }}", base) for k, v in step.get("env", {}).items()}
        assert not any("${{" in v for v in own.values()) and "${{" not in step["run"]
        done[step["name"]] = result = runner(step["run"], **own)
        if result.returncode:
            break
    return runner, done


def test_github_every_line_runs(repo, tools, tmp_path):
    folder, base = repo
    runner, done = github(folder, base, tools, tmp_path)
    assert [r.returncode for r in done.values()] == [0, 0, 0, 0, 0, 1], [r.stderr for r in done.values()]
    assert (tools / "kdo").is_file()
    assert len(runner.ran) == sum("run" in s for s in steps())
    assert "hosts would change" in list(done.values())[-1].stdout
    summary = (tmp_path / "summary").read_text()
    assert all(host in summary for host in ("web1", "web2", "db1")) and "512M" in summary
    assert "<testsuite" in (folder / "junit.xml").read_text()
    (run,) = json.loads((folder / "kdo.sarif").read_text())["runs"]
    assert run["results"]


def test_github_without_an_effect_needs_no_label(tmp_path, tools):
    folder = tmp_path / "repo"
    folder.mkdir()
    base = repository(folder)
    policy = folder / "policies/fleet.yaml"
    policy.write_text("# a remark\n" + policy.read_text())
    commit(folder, "policy: a remark")
    _, done = github(folder, base, tools, tmp_path)
    assert [r.returncode for r in done.values()] == [0] * 5, [r.stderr for r in done.values()]


def test_github_stops_a_mistake(repo, tools, tmp_path):
    folder, base = repo
    policy = folder / "policies/fleet.yaml"
    policy.write_text(re.sub(r"      match: .*\n", BROKEN, policy.read_text()))
    _, done = github(folder, base, tools, tmp_path)
    assert list(done) == ["Install kdo", "Lint"] and done["Lint"].returncode == 5 and "memroy" in done["Lint"].stdout


def test_gitlab_every_line_runs(repo, tools, tmp_path):
    folder, base = repo
    file = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())
    env = {k: v for k, v in file["variables"].items() if k != "KDO_PACKAGE"}
    env |= {"CI_PROJECT_DIR": str(folder), "CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    codes = {}
    for name, job in file.items():
        if name in ("variables", ".kdo"):
            continue
        runner, done = Runner(folder, tools, env), None
        for line in [*file[job["extends"]]["before_script"], *job["script"]]:
            done = runner(line)
            if done.returncode:
                break
        assert len(runner.ran) == 1 + len(job["script"]), done.stderr
        codes[name] = done.returncode
        for line in job.get("after_script", []):
            assert runner(line).returncode == 0
        for path in job.get("artifacts", {}).get("paths", []):
            assert (folder / path).is_file()
    assert codes == {"policy-cases": 0, "policy-diff": 2, "policy-findings": 0}
    assert file["policy-diff"]["allow_failure"] == {"exit_codes": [codes["policy-diff"]]}
    assert git(folder, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize(("name", "words"), [
    ("github-actions.yml", ["vendor.github-workflows"]),
    ("gitlab-ci.yml", ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
])  # fmt: skip
def test_valid_by_the_public_schema(name, words, tmp_path):
    """The schemas come with check-jsonschema: nothing is fetched."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *words]
    done = subprocess.run([*command, EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = (EXAMPLES / name).read_text()
    (tmp_path / name).write_text(text.replace("runs-on:", "run-on:").replace("script:\n", "scirpt:\n"))
    assert subprocess.run([*command, tmp_path / name], capture_output=True).returncode == 1
