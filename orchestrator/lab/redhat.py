# SPDX-License-Identifier: Apache-2.0
"""A guest with the files of the Red Hat family, on a Debian base.

**Real**: the kernel, GRUB 2.14 with its own ``blscfg``, loader entries, grubenv, systemd, rpm and its database, dracut, kexec,
makedumpfile, the capture kernel, the vmcore. **Laid out**: os-release, /etc/kdump.conf, /etc/sysconfig/kdump, and a small
``kdumpctl`` of our own that does the same with dracut and kexec (Debian has no kdump-utils); they come in a real rpm package
named kexec-tools. There is no grubby.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from orchestrator.lab.process import run

MACHINE_ID: Final = "0d5a3c1e8f2b4d6790a1b2c3d4e5f607"
GRUB_PREFIX: Final = "boot/grub2"
OS_RELEASE: Final = """\
NAME="AlmaLinux (files laid out on Debian)"
ID="almalinux"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.6"
PRETTY_NAME="AlmaLinux 9.6 (files laid out on Debian)"
"""
MENU: Final = """\
serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
load_env
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
search --no-floppy --label root --set=root
insmod blsuki
blscfg --path /boot/loader/entries
"""
KDUMP_CONF: Final = """\
# Where to put the dump. The lines below are examples.
#raw /dev/vg/lv_kdump
#ext4 /dev/vg/lv_kdump
#nfs my.server.com:/export/tmp
#ssh user@my.server.com
#sshkey /root/.ssh/kdump_id_rsa
auto_reset_crashkernel yes
path /var/crash
core_collector makedumpfile -l --message-level 7 -d 31
#failure_action shell
"""
SYSCONFIG: Final = """\
# Kernel Version string for the -kdump kernel
KDUMP_KERNELVER=""

# The kdump commandline is the command line of the kernel, or this
KDUMP_COMMANDLINE=""

# Removed from it
KDUMP_COMMANDLINE_REMOVE="hugepages hugepagesz slub_debug quiet log_buf_len swiotlb hugetlb_cma ignition.firstboot"

# Appended to it
KDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1 reset_devices cgroup_disable=memory mce=off numa=off udev.children-max=2 panic=10 novmcoredd"

KEXEC_ARGS=""
"""
KDUMPCTL: Final = r"""#!/bin/sh
# A stand-in for kdumpctl: same verbs, same files, made of dracut and kexec. It reads what kdo writes, and no more.
set -e
conf() { sed -n "s/^$1[[:space:]]\{1,\}//p" /etc/kdump.conf | tail -n 1; }
. /etc/sysconfig/kdump
release=${KDUMP_KERNELVER:-$(uname -r)}
image=/boot/initramfs-${release}kdump.img
loaded() { [ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ]; }
build() {
	dracut --force --no-hostonly --omit "plymouth network network-manager" --modules "base fs-lib rootfs-block kernel-modules kdumplab" \
		--add-drivers "virtio_pci virtio_blk ext4" --install "makedumpfile" --include /etc/kdump.conf /etc/kdump.conf \
		--compress lz4 "$image" "$release"
}
start() {
	loaded && return 0
	if [ ! -s "$image" ] || [ /etc/kdump.conf -nt "$image" ]; then build; fi
	line=
	for word in ${KDUMP_COMMANDLINE:-$(cat /proc/cmdline)}; do
		case " crashkernel BOOT_IMAGE $KDUMP_COMMANDLINE_REMOVE " in *" ${word%%=*} "*) continue;; esac
		line="$line $word"
	done
	kexec -p --command-line="${line# } $KDUMP_COMMANDLINE_APPEND" --initrd="$image" "/boot/vmlinuz-$release" $KEXEC_ARGS
}
stop() { kexec -p -u; }
case "$1" in
start) start;;
stop) stop;;
restart) stop; start;;
reload) stop; start;;
rebuild) build;;
status) loaded || exit 3;;
*) echo "usage: kdumpctl start|stop|restart|reload|rebuild|status" >&2; exit 1;;
esac
"""
UNIT: Final = """\
[Unit]
Description=Crash recovery kernel arming (laid out)
After=local-fs.target
ConditionKernelCommandLine=crashkernel

[Service]
Type=oneshot
ExecStart=/usr/bin/kdumpctl start
ExecStop=/usr/bin/kdumpctl stop
RemainAfterExit=yes

