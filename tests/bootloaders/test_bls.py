# SPDX-License-Identifier: Apache-2.0
"""What boots next where GRUB reads Boot Loader Specification entries."""

import msgspec

from orchestrator.bootloaders import next_boot
from orchestrator.documents.facts import Boot, GrubConfig
from tests.builders import debian, file

OLD, NEW = "5.14.0-362.8.1.el9_3.x86_64", "5.14.0-427.42.1.el9_4.x86_64"
MACHINE = "0123456789abcdef"


def entry(release, options="root=/dev/vda1 ro", version=""):
    return f"""title Red Hat Enterprise Linux ({release})
version {version or release}
linux /vmlinuz-{release}
initrd /initramfs-{release}.img $tuned_initrd
options {options}
grub_users $grub_users
grub_class rhel
"""


def host(entries, env=None, lines=('set default="${saved_entry}"',)):
    files = {f"/boot/loader/entries/{MACHINE}-{name}.conf": file(text) for name, text in entries.items()}
    grub = GrubConfig(path="/boot/grub2/grub.cfg", lines=list(lines), env=env or {})
    return msgspec.structs.replace(debian(), files=files, boot=Boot(grub=grub))


BOTH = {OLD: entry(OLD), NEW: entry(NEW), "0-rescue": entry(f"0-rescue-{MACHINE}", "root=/dev/vda1 ro rescue")}


def booted(*args, **more):
    return next_boot("grub-bls", host(*args, **more))


def test_the_newest_without_a_choice_and_never_the_rescue_entry():
    boot = booted(BOTH)
    assert (boot.known, boot.release, boot.arguments) == (True, NEW, ["root=/dev/vda1", "ro"])


def test_saved_entry_then_next_entry_for_one_boot():
    assert booted(BOTH, {"saved_entry": f"{MACHINE}-{OLD}"}).release == OLD
    assert booted(BOTH, {"saved_entry": "1"}).release == OLD
    assert booted(BOTH, {"saved_entry": f"{MACHINE}-{OLD}", "next_entry": f"{MACHINE}-{NEW}"}).release == NEW
    assert booted(BOTH, {"saved_entry": "gone"}).release == NEW
    assert booted(BOTH, {"saved_entry": f"{MACHINE}-{OLD}"}, lines=()).release == OLD
    assert booted(BOTH, {"saved_entry": f"{MACHINE}-{OLD}"}, lines=('set default="0"',)).release == NEW


def test_arguments_that_are_kept_in_grubenv():
    kept = {NEW: entry(NEW, "$kernelopts $tuned_params crashkernel=256M")}
    assert booted(kept, {"kernelopts": "root=/dev/vda1 ro quiet"}).arguments == [
        "root=/dev/vda1",
        "ro",
        "quiet",
        "crashkernel=256M",
    ]
    boot = booted(kept)
    assert not boot.known and "$kernelopts" in boot.why


def test_several_lines_of_options_are_one_command_line_and_quotes_survive():
    text = entry(NEW, 'dyndbg="file a.c +p; file b.c +p"') + "options crashkernel=1G,high\n"
    assert booted({NEW: text}).arguments == ['dyndbg="file a.c +p; file b.c +p"', "crashkernel=1G,high"]


def test_what_cannot_be_read_is_unknown():
    assert "no entry" in booted({}).why
    facts = host(BOTH)
    path = f"/boot/loader/entries/{MACHINE}-{NEW}.conf"
    files = {**facts.files, path: file(None, error="EACCES")}
    boot = next_boot("grub-bls", msgspec.structs.replace(facts, files=files))
    assert not boot.known and "EACCES" in boot.why
