# SPDX-License-Identifier: Apache-2.0
"""The units that come with the tool: what systemd says of them, and how they are installed."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess

import pytest

from orchestrator.agent.services import enabling, install, own_path, unit, units
from orchestrator.cli.main import cli
from orchestrator.errors import InvalidInput

NAMES = sorted(units())


def test_they_are_all_there():
    assert NAMES == ["kdo-enforce.service", "kdo-enforce.timer", "kdo-pull.service", "kdo-pull.timer", "kdo-watch.service",
                     "kdo-worker@.service"]  # fmt: skip
    for one in units().values():
        assert one.description and one.text("/x/kdo").startswith("# SPDX-License-Identifier: Apache-2.0\n")
        assert "@KDO@" not in one.text("/x/kdo") and ("@KDO@" in one.template) == one.name.endswith(".service")


def test_their_verbs_and_options_are_ours():
    for name, verb in (("kdo-watch.service", "watch"), ("kdo-pull.service", "pull")):
        (line,) = re.findall(r"^ExecStart=@KDO@ (.*)$", unit(name).template, re.MULTILINE)
        command = cli.get_command(None, verb)
        known = {option for p in command.params for option in p.opts}
        assert line.split()[0] == verb and {w for w in line.split() if w.startswith("--")} <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong(tmp_path):
    kdo = tmp_path / "kdo"
    kdo.write_text("#!/bin/sh\n")
    kdo.chmod(0o755)
    paths = install(NAMES, tmp_path, str(kdo))
    # man:… and http documentation is not looked at; a template is looked at as one of its instances.
    shown = [str(p).replace("@.", "@x.") for p in paths]
    for path, name in zip(paths, shown, strict=True):
        if str(path) != name:
            shutil.copy(path, name)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *shown], capture_output=True, text=True, check=False
    )
    ours = [line for line in result.stderr.splitlines() if "kdo" in line]
    assert result.returncode == 0 and ours == [], result.stderr


def test_install_writes_and_enables_nothing(tmp_path):
    paths = install(["kdo-pull.service", "kdo-pull.timer", "kdo-pull.timer"], tmp_path, "/opt/kdo/bin/kdo")
    folder = tmp_path / "etc/systemd/system"
    assert sorted(os.listdir(folder)) == ["kdo-pull.service", "kdo-pull.timer"] and len(paths) == 2
    text = (folder / "kdo-pull.service").read_text()
    assert "\nExecStart=/opt/kdo/bin/kdo pull $KDO_PULL_OPTIONS\n" in text
    assert stat.S_IMODE((folder / "kdo-pull.service").stat().st_mode) == 0o644


def test_nothing_is_written_where_one_is_unknown(tmp_path):
    with pytest.raises(InvalidInput) as e:
        install(["kdo-watch.service", "kdo-pul.timer"], tmp_path, "/usr/bin/kdo")
    assert "did you mean 'kdo-pull.timer'" in e.value.problems[0].fix and os.listdir(tmp_path) == []
    (tmp_path / "etc").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        install(["kdo-watch.service"], tmp_path, "/usr/bin/kdo")


@pytest.mark.parametrize(
    "path", ["kdo", "/usr/bin/my kdo", "/usr/bin/kdo\nExecStartPre=/bin/sh", "", "/x/%h/kdo", "/x$y"]
)
def test_a_path_that_does_not_belong_in_a_unit(path):
    with pytest.raises(InvalidInput):
        own_path(path)


def test_the_command_that_starts_them():
    assert (
        enabling(["kdo-pull.service", "kdo-pull.timer"])
        == "systemctl daemon-reload && systemctl enable --now kdo-pull.timer"
    )
    assert enabling(["kdo-pull.service"]) == "systemctl daemon-reload"
    assert enabling(["kdo-worker@.service"]).endswith("enable --now kdo-worker@QUEUE.service")
