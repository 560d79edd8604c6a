# SPDX-License-Identifier: Apache-2.0
"""A guest's root file system: made by mmdebstrap, then configured file by file. No guest is started."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from orchestrator.lab.mirrors import Mirrors, download_options
from orchestrator.lab.process import run

Suite = Literal["bookworm", "trixie"]

GUEST_REPOSITORY: Final = "http://10.0.2.100/"  # see orchestrator.lab.aptrepo; 10.0.2.0/24 is QEMU's user network
BUILD_SECONDS: Final = 1800  # generous: two builds on two busy cores
BASE_PACKAGES: Final = (
    "dbus", "e2fsprogs", "file", "grub-pc-bin", "grub2-common", "initramfs-tools", "iproute2", "kmod",
    "linux-image-cloud-amd64", "lz4", "openssh-server", "procps", "python3", "python3-apt", "python3-pyudev",
    "systemd-sysv", "udev",
)  # fmt: skip
KDUMP_PACKAGES: Final = ("kdump-tools", "kexec-tools", "makedumpfile")
# A small initrd fits into a small crashkernel reservation and unpacks quickly under emulation.
INITRD_CONF: Final = "MODULES=list\nCOMPRESS=lz4\nBUSYBOX=auto\n"
INITRD_MODULES: Final = "virtio_pci\nvirtio_blk\nvirtio_net\next4\n"
# Without panic= a capture kernel that runs out of memory hangs for ever instead of giving the machine back.
PLAIN_ARGUMENTS: Final = "console=ttyS0,115200 panic=10"
# clocksource/tsc: the emulated TSC let time run wild.
FAST_ARGUMENTS: Final = (
    "mitigations=off nokaslr audit=0 apparmor=0 no_timer_check clocksource=acpi_pm tsc=unstable "
    "random.trust_cpu=on 8250.nr_uarts=1"
)
# Units that cost an emulated boot 0.3 to 3 s each and that no test looks at.
SLOW_UNITS: Final = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service", "systemd-timesyncd.service", "systemd-logind.service",
    "systemd-update-utmp.service", "systemd-pstore.service", "systemd-binfmt.service", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "dev-hugepages.mount", "dev-mqueue.mount", "systemd-ask-password-wall.path",
)  # fmt: skip
NETWORK: Final = """\
[Match]
Name=en* eth*
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
SSHD: Final = """\
HostKey /etc/ssh/ssh_host_ed25519_key
UseDNS no
PermitRootLogin prohibit-password
"""
HOST_KEY_PUB: Final = "etc/ssh/ssh_host_ed25519_key.pub"


@dataclass(frozen=True)
class RootSpec:
    """What goes into a root file system; ``fast`` trades honesty (mitigations, KASLR, all units) for boot time."""

    suite: Suite
    with_kdump: bool = True
    fast: bool = True

    @property
    def packages(self) -> tuple[str, ...]:
        """Names given to mmdebstrap, sorted."""
        return tuple(sorted(BASE_PACKAGES + (KDUMP_PACKAGES if self.with_kdump else ())))

    @property
    def arguments(self) -> str:
        """Kernel arguments that /etc/default/grub sets; never a ``crashkernel=``."""
        return f"{PLAIN_ARGUMENTS} {FAST_ARGUMENTS}" if self.fast else PLAIN_ARGUMENTS


def bootstrap(spec: RootSpec, mirrors: Mirrors, work: Path) -> Path:
    """Make the configured tree ``work/root`` (root only; about a minute) and return it."""
    root = work / "root"
    (work / "conf").write_text(INITRD_CONF, encoding="utf-8")
    (work / "modules").write_text(INITRD_MODULES, encoding="utf-8")
    # The module list must be there before the kernel is configured, or a big initrd is made first.
    hooks = [
        'mkdir -p "$1/etc/initramfs-tools/conf.d"',
        f'upload "{work}/conf" /etc/initramfs-tools/conf.d/zz-lab',
        f'upload "{work}/modules" /etc/initramfs-tools/modules',
    ]
    run(
        [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
            f"--keyring={mirrors.keyring}", f"--include={','.join(spec.packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{tree}/*" for tree in ("doc", "man", "locale")),
            *(f"--aptopt={option}" for option in download_options()),
            *(f"--essential-hook={hook}" for hook in hooks),
            spec.suite, root, *mirrors.sources(spec.suite),
        ],
        stage=f"mmdebstrap {spec.suite}", timeout=BUILD_SECONDS,
    )  # fmt: skip
    return root


