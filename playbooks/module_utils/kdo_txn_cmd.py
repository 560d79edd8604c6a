# SPDX-License-Identifier: Apache-2.0
"""The commands the host side can run: a table, and one way to run them.

A command is chosen by its name. The arguments that vary (package names, a kernel release, a unit) have been checked
against the tables in `kdo_txn_doc`. There is no shell anywhere.
"""

import os
import re
import signal
import subprocess
import tempfile

LONGEST_OUTPUT = 4000
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
}

_APT = [
    "-y",
    "-q",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=120",
]
_DNF = ["--setopt=install_weak_deps=False", "install"]
_EDITENV = ("/usr/bin/grub2-editenv", "/usr/bin/grub-editenv")
_KDUMP = [["/usr/sbin/kdump-config"]]


class Command(object):
    """``variants``: fixed argument lists, the first whose program is there is used. ``package`` brings the program."""

    def __init__(self, variants, timeout, package="", patient=False, nobody=False):
        self.variants = variants
        self.timeout = timeout
        self.package = package
        self.nobody = nobody  # root's reading alone would write: rpm opens its database for writing as root
        self.patient = patient  # not to be interrupted: a half-done package run is worse than waiting for it


def _kdump(verb, timeout=120):
    return Command([head + [verb] for head in _KDUMP], timeout, "kdump-tools")


