# SPDX-License-Identifier: Apache-2.0
"""`kdo bundle` and `kdo pull` as a user meets them, on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from orchestrator.agent.reports import file_name
from tests.fleet.test_record_and_dry_run import picture

POLICY = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: ours}\nspec:\n  extends: [default]\n"
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)")


@pytest.fixture
def made(kdo, tmp_path):
    """Make and sign a bundle with a serial."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    (tmp_path / "allowed").write_text(f"ann@example.org {public}\n")
    (tmp_path / "policy.yaml").write_text(POLICY)

    def run(serial: int, *more: str):
        result = kdo("bundle", "create", "-p", "policy.yaml", "--serial", str(serial), "-o", "FLEET.bundle", *more)
        (tmp_path / "FLEET.bundle.sig").unlink(missing_ok=True)
        if result.returncode == 0:
            how = result.stdout.splitlines()[-1].removeprefix("sign it: ").replace("KEY", "key")  # as it says itself
            subprocess.run(how.split(), check=True, capture_output=True, cwd=tmp_path)
        return result

    return run


def pull(kdo, *more: str):
    return kdo("pull", "--from", "FLEET.bundle", "--allowed-signers", "allowed", "--state-dir", "state", *more)


def test_make_sign_show_and_verify(kdo, made, tmp_path):
    result = made(3, "--expires", "2199-12-31")
    assert result.returncode == 0 and "bundle 3 of policy ours, 1 file," in result.stdout
    first = (tmp_path / "FLEET.bundle").read_bytes()
    made(3, "--expires", "2199-12-31")
    assert (tmp_path / "FLEET.bundle").read_bytes() == first
    shown = kdo("bundle", "show", "FLEET.bundle")
    assert "counts until 2199-12-31" in shown.stdout and "policy/policy.yaml" in shown.stdout
    assert json.loads(kdo("bundle", "show", "FLEET.bundle", "--format", "json").stdout)["serial"] == 3
    assert "signed by ann@example.org" in kdo("bundle", "verify", "FLEET.bundle", "--allowed-signers", "allowed").stdout
    assert "was not looked at" in kdo("bundle", "verify", "FLEET.bundle").stdout
    (tmp_path / "FLEET.bundle").write_bytes(first + b" ")
    result = kdo("bundle", "verify", "FLEET.bundle", "--allowed-signers", "allowed")
    assert (
        result.returncode == 5
        and "FLEET.bundle: error: the file was changed after it was signed [P064]" in result.stderr
    )


def test_5_what_no_bundle_is_made_of(kdo, made, tmp_path):
    assert "is not a day" in made(1, "--expires", "soon").stderr
    assert made(0).returncode == 5 and made(1, "--waivers", "nowhere").returncode == 5
    (tmp_path / "policy.yaml").write_text(POLICY.replace("extends", "extend"))
    result = made(1)
    assert result.returncode == 5 and "policy.yaml:5:3" in result.stderr and not (tmp_path / "FLEET.bundle").exists()
    assert kdo("bundle", "show", "policy.yaml").returncode == 5
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert made(1, "--expires", "2020-01-01").returncode == 0
    assert "has expired" in kdo("bundle", "verify", "FLEET.bundle").stderr


def test_a_pull_judges_this_machine_and_writes_the_serial_only(kdo, made, tmp_path):
    made(3)
    (tmp_path / "in").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    roots = [p for p in ("/etc", "/boot", "/var/lib/dpkg", "/var/crash", "/usr/local/etc", "/var/lib/kdump-orchestrator",
                         str(home)) if os.path.isdir(p)]  # fmt: skip
    before = picture(*roots)
    result = kdo(
        "pull", "--from", "FLEET.bundle", "--allowed-signers", "allowed", "--state-dir", "state", "--host", "web1",
        "--report", "in", "--format", "json", env={"HOME": str(home)},
    )  # fmt: skip
    assert picture(*roots) == before
    report = json.loads(result.stdout)
    assert (tmp_path / "in" / file_name("web1")).is_file() and os.listdir(tmp_path / "state") == ["pull.json"]
    assert (report["bundle"]["serial"], report["bundle"]["signer"]) == (3, "ann@example.org")
    assert result.returncode == (0 if report["verdict"]["status"] == "pass" else 2) and report["outcome"] is None
    text = pull(kdo, "--host", "web1")
    assert text.stdout.startswith("bundle 3: policy ours, signed by ann@example.org\nweb1: plan ")


def test_5_an_older_one_and_one_without_signature(kdo, made, tmp_path):
    made(3)
    assert pull(kdo).returncode in (0, 2)
    made(2)
    result = pull(kdo, "--format", "json")
    assert result.returncode == 5 and "the bundle 2 is older than one that this host has seen" in result.stderr
    assert json.loads(result.stdout)["problems"][0]["why"].startswith("it has seen 3")
    (tmp_path / "FLEET.bundle.sig").unlink()
    assert pull(kdo).returncode == 5
    assert kdo("pull", "--from", "FLEET.bundle").returncode == 5
    assert "--reboot belongs to --apply" in pull(kdo, "--reboot").stderr
    assert pull(kdo, "--report", "nowhere").returncode == 5
    assert kdo("pull", "--from", "http://example.org/x", "--allowed-signers", "allowed").returncode == 5


def test_4_a_server_that_is_not_there(kdo, made):
    made(1)
    result = kdo(
        "pull", "--from", "https://127.0.0.1:9/FLEET.bundle", "--allowed-signers", "allowed", "--state-dir", "state"
    )
    assert result.returncode == 4 and "the server cannot be reached" in result.stderr


def test_a_report_that_is_refused_hides_nothing(kdo, made, tmp_path):
    made(1)
    there = tmp_path / "in"
    there.mkdir()
    code = pull(kdo).returncode
    (there / file_name("web1")).mkdir()  # a file cannot take its place
    result = pull(kdo, "--host", "web1", "--report", "in")
    assert result.returncode == code and "the report cannot be written" in result.stderr


def test_the_watch_judges_by_the_pulled_bundle(kdo, made, tmp_path):
    made(4)
    pull(kdo)
    (tmp_path / "in").mkdir()
    result = kdo("watch", "--once", "--pulled", "allowed", "--state-dir", "state", "--report", "in", "--host", "web1")
    assert result.returncode in (0, 2)
    bundle = json.loads((tmp_path / "in" / file_name("web1")).read_bytes())["bundle"]
    assert (bundle["serial"], bundle["signer"]) == (4, "ann@example.org")
    (tmp_path / "allowed").write_text("")
    assert kdo("watch", "--once", "--pulled", "allowed", "--state-dir", "state").returncode == 5
