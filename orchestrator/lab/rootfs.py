# SPDX-License-Identifier: Apache-2.0
"""A guest's root file system: made by mmdebstrap, then configured file by file. No guest is started."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from orchestrator.lab import redhat
from orchestrator.lab.mirrors import Mirrors, download_options
from orchestrator.lab.process import run
from orchestrator.lab.spec import ImageSpec

BLS_SUITE: Final = "forky"  # the first whose GRUB (2.14) reads loader entries
GUEST_REPOSITORY: Final = "http://10.0.2.100/"  # see orchestrator.lab.aptrepo; 10.0.2.0/24 is QEMU's user network
BUILD_SECONDS: Final = 3600  # generous: two builds on two busy cores, in emulation perhaps
# A small initrd fits into a small crashkernel reservation and unpacks quickly under emulation.
INITRD_CONF: Final = "MODULES=list\nCOMPRESS=lz4\nBUSYBOX=auto\n"
INITRD_MODULES: Final = "virtio_pci\nvirtio_blk\nvirtio_net\next4\n"
# dracut looks at the machine that it runs on, which here is not the guest.
DRACUT_CONF: Final = 'hostonly="no"\ncompress="lz4"\nadd_drivers+=" virtio_pci virtio_blk ext4 "\n'
# Units that cost an emulated boot 0.3 to 3 s each and that no test looks at.
SLOW_UNITS: Final = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "getty@tty1.service",
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


def bootstrap(spec: ImageSpec, mirrors: Mirrors, work: Path) -> Path:
    """Make the configured tree ``work/root`` (root only; about a minute) and return it."""
    root = work / "root"
    (work / "conf").write_text(INITRD_CONF, encoding="utf-8")
    (work / "modules").write_text(INITRD_MODULES, encoding="utf-8")
    (work / "dracut").write_text(DRACUT_CONF, encoding="utf-8")
    # The module list must be there before the kernel is configured, or a big initrd is made first.
    hooks = [
        'mkdir -p "$1/etc/initramfs-tools/conf.d"',
        f'upload "{work}/conf" /etc/initramfs-tools/conf.d/zz-lab',
        f'upload "{work}/modules" /etc/initramfs-tools/modules',
    ]
    if spec.initramfs != "initramfs-tools":
        hooks += ['mkdir -p "$1/etc/dracut.conf.d"', f'upload "{work}/dracut" /etc/dracut.conf.d/lab.conf']
    for path, text in spec.architecture.placeholders.items():
        file = work / Path(path).name
        file.write_text(text, encoding="utf-8")
        hooks += [f'mkdir -p "$1{Path(path).parent}"', f'upload "{file}" {path}', f'chmod 755 "$1{path}"']
    kernels = [_newer_hook(suite, mirrors, spec.architecture.kernel) for suite in spec.kernels if suite]
    if spec.boot == "grub-bls":
        kernels.append(_newer_hook(BLS_SUITE, mirrors, "grub-pc-bin grub2-common"))
    run(
        [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
            f"--architectures={spec.architecture.debian}",
            f"--keyring={mirrors.keyring}", f"--include={','.join(spec.packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{tree}/*" for tree in ("doc", "man", "locale")),
            *(f"--aptopt={option}" for option in download_options()),
            *(f"--essential-hook={hook}" for hook in hooks),
            *(f"--customize-hook={hook}" for hook in kernels),
            spec.suite, root, *mirrors.sources(spec.suite)[: None if spec.architecture.security else 1],
        ],
        stage=f"mmdebstrap {spec.suite}", timeout=BUILD_SECONDS,
    )  # fmt: skip
    return root


def _newer_hook(suite: str, mirrors: Mirrors, packages: str) -> str:
    """Shell text that adds packages of another suite, and nothing else of it that is not needed for that."""
    apt = 'chroot "$1" apt-get -q -y'
    listed = '"$1/etc/apt/sources.list.d/kernel.list"'
    return (
        f'set -e; echo "deb {mirrors.archive} {suite} main" > {listed}; {apt} update; '
        f"{apt} install --no-install-recommends -t {suite} {packages}; rm {listed}"
    )


def configure(root: Path, spec: ImageSpec, authorized_key: str) -> None:
    """Write network, ssh, boot and (``with_kdump``) ready kdump state into the tree."""
    name = f"kdo-{spec.suite}"
    _write(root, "etc/hostname", f"{name}\n")
    _write(root, "etc/hosts", f"127.0.0.1 localhost {name}\n")
    _write(root, "etc/fstab", _fstab(spec))
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
    for path in spec.architecture.placeholders:
        (root / path.lstrip("/")).unlink(missing_ok=True)
    for path, text in spec.architecture.files.items():
        _write(root, path.lstrip("/"), text)
    if spec.fast:
        for unit in (*SLOW_UNITS, f"serial-getty@{spec.architecture.tty}.service"):
            _link(root, f"etc/systemd/system/{unit}", "/dev/null")
    if spec.boot == "systemd-boot":
        _write(root, "etc/kernel/cmdline", f"root=LABEL=root ro {spec.arguments}\n")
    elif spec.boot == "grub-bls":
        redhat.lay_out(root, kernel_releases(root), spec.arguments)
        shutil.copytree(root / "usr/lib/grub/i386-pc", root / redhat.GRUB_PREFIX / "i386-pc", dirs_exist_ok=True)
    elif spec.boot == "zipl":
        _write(root, "etc/zipl.conf", _zipl_settings(spec))
    elif spec.boot in ("grub", "grub-efi"):
        _grub_settings(root, spec)
    if not spec.needs_first_boot and spec.boot == "grub":
        _handwritten_menu(root, spec)
    if spec.with_kdump and spec.boot != "grub-bls" and spec.initramfs != "dracut":
        _ready_kdump(root)


def kernel_releases(root: Path) -> list[str]:
    """Releases of the tree's kernels, oldest first, e.g. ``6.1.0-56-cloud-amd64``."""
    names = [image.name.split("-", 1)[1] for image in (root / "boot").glob("vmlinu[xz]-*")]
    return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def kernel_release(root: Path) -> str:
    """Release of the tree's newest kernel: the one that boots by default."""
    return kernel_releases(root)[-1]