COMMANDS = {
    "apt-policy": Command([["/usr/bin/apt-cache", "policy"]], 60),
    "apt-update": Command([["/usr/bin/apt-get", "-q", "update"]], 300),
    "apt-simulate": Command([["/usr/bin/apt-get", "-s", "-q", "install", "--no-install-recommends"]], 120),
    "apt-install": Command([["/usr/bin/apt-get"] + _APT + ["install", "--no-install-recommends"]], 1200, "", True),
    "apt-purge-simulate": Command([["/usr/bin/apt-get", "-s", "-q", "purge"]], 120),
    "apt-purge": Command([["/usr/bin/apt-get"] + _APT + ["purge"]], 900, "", True),
    "apt-remove": Command([["/usr/bin/apt-get"] + _APT + ["remove"]], 900, "", True),
    "dpkg-configure": Command(
        [["/usr/bin/dpkg", "--force-confdef", "--force-confold", "--configure", "-a"]], 600, "", True
    ),
    "grub-regenerate": Command(
        [["/usr/sbin/update-grub"], ["/usr/sbin/grub-mkconfig", "-o", "/boot/grub/grub.cfg"]], 300
    ),
    "grub2-regenerate": Command([["/usr/sbin/grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"]], 300),
    "grub2-check": Command([["/usr/bin/grub2-script-check", "/boot/grub2/grub.cfg"]], 60),
    "grub-check": Command([["/usr/bin/grub-script-check", "/boot/grub/grub.cfg"]], 60),
    "grub-check-custom": Command([["/usr/bin/grub-script-check", "/boot/grub/custom.cfg"]], 60),
    "grub-once": Command([["/usr/sbin/grub-reboot"]], 60),
    "grub-next-none": Command([["/usr/bin/grub-editenv", "/boot/grub/grubenv", "unset", "next_entry"]], 60),
    "grub2-once": Command([[program, "/boot/grub2/grubenv", "set"] for program in _EDITENV], 60),
    "grub2-next-none": Command([[program, "/boot/grub2/grubenv", "unset", "next_entry"] for program in _EDITENV], 60),
    "bootctl-list": Command([["/usr/bin/bootctl", "list", "--json=short", "--no-pager"]], 60),
    "bootctl-once": Command([["/usr/bin/bootctl", "set-oneshot"]], 60),
    "zipl": Command([["/usr/sbin/zipl"], ["/sbin/zipl"]], 300),
    "reboot": Command([["/usr/bin/systemctl", "reboot"], ["/bin/systemctl", "reboot"]], 60),
    "kdump-hook": Command([["/etc/kernel/postinst.d/kdump-tools"]], 600, "kdump-tools"),
    "kdump-symlinks": _kdump("symlinks", 600),
    "kdump-test": _kdump("test"),
    "kdump-load": _kdump("load", 600),
    "kdump-reload": _kdump("reload", 600),
    "kdump-unload": _kdump("unload"),
    "kdump-rebuild": Command([["/usr/bin/kdumpctl", "rebuild"]], 900, "kdumpctl"),
    "kdump-restart": Command([["/usr/bin/kdumpctl", "restart"]], 900, "kdumpctl"),
    "kdump-stop": Command([["/usr/bin/kdumpctl", "stop"]], 120, "kdumpctl"),
    "rpm-list": Command([["/usr/bin/rpm", "-qa", "--qf", "%{NAME}\\n"]], 120, nobody=True),
    "rpm-erase-test": Command([["/usr/bin/rpm", "-e", "--test"]], 120),
    "rpm-erase": Command([["/usr/bin/rpm", "-e"]], 600, "", True),
    "dnf-simulate": Command([["/usr/bin/dnf", "--assumeno"] + _DNF], 600),
    "dnf-install": Command([["/usr/bin/dnf", "-y"] + _DNF], 1800, "", True),
    "dnf-finish": Command([["/usr/bin/dnf", "-y", "--cacheonly"] + _DNF], 900, "", True),
    "zypper-simulate": Command(
        [["/usr/bin/zypper", "--xmlout", "--non-interactive", "install", "--no-recommends", "--dry-run"]], 600
    ),
    "zypper-install": Command([["/usr/bin/zypper", "--non-interactive", "install", "--no-recommends"]], 1800, "", True),
    "rpm-ostree-kargs": Command([["/usr/bin/rpm-ostree", "kargs"]], 600),
    "rpm-ostree-status": Command([["/usr/bin/rpm-ostree", "status", "--json"]], 120),
    "rpm-ostree-cleanup": Command([["/usr/bin/rpm-ostree", "cleanup", "-p"]], 300),
    "pbl": Command([["/usr/sbin/pbl"], ["/sbin/pbl"]], 600),
    "kdump-commandline": Command([["/usr/sbin/kdumptool", "commandline", "-u"]], 600, "kdump"),
    "mkdumprd": Command([["/usr/sbin/mkdumprd", "-f"], ["/sbin/mkdumprd", "-f"]], 900, "kdump"),
    "load.sh": Command([["/usr/lib/kdump/load.sh", "--update"]], 900, "kdump"),
    "unload.sh": Command([["/usr/lib/kdump/unload.sh"]], 120, "kdump"),
    "kexec-unload": Command([["/usr/sbin/kexec", "-p", "-u"], ["/sbin/kexec", "-p", "-u"]], 60),
    "ssh-keygen": Command([["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", ""]], 60, "openssh-client"),
    "unit-state": Command([["/usr/bin/systemctl", "is-enabled"], ["/bin/systemctl", "is-enabled"]], 30),
    "unit-enable": Command([["/usr/bin/systemctl", "enable"], ["/bin/systemctl", "enable"]], 60),
    "unit-disable": Command([["/usr/bin/systemctl", "disable"], ["/bin/systemctl", "disable"]], 60),
    "unit-mask": Command([["/usr/bin/systemctl", "mask"], ["/bin/systemctl", "mask"]], 60),
    "unit-unmask": Command([["/usr/bin/systemctl", "unmask"], ["/bin/systemctl", "unmask"]], 60),
    "units-reload": Command([["/usr/bin/systemctl", "daemon-reload"], ["/bin/systemctl", "daemon-reload"]], 60),
}


def _as_nobody():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


class CommandError(Exception):
    """A command did not do its work."""

    def __init__(self, name, why, output=""):
        Exception.__init__(self, "%s: %s" % (name, why))
        self.name, self.why, self.output = name, why, output


class Interrupted(BaseException):
    """A signal asked us to stop. Not an Exception, so that nothing on the way takes it for an ordinary error."""


