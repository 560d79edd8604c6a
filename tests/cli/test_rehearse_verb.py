# SPDX-License-Identifier: Apache-2.0
"""`kdo rehearse`: every mistake is found before a guest is made."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "vax"], "no guest can be made for the architecture 'vax'"),
        (["--arch", "s390x"], "Debian's kernels for s390x have no CONFIG_CRASH_DUMP"),
        (["--arch", "riscv64"], "no kdump-tools for riscv64"),
        (["--arch", "x86_64", "--distro", "rhel9"], "no guest can be made of 'rhel9'"),
        (["--arch", "aarch64", "--boot", "grub"], "no aarch64 guest boots by 'grub' here"),
        (["--arch", "x86_64", "--crash", "sysreq"], "did you mean 'sysrq'?"),
        (["--arch", "aarch64", "--crash", "nmi"], "there is no crash 'nmi' on aarch64"),
        (["--arch", "x86_64", "--strategy", "kdump_rest"], "did you mean 'kdump_reset'?"),
        (["--arch", "x86_64", "--experiment", "custom_handler=off"], "nobody can set it"),
        (["--arch", "x86_64", "--crash", "sysrq-cpu", "--cpu", "7"], "the guest has no CPU 7"),
        (["--arch", "x86_64", "web1"], "--arch and a host exclude each other"),
        (["--distro", "debian12"], "--distro and --boot need --arch"),
        (["--arch", "x86_64", "-p", "no-such-policy"], "no-such-policy"),
    ],
)
def test_a_mistake_is_found_before_anything_is_made(kdo, arguments, said, tmp_path):
    result = kdo("rehearse", *arguments, env={"XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert result.returncode == 5, result.stderr
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_size_that_is_none(kdo):
    result = kdo("rehearse", "--arch", "x86_64", "--memory", "lots")
    assert result.returncode == 5 and "no size of a guest's memory" in result.stderr


def test_one_host_of_many_has_to_be_named(kdo, facts):
    result = kdo("rehearse", "--facts", facts)
    assert result.returncode == 5
    assert "a rehearsal is about one host" in result.stderr and "3 fit: db1, web1, web2" in result.stderr
