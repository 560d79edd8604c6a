# SPDX-License-Identifier: Apache-2.0
"""The units that come with the tool: what systemd says of them, and how they are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.agent.services import enabling, install, own_path, unit, units
from orchestrator.cli.main import cli
from orchestrator.errors import InvalidInput

ROOT = Path(__file__).parent.parent.parent
NAMES = sorted(units())


def test_they_are_all_there():
    assert NAMES == ["kdo-enforce.service", "kdo-enforce.timer", "kdo-pull.service", "kdo-pull.timer", "kdo-serve.service", "kdo-watch.service",
                     "kdo-worker@.service"]  # fmt: skip
    for one in units().values():
        assert one.description and one.text("/x/kdo").startswith("# SPDX-License-Identifier: Apache-2.0\n")
        assert "@KDO@" not in one.text("/x/kdo") and ("@KDO@" in one.template) == one.name.endswith(".service")


def test_their_verbs_and_options_are_ours():
    for name, verb in (("kdo-watch.service", "watch"), ("kdo-pull.service", "pull"), ("kdo-serve.service", "serve")):
        (line,) = re.findall(r"^ExecStart=@KDO@ (.*)$", unit(name).template, re.MULTILINE)
        command = cli.get_command(None, verb)
        known = {option for p in command.params for option in p.opts}
        assert line.split()[0] == verb and {w for w in line.split() if w.startswith("--")} <= known


def test_no_unit_sees_other_mounts_or_devices_than_the_host():
    """The probe reads mountinfo: a read-only view of its own would be taken for a dump target that cannot be written."""
    for one in units().values():
        if one.name == "kdo-serve.service":  # it never looks at the host that it runs on
            continue
        options = {line.partition("=")[0] for line in one.template.splitlines() if not line.startswith("#")}
        own_view = {
            o for o in options if o.startswith(("Protect", "Private", "ReadOnly", "Inaccessible", "Bind", "Device"))
        }
        assert not own_view, (one.name, own_view)
        assert one.name == "kdo-watch.service" or "UMask" not in options  # files of packages are for everybody


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


PROBE = """
import msgspec, sys
from orchestrator.fleet.collect import from_here
facts = from_here(["/var/crash"], "x")
targets = [msgspec.structs.replace(t, free=None) for t in facts.targets]
sys.stdout.buffer.write(msgspec.json.encode(msgspec.structs.replace(facts, targets=targets)))
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_the_watch_sees_the_same_with_the_capabilities_of_its_unit():
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit("kdo-watch.service").template, re.MULTILINE)
    kept = ",".join(["-all", *(f"+{c.removeprefix('CAP_').lower()}" for c in line.split())])
    command = [sys.executable, "-c", PROBE]
    limited = ["setpriv", "--bounding-set", kept, "--inh-caps", kept, "--no-new-privs", *command]
    full, less = (subprocess.run(c, capture_output=True, check=True, cwd=ROOT).stdout for c in (command, limited))
    assert json.loads(less) == json.loads(full)


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