def kernel_image(root: Path, release: str) -> Path:
    """The kernel itself: a compressed image, but an ELF file on some architectures."""
    (image,) = (root / "boot").glob(f"vmlinu[xz]-{release}")
    return image


def _fstab(spec: ImageSpec) -> str:
    lines = ["LABEL=root / ext4 defaults,noatime 0 1"]
    lines += ["LABEL=boot /boot ext4 defaults,noatime 0 2"] if spec.separate_boot else []
    lines += ["LABEL=ESP /boot/efi vfat umask=0077 0 0"] if spec.uefi else []
    return "\n".join(lines) + "\n"


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


def _grub_settings(root: Path, spec: ImageSpec) -> None:
    # The submenu of the older kernels is Debian's own default; the menu that is written by hand has none.
    submenu = "" if spec.needs_first_boot else "GRUB_DISABLE_SUBMENU=true\n"
    _write(
        root, "etc/default/grub",
        'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_TIMEOUT_STYLE=hidden\nGRUB_RECORDFAIL_TIMEOUT=0\n'
        'GRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=""\n'
        f'GRUB_CMDLINE_LINUX="{spec.arguments}"\nGRUB_DISABLE_OS_PROBER=true\n{submenu}'
        f"{spec.architecture.grub_terminal}",
    )  # fmt: skip


def _zipl_settings(spec: ImageSpec) -> str:
    return (
        "[defaultboot]\ndefault = debian\n\n[debian]\ntarget = /boot\nimage = /boot/vmlinuz\n"
        f'ramdisk = /boot/initrd.img\nparameters = "root=LABEL=root ro {spec.arguments}"\n'
    )


def _handwritten_menu(root: Path, spec: ImageSpec) -> None:
    """GRUB's modules, and a first grub.cfg **written by hand**.

    grub-mkconfig asks the running machine for its devices and knows nothing of a tree. This one has no
    ``crashkernel=``, while the package's own /etc/default/grub.d/kdump-tools.cfg stays as it is: the state of a host
    whose update-grub was never run. The first real update-grub happens in the guest.
    """
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
    state = root / "var/lib/kdump"
    for release in kernel_releases(root):
        if not (state / f"initrd.img-{release}").is_file():
            _kdump_initrd(root, release)
        # kdump-config throws the initrd away unless this copy equals the original.
        shutil.copy2(root / "etc/kdump/sysctl.conf", state / f"latest_sysctls-{release}")
    release = kernel_release(root)
    _link(root, "var/lib/kdump/vmlinuz", f"/boot/{kernel_image(root, release).name}")
    _link(root, "var/lib/kdump/initrd.img", f"/var/lib/kdump/initrd.img-{release}")


def _kdump_initrd(root: Path, release: str) -> None:
    denial = root / "tmp/lab-bin"
    denial.mkdir(parents=True)
    (denial / "ischroot").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (denial / "ischroot").chmod(0o755)
    run(
        ["chroot", root, "/etc/kernel/postinst.d/kdump-tools", release, f"/boot/{kernel_image(root, release).name}"],
        stage="make the kdump initrd", timeout=BUILD_SECONDS,
        env={"PATH": "/tmp/lab-bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    shutil.rmtree(denial)


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