[Install]
WantedBy=multi-user.target
"""
MODULE_SETUP: Final = """\
#!/bin/bash
check() { return 255; }
depends() { echo "base"; }
install() {
	inst_multiple date mkdir mount mv reboot sed sync tail umount
	inst_hook pre-pivot 99 "$moddir/kdumplab.sh"
}
"""
MODULE: Final = r"""#!/bin/sh
# In the capture kernel: the root file system is at /sysroot. Dump there, say so, and give the machine back.
[ -e /proc/vmcore ] || return 0
conf() { sed -n "s/^$1[[:space:]]\{1,\}//p" /etc/kdump.conf | tail -n 1; }
mount -o remount,rw /sysroot
path=$(conf path)
folder=/sysroot${path:-/var/crash}/127.0.0.1-$(date +%Y-%m-%d-%H:%M:%S)
mkdir -p "$folder"
collector=$(conf core_collector)
if ${collector:-makedumpfile -l -d 31} /proc/vmcore "$folder/vmcore-incomplete" && sync; then
	mv "$folder/vmcore-incomplete" "$folder/vmcore"
	sync
	echo "kdump: saved vmcore to ${folder#/sysroot}" > /dev/console
else
	echo "kdump: saving vmcore failed" > /dev/console
fi
umount /sysroot || mount -o remount,ro /sysroot
reboot -f
"""
SPEC: Final = """\
Name: kexec-tools
Version: 2.0.29
Release: 1.el9
Summary: Files of the Red Hat family's kexec-tools, laid out
License: Apache-2.0
BuildArch: noarch
%description
kdumpctl of the lab, with the configuration files where the family has them.
%install
cp -a /tmp/lab-files/. %{buildroot}/
mkdir -p %{buildroot}/var/crash
%files
/usr/bin/kdumpctl
/usr/lib/systemd/system/kdump.service
/usr/lib/dracut/modules.d/99kdumplab
%dir /var/crash
%config(noreplace) /etc/kdump.conf
%config(noreplace) /etc/sysconfig/kdump
"""


def _put(root: Path, relative: str, text: str, mode: int = 0o644) -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def lay_out(root: Path, releases: list[str], arguments: str) -> None:
    """Make the tree one of the family: package, entries, menu and environment block."""
    files = root / "tmp/lab-files"
    _put(files, "usr/bin/kdumpctl", KDUMPCTL, 0o755)
    _put(files, "usr/lib/systemd/system/kdump.service", UNIT)
    _put(files, "usr/lib/dracut/modules.d/99kdumplab/module-setup.sh", MODULE_SETUP, 0o755)
    _put(files, "usr/lib/dracut/modules.d/99kdumplab/kdumplab.sh", MODULE, 0o755)
    _put(files, "etc/kdump.conf", KDUMP_CONF)
    _put(files, "etc/sysconfig/kdump", SYSCONFIG)
    _put(root, "tmp/kexec-tools.spec", SPEC)
    _put(root, "etc/rpm/macros", "%_dbpath /var/lib/rpm\n")  # Debian's rpm keeps a user's own database
    for command in (
        "rpmbuild -bb --quiet --define '_topdir /tmp/rpmbuild' --define '_build_id_links none' /tmp/kexec-tools.spec",
        "rpm -i --nodeps /tmp/rpmbuild/RPMS/noarch/kexec-tools-2.0.29-1.el9.noarch.rpm",
        "rm -rf /tmp/rpmbuild /tmp/kexec-tools.spec /tmp/lab-files",
    ):
        run(["chroot", root, "sh", "-c", command], stage="make the rpm package", timeout=300)
    _put(root, "etc/os-release", OS_RELEASE)
    _put(root, "etc/machine-id", MACHINE_ID + "\n")
    _put(
        root,
        "etc/default/grub",
        f'GRUB_TIMEOUT=0\nGRUB_DEFAULT=saved\nGRUB_CMDLINE_LINUX="{arguments}"\nGRUB_ENABLE_BLSCFG=true\n',
    )
    for release in releases:
        entry = (
            f"title AlmaLinux ({release})\nversion {release}\nlinux /boot/vmlinuz-{release}\ninitrd /boot/initrd.img-{release}\n"
            f"options root=LABEL=root ro {arguments}\ngrub_users $grub_users\ngrub_class almalinux\n"
        )
        _put(root, f"boot/loader/entries/{MACHINE_ID}-{release}.conf", entry)
    _put(root, f"{GRUB_PREFIX}/grub.cfg", MENU, 0o600)
    block = f"# GRUB Environment Block\nsaved_entry={MACHINE_ID}-{releases[-1]}\nboot_success=0\n"
    _put(root, f"{GRUB_PREFIX}/grubenv", block + "#" * (1024 - len(block)))