def configure(root: Path, spec: RootSpec, authorized_key: str) -> None:
    """Write network, ssh, boot and (``with_kdump``) ready kdump state into the tree."""
    name = f"kdo-{spec.suite}"
    _write(root, "etc/hostname", f"{name}\n")
    _write(root, "etc/hosts", f"127.0.0.1 localhost {name}\n")
    _write(root, "etc/fstab", "LABEL=root / ext4 defaults,noatime 0 1\n")
    _write(root, "etc/resolv.conf", "")
    _write(root, "etc/machine-id", "")  # each overlay makes its own at first boot
    _write(root, "etc/systemd/network/10-lab.network", NETWORK)
    _link(root, "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
          "/lib/systemd/system/systemd-networkd.service")  # fmt: skip
    _ssh(root, authorized_key)
    sources = "" if spec.with_kdump else f"deb [trusted=yes] {GUEST_REPOSITORY} ./\n"
    _write(root, "etc/apt/sources.list", sources)
    for extra in (root / "etc/apt/sources.list.d").glob("*"):
        extra.unlink()
    if spec.fast:
        for unit in SLOW_UNITS:
            _link(root, f"etc/systemd/system/{unit}", "/dev/null")
    _boot(root, spec)
    if spec.with_kdump:
        _ready_kdump(root)


def kernel_release(root: Path) -> str:
    """Release of the tree's one kernel, e.g. ``6.1.0-56-cloud-amd64``."""
    (image,) = (root / "boot").glob("vmlinuz-*")
    return image.name.removeprefix("vmlinuz-")


def _ssh(root: Path, authorized_key: str) -> None:
    ssh = root / "etc/ssh"
    for key in ssh.glob("ssh_host_*"):
        key.unlink()
    # Made here and not by the guest, so that the controller can know it and never switch host key checking off.
    run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab guest", "-f", ssh / "ssh_host_ed25519_key"],
        stage="make the guest's host key",
        timeout=60,
    )
    _write(root, "etc/ssh/sshd_config.d/lab.conf", SSHD)
    _write(root, "root/.ssh/authorized_keys", authorized_key)
    (root / "root/.ssh").chmod(0o700)
    (root / "root/.ssh/authorized_keys").chmod(0o600)


def _boot(root: Path, spec: RootSpec) -> None:
    """GRUB's settings, its modules, and a first grub.cfg.

    That first grub.cfg is **written by hand**: grub-mkconfig asks the running machine for its devices and knows
    nothing of a tree. It has no ``crashkernel=``, while the package's own /etc/default/grub.d/kdump-tools.cfg stays
    as it is: the state of a host whose update-grub was never run. The first real update-grub happens in the guest.
    """
    _write(
        root, "etc/default/grub",
        'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_TIMEOUT_STYLE=hidden\nGRUB_RECORDFAIL_TIMEOUT=0\n'
        'GRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=""\n'
        f'GRUB_CMDLINE_LINUX="{spec.arguments}"\nGRUB_DISABLE_OS_PROBER=true\nGRUB_DISABLE_SUBMENU=true\n'
        'GRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n',
    )  # fmt: skip
    release = kernel_release(root)
    _write(
        root, "boot/grub/grub.cfg",
        "serial --unit=0 --speed=115200\nterminal_output serial\nset timeout=0\n"
        "search --no-floppy --label root --set=root\n"
        "menuentry 'Debian GNU/Linux' {\n"
        f"  linux /boot/vmlinuz-{release} root=LABEL=root ro {spec.arguments}\n"
        f"  initrd /boot/initrd.img-{release}\n}}\n",
    )  # fmt: skip
    shutil.copytree(root / "usr/lib/grub/i386-pc", root / "boot/grub/i386-pc", dirs_exist_ok=True)


def _ready_kdump(root: Path) -> None:
    """Leave kdump-tools as its first successful load would: else that load rebuilds an initrd, emulated, for a minute.

    The package's own hook makes the initrd. Newer ones refuse to in a chroot ("leave it to the target system"), so
    ``ischroot`` says no for this one call.
    """
    release = kernel_release(root)
    state = root / "var/lib/kdump"
    if not (state / f"initrd.img-{release}").is_file():
        denial = root / "tmp/lab-bin"
        denial.mkdir(parents=True)
        (denial / "ischroot").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        (denial / "ischroot").chmod(0o755)
        run(
            ["chroot", root, "/etc/kernel/postinst.d/kdump-tools", release, f"/boot/vmlinuz-{release}"],
            stage="make the kdump initrd", timeout=300,
            env={"PATH": "/tmp/lab-bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )  # fmt: skip
        shutil.rmtree(denial)
    _link(root, "var/lib/kdump/vmlinuz", f"/boot/vmlinuz-{release}")
    _link(root, "var/lib/kdump/initrd.img", f"/var/lib/kdump/initrd.img-{release}")
    # kdump-config throws the initrd away unless this copy equals the original.
    shutil.copy2(root / "etc/kdump/sysctl.conf", state / f"latest_sysctls-{release}")


def _write(root: Path, relative: str, text: str) -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link that leads out of the tree
    path.write_text(text, encoding="utf-8")


def _link(root: Path, relative: str, target: str) -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
