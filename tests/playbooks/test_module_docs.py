# SPDX-License-Identifier: Apache-2.0
"""ansible-doc knows every module and plugin, says what their code says, and the pages are not sent to hosts."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.fleet.payload import sources
from tests.playbooks.hosts import PLAYBOOKS, play

MODULES = sorted(p.stem for p in (PLAYBOOKS / "library").glob("*.py"))


def ansible_doc(*words: str, cwd: Path, **env: str) -> dict:
    program = Path(sys.executable).with_name("ansible-doc")
    own = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")} | {"HOME": str(cwd), **env}
    done = subprocess.run([program, "--json", *words], cwd=cwd, env=own, capture_output=True, text=True)
    assert done.returncode == 0 and "ERROR" not in done.stderr, done.stdout + done.stderr
    return json.loads(done.stdout)


def argument_spec(name: str) -> dict[str, dict]:
    """The literal that the module hands to AnsibleModule."""
    for node in ast.walk(ast.parse((PLAYBOOKS / "library" / f"{name}.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "argument_spec":
            return ast.literal_eval(node.value)
    raise AssertionError(name)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return ansible_doc("-t", "module", "-M", str(PLAYBOOKS / "library"), *MODULES, cwd=tmp_path_factory.mktemp("doc"))


@pytest.mark.parametrize("name", MODULES)
def test_the_options_are_those_of_the_code(pages, name):
    documented, real = pages[name]["doc"]["options"], argument_spec(name)
    assert set(documented) == set(real)
    for option, spec in real.items():
        said = documented[option]
        for key, absent in (
            ("type", "str"),
            ("required", False),
            ("default", None),
            ("choices", None),
            ("elements", None),
        ):
            assert said.get(key, absent) == spec.get(key, absent), (option, key)
        assert said["description"]


@pytest.mark.parametrize("name", MODULES)
def test_modes_examples_and_results_are_there(pages, name):
    page = pages[name]
    assert page["doc"]["attributes"]["check_mode"]["support"] == "full"
    assert page["doc"]["attributes"]["diff_mode"]["support"] in ("full", "partial", "none")
    assert page["return"] and all(entry["description"] and entry["type"] for entry in page["return"].values())
    tasks = yaml.safe_load(page["examples"])
    assert tasks and all(name in task for task in tasks)
    for task in tasks:
        assert set(task[name] or {}) <= set(argument_spec(name))


def test_the_results_are_those_of_the_code(pages):
    """What run() and rollback() start their answers with is on the page."""
    text = (PLAYBOOKS / "module_utils/kdo_txn.py").read_text()
    for name, function in (("kdo_apply", "run"), ("kdo_rollback", "rollback")):
        body = text.partition(f"\ndef {function}(")[2]
        keys = set(re.findall(r'"(\w+)":', body[: body.index("\n    }")])) - {"changed"}
        assert keys <= set(pages[name]["return"]), name


def test_the_lookup_is_documented(tmp_path):
    page = ansible_doc(
        "-t", "lookup", "kdo_change", cwd=tmp_path, ANSIBLE_LOOKUP_PLUGINS=str(PLAYBOOKS / "lookup_plugins")
    )
    assert page["kdo_change"]["doc"]["options"]["_terms"]["required"] and page["kdo_change"]["examples"]


def test_pages_stay_on_the_controller(tmp_path):
    """With ANSIBLE_KEEP_REMOTE_FILES what was sent stays: it holds the module's code, and nothing of its page."""
    sent = tmp_path / "sent"
    sent.mkdir()
    done = play(PLAYBOOKS / "detect.yml", "-i", "web1,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}",
                "-e", f"ansible_remote_tmp={sent}", cwd=tmp_path, ANSIBLE_KEEP_REMOTE_FILES="1", ANSIBLE_REMOTE_TMP=str(sent))  # fmt: skip
    assert done.code == 0, done.text
    (wrapper,) = sent.rglob("AnsiballZ_kdo_facts.py")
    subprocess.run([sys.executable, str(wrapper), "explode"], cwd=tmp_path, check=True, capture_output=True)
    unpacked = [p for p in sent.rglob("*") if p.is_file() and "debug_dir" in str(p)]
    assert any(p.name == "kdo_probe.py" for p in unpacked) and any(p.name == "kdo_facts.py" for p in unpacked)
    assert not [p for p in unpacked if p.suffix in (".yml", ".yaml")]
    assert not [p for p in unpacked if p.name.startswith("kdo_") and "short_description" in p.read_text()]


def test_the_fast_lane_sends_no_pages():
    assert all("short_description" not in text for _, text in sources())
