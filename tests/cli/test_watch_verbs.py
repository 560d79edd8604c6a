# SPDX-License-Identifier: Apache-2.0
"""`kdo watch` and `kdo units` as a user meets them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CPU = Path("/sys/devices/system/cpu/cpu0/uevent")


def test_once_says_how_this_machine_stands(kdo, tmp_path):
    (tmp_path / "in").mkdir()
    result = kdo("watch", "--once", "--format", "json", "--host", "web1", "--report", "in", "--group", "db")
    (line,) = result.stdout.splitlines()
    data = json.loads(line)
    assert (data["kind"], data["host"]) == ("start", "web1") and data["after"]["status"]
    assert result.returncode == (0 if data["after"]["status"] == "pass" else 2)
    (report,) = (tmp_path / "in").iterdir()
    found = json.loads(report.read_bytes())
    assert found["how"] == "watch" and found["facts"]["inventory"]["groups"] == ["db"]
    text = kdo("watch", "--once", "--host", "web1")
    assert " web1: start | " in text.stdout and text.returncode == result.returncode


def test_5_what_cannot_be_watched_by(kdo, tmp_path):
    for arguments, said in (
        (["-p", "nowhere.yaml"], "cannot read the policy"),
        (["--pulled", "allowed"], "this host has taken no bundle yet"),
        (["--pulled", "allowed", "-p", "aws"], "--pulled excludes"),
        (["--host", "a b"], "cannot be the name of a host"),
        (["--group", "[x"], "cannot be the name of a host or group"),
        (["--report", "nowhere"], "there is no such directory"),
        (["--report", "http://example.org/x"], "this address is not asked"),
        (["--interval", "0"], "--interval"),
    ):
        result = kdo("watch", "--once", "--state-dir", str(tmp_path / "state"), *arguments)
        assert result.returncode == 5 and said in result.stderr, (arguments, result.stderr)


def _line(process, seconds=90.0):
    end, data = time.monotonic() + seconds, b""
    while not data.endswith(b"\n") and time.monotonic() < end:
        if select.select([process.stdout], [], [], 0.2)[0]:
            data += os.read(process.stdout.fileno(), 1)
    return json.loads(data)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stays_and_a_signal_ends_it_cleanly(tmp_path, number):
    command = [
        sys.executable,
        "-m",
        "orchestrator",
        "watch",
        "--format",
        "json",
        "--heartbeat",
        "1",
        "--debounce",
        "0",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        assert _line(process)["kind"] == "start"
        if os.geteuid() == 0 and os.access(CPU, os.W_OK):
            CPU.write_text("change")
        beat = _line(process)
        assert beat["kind"] == "heartbeat" and beat["looks"] >= 2
        process.send_signal(number)
        assert _line(process)["kind"] in ("end", "heartbeat")
        assert process.wait(90) == 0 and process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()


def test_units(kdo, tmp_path):
    assert "kdo-pull.timer" in kdo("units", "list").stdout
    shown = kdo("units", "show", "kdo-watch.service", "--exec", "/opt/kdo")
    assert shown.returncode == 0 and "ExecStart=/opt/kdo watch --format json" in shown.stdout
    result = kdo("units", "install", "kdo-pull.service", "kdo-pull.timer", "--root", "r", "--exec", "/opt/kdo")
    assert (
        result.stdout.splitlines()[-1] == "to start: systemctl daemon-reload && systemctl enable --now kdo-pull.timer"
    )
    assert (tmp_path / "r/etc/systemd/system/kdo-pull.timer").is_file()
    assert kdo("units", "show", "kdo-wacht.service").returncode == 5
    assert "did you mean" in kdo("units", "install", "kdo-wacht.service", "--root", "q").stderr
    assert not (tmp_path / "q").exists()
