# SPDX-License-Identifier: Apache-2.0
"""Kernel arguments are edited where they stand, and nothing else is."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "module_utils"))
import kdo_arguments as arguments
from kdo_edit import EditError

ENTRY = "/boot/loader/entries/0123456789abcdef0123456789abcdef-6.1.0-1.conf"
NAMES = st.sampled_from(["crashkernel", "quiet", "console", "crash_kexec_post_notifiers", "panic", "a-b", "a_b"])
VALUES = st.sampled_from(["", "=1", "=256M", "=ttyS0,115200", '="two words"'])
WORDS = st.lists(st.builds(lambda n, v: n + v, NAMES, VALUES), max_size=8)
WANTED = st.lists(st.sampled_from(["crashkernel=1G,high", "crashkernel=64M,low", "panic=10", "quiet"]), unique=True)
GAPS = st.sampled_from([" ", "  ", "\t"])
KEYS = st.lists(st.sampled_from(["crash_kexec_post_notifiers", "console", "a-b"]), unique=True)


@given(WORDS, WANTED, KEYS, GAPS)
def test_ours_once_the_others_as_they_were(words, wanted, gone, gap):
    text = gap.join(words)
    after = arguments.line(text, wanted, gone)
    assert arguments.line(after, wanted, gone) == after  # once is enough
    keys = {arguments.key(w) for w in [*wanted, *gone]}
    there = arguments.words(after)
    assert [w for w in there if arguments.key(w) not in keys] == [w for w in words if arguments.key(w) not in keys]
    for key in keys:
        assert [w for w in there if arguments.key(w) == key] == [w for w in wanted if arguments.key(w) == key]


@given(WORDS, GAPS, st.sampled_from(["", " ", "\n"]))
def test_what_is_right_already_stays_byte_for_byte(words, gap, end):
    text = gap.join(words) + end
    right = {arguments.key(w): [] for w in words}
    for word in words:
        right[arguments.key(word)].append(word)
    wanted = [w for group in right.values() for w in group]
    assert arguments.line(text, wanted, ["none-such"]) == text


def test_a_loader_entry_keeps_everything_but_its_options():
    text = "# mine\ntitle Debian\nversion 6.1\nlinux /x/linux\noptions root=UUID=a ro\noptions  quiet crashkernel=1G  # no\nsort-key debian\n"
    after = arguments.edit(ENTRY, text, ["crashkernel=512M"], ["quiet"])
    assert after == text.replace("  quiet crashkernel=1G  # no", "  # no crashkernel=512M")
    assert arguments.edit(ENTRY, text, ["root=UUID=a", "ro"], []) == text
    with pytest.raises(EditError):
        arguments.edit(ENTRY, "title x\n", ["a=1"], [])


def test_every_section_of_zipl_conf_in_whatever_quotes():
    text = "[defaultboot]\ndefault=debian\n[debian]\nimage=/boot/vmlinuz\nparameters = \"root=/dev/dasda1\"\n[old]\n parameters='root=/dev/dasda1 crashkernel=1G'\n#parameters=no\n"
    after = arguments.edit(arguments.ZIPL, text, ["crashkernel=384M-:128M"], [])
    assert after.count("crashkernel=384M-:128M") == 2 and "1G" not in after and "#parameters=no" in after
    assert 'parameters = "root=/dev/dasda1 crashkernel=384M-:128M"' in after
    for broken in ('parameters="unfinished\n', "image=/x\n"):
        with pytest.raises(EditError):
            arguments.edit(arguments.ZIPL, broken, ["a=1"], [])


def test_grub_defaults_are_what_a_shell_reads(tmp_path):
    text = "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX='console=ttyS0 crashkernel=1G'\n# said: GRUB_CMDLINE_LINUX_DEFAULT\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet crash_kexec_post_notifiers\"\n"
    after = arguments.edit(arguments.GRUB_DEFAULTS, text, ["crashkernel=512M"], ["crash_kexec_post_notifiers"])
    path = tmp_path / "grub"
    path.write_text(after)
    shell = f'. {path}; printf "%s|%s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert said == "console=ttyS0 crashkernel=512M|quiet"
    with pytest.raises(EditError):
        arguments.edit(arguments.GRUB_DEFAULTS, 'GRUB_CMDLINE_LINUX="$(cat /proc/cmdline)"\n', ["a=1"], [])


def test_the_environment_block_keeps_its_size():
    head = "# GRUB Environment Block\nsaved_entry=x\nkernelopts=root=/dev/vda1 ro crashkernel=auto\nboot_success=1\n"
    text = head + "#" * (1024 - len(head))
    after = arguments.edit("/boot/grub2/grubenv", text, ["crashkernel=512M"], ["quiet"])
    assert len(after) == 1024 and "kernelopts=root=/dev/vda1 ro crashkernel=512M\nboot_success=1\n#" in after
    assert arguments.edit("/boot/grub2/grubenv", after, ["crashkernel=512M"], []) == after
    for broken in (text[:-1], text.replace("kernelopts", "kernelopt")):
        with pytest.raises(EditError):
            arguments.edit("/boot/grub2/grubenv", broken, ["a=1"], [])
    with pytest.raises(EditError):
        arguments.edit("/boot/grub2/grubenv", text, ["x=" + "y" * 500, "z=" + "y" * 500], [])


@pytest.mark.parametrize("word", ["a=$(id)", "a=b;c", "a='b'", 'a="b c"', "-a", "", "a b", "a=`x`", "a\n"])
def test_what_a_boot_loader_would_read_is_never_written(word):
    with pytest.raises(EditError):
        arguments.edit(arguments.KERNEL_CMDLINE, "root=x\n", [word], [])


def test_a_comment_in_etc_kernel_cmdline_is_not_guessed_at():
    assert arguments.edit(arguments.KERNEL_CMDLINE, "root=x ro\n", ["a=1"], []) == "root=x ro a=1\n"
    with pytest.raises(EditError, match="line 1"):
        arguments.edit(arguments.KERNEL_CMDLINE, "# root\nroot=x\n", ["a=1"], [])
