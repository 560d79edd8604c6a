# SPDX-License-Identifier: Apache-2.0
"""`kdo crash-test`: what is refused before any host is asked."""

import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["web1"], "a crash test needs an inventory"),
        (["web1", "-i", "web1,", "--consent", "web2"], "the consent is for another host"),
        (["web1", "-i", "no-such-inventory"], "there is no inventory"),
        (["web1", "-i", "web2,"], "no host matches"),
        (["web1", "-i", "web1,", "--timeout", "5"], "5 is not in the range"),
        (["-i", "web1,"], "Missing argument 'HOST'"),
        (["web1", "-i", "web1,", "-y"], "No such option"),
    ],
)
def test_a_mistake_crashes_nothing(kdo, arguments, said):
    result = kdo("crash-test", *arguments)
    assert result.returncode == 5, (result.stdout, result.stderr)
    assert said in result.stderr


def test_a_local_connection_cannot_crash_this_machine(kdo, tmp_path):
    """Whatever this machine is like: something is in the way, and it is still there afterwards."""
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(f"web1 ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    result = kdo("crash-test", "web1", "-i", str(inventory), "--check")
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert "web1: error: " in result.stderr