class Signals(object):
    """SIGTERM, SIGINT and SIGHUP become `Interrupted`, except while `hold` says that the work may not be left."""

    def __init__(self):
        self.hold = 0
        self.pending = None
        self._old = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            try:
                self._old[number] = signal.signal(number, self._arrived)
            except ValueError:  # not the main thread: whoever owns it decides
                break
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _arrived(self, number, _frame):
        self.pending = number
        if not self.hold:
            raise Interrupted(signal.Signals(number).name)

    def check(self):
        if self.pending is not None and not self.hold:
            raise Interrupted(signal.Signals(self.pending).name)


def find(tree, name):
    """The argument list of a command as far as it is fixed, or None if its program is not there."""
    for variant in COMMANDS[name].variants:
        if os.access(tree.real(variant[0]), os.X_OK):
            return list(variant)
    return None


def clean(text):
    """Output as it may travel: no control characters, nothing that is called a password, not too long."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = "".join(char if char in "\n\t" or char.isprintable() else " " for char in text).strip()
    text = re.sub(r"(?i)((?:pass(?:word|wd|phrase)?|secret|token|credential|key)\w*\s*[=:]\s*)\S+", r"\1***", text)
    text = re.sub(r"(://[^/\s:@]*:)[^@\s/]+@", r"\1***@", text)
    if len(text) > LONGEST_OUTPUT:
        half = LONGEST_OUTPUT // 2 - 10
        text = text[:half] + "\n… cut …\n" + text[-half:]
    return text


class Runner(object):
    """Runs commands on the host itself. ``keep`` are file descriptors the command holds on to: the transaction's lock.

    So a command that outlives a killed engine keeps the lock, and nobody undoes files under its feet.
    """

    def __init__(self, signals, keep=()):
        self.signals = signals
        self.keep = tuple(keep)

    def __call__(self, name, argv, timeout):
        # A file, not a pipe: a daemon that the command leaves behind would keep a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            self.signals.hold += 1  # or a signal could come between the start and our knowing whom to end
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(ENVIRONMENT),
                    cwd="/",
                    close_fds=True,
                    pass_fds=self.keep,
                    start_new_session=True,
                    preexec_fn=_as_nobody if name in COMMANDS and COMMANDS[name].nobody else None,  # noqa: PLW1509 - there are no threads
                )
            finally:
                self.signals.hold -= 1
            try:
                self.signals.check()
                process.wait(timeout)
            except BaseException as error:
                self._end(process)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise CommandError(name, "it did not end within %d seconds" % timeout)
                raise
            output.seek(0)
            return process.returncode, output.read(1 << 20).decode("utf-8", "replace")

    @staticmethod
    def _end(process):
        for number, grace in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, number)
            except OSError:
                pass
            try:
                process.wait(grace)
                return
            except subprocess.TimeoutExpired:
                continue


class Shop(object):
    """Runs a command of the table by name and says what came of it."""

    def __init__(self, tree, runner, signals):
        self.tree, self.runner, self.signals = tree, runner, signals

    def has(self, name):
        return find(self.tree, name) is not None

    def run(self, name, *arguments):
        """(exit status, clean output, whole output)"""
        command = COMMANDS[name]
        argv = find(self.tree, name)
        if argv is None:
            raise CommandError(name, "there is no %s" % command.variants[0][0])
        if command.patient:
            self.signals.hold += 1
        try:
            status, output = self.runner(name, argv + list(arguments), command.timeout)
        finally:
            if command.patient:
                self.signals.hold -= 1
        self.signals.check()
        return status, clean(output), output

    def must(self, name, *arguments):
        status, output, _ = self.run(name, *arguments)
        if status != 0:
            raise CommandError(name, "it ended with status %d" % status, output)
        return output

    def unit_state(self, unit):
        """What systemctl is-enabled says: enabled, disabled, masked, not-found, …"""
        return self.run("unit-state", unit)[1].split("\n")[-1].strip()
