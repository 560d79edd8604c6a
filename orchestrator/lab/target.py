# SPDX-License-Identifier: Apache-2.0
"""Servers that guests send their dumps to: SSH and NFS, reached through QEMU's user network and from nowhere else.

The SSH server does not listen: QEMU (or an operator's ``ProxyCommand``) starts one ``sshd -i`` for each connection, in
a mount namespace of its own with its own accounts, so that ``dumps`` is a real login without being a user of this
machine. The NFS server is NFS-Ganesha on a port of 127.0.0.1, in user space: nothing of this machine's kernel is needed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from orchestrator.lab import relay
from orchestrator.lab.guest import free_port
from orchestrator.lab.process import LabError, run

SSH_ADDRESS: Final = "10.0.2.101"
NFS_ADDRESS: Final = "10.0.2.102"
USER: Final = "dumps"
UID: Final = 61357  # no account of this machine; a file of it that is left over belongs to nobody
START_SECONDS: Final = 30
SSHD: Final = "/usr/sbin/sshd"
GANESHA: Final = "/usr/bin/ganesha.nfsd"

_SSHD_CONFIG: Final = """\
HostKey {home}/host_key
AuthorizedKeysFile .ssh/authorized_keys
AllowUsers {user}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
AllowTcpForwarding no
X11Forwarding no
PidFile none
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""
# /run and /srv are this namespace's alone; what is written below /srv/dumps and in the home directory stays.
_SESSION: Final = """\
set -e
mount --make-rprivate /
mount --bind {home}/passwd /etc/passwd
mount --bind {home}/group /etc/group
mount -t tmpfs -o mode=755 none /run
mkdir -m 755 /run/sshd
mount -t tmpfs -o mode=755 none /srv
mkdir /srv/dumps /srv/home
mount --bind {home}/dumps /srv/dumps
mount --bind {home}/login /srv/home
exec {sshd} -i -f {home}/sshd_config -E {home}/sshd.log
"""
_GANESHA_CONFIG: Final = """\
NFS_CORE_PARAM {{
    Bind_addr = 127.0.0.1;
    NFS_Port = {port};
    Protocols = 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = none;
}}
NFSv4 {{
    Grace_Period = 0;
    Lease_Lifetime = 10;
    RecoveryRoot = {home}/recovery;
    Only_Numeric_Owners = true;
}}
EXPORT {{
    Export_Id = 1;
    Path = {home}/dumps;
    Pseudo = /dumps;
    Access_Type = RW;
    Squash = None;
    SecType = sys;
    FSAL {{ Name = VFS; }}
}}
"""


class SshTarget:
    """An SSH server below ``home`` with the one account ``dumps``; what it receives is in :attr:`dumps`.

    Root only (mount namespaces). Guests reach it at :data:`SSH_ADDRESS`, as ``dumps@10.0.2.101``, where the received
    dumps are in /srv/dumps.
    """

    place: Final = f"{USER}@{SSH_ADDRESS}"
    path: Final = "/srv/dumps"

    def __init__(self, home: Path) -> None:
        if not os.path.exists(SSHD):  # noqa: PTH110
            raise LabError(f"{SSHD} is not there", where="make the ssh target",
                           fix="apt-get install --no-install-recommends openssh-server")  # fmt: skip
        self.home = home.resolve()
        self.dumps = self.home / "dumps"
        self.log = self.home / "sshd.log"
        self.authorized_keys = self.home / "login/.ssh/authorized_keys"
        self._prepare()

    @property
    def host_key(self) -> str:
        """The server's public host key: type and base64."""
        return " ".join((self.home / "host_key.pub").read_text(encoding="utf-8").split()[:2])

    def authorize(self, public_key: str) -> None:
        """Let the owner of a key log in."""
        with self.authorized_keys.open("a", encoding="utf-8") as file:
            file.write(public_key.strip() + "\n")

    def forward(self) -> str:
        """The value of QEMU's ``guestfwd=`` that shows the server to a guest."""
        return f"tcp:{SSH_ADDRESS}:22-cmd:{shlex.join(self._command()).replace(',', ',,')}"

    def client_config(self, key: Path) -> Path:
        """A file for ``ssh -F`` with which ``dumps@10.0.2.101`` is reached from this machine, host key checked."""
        known = self.home / "known_hosts"
        known.write_text(f"{SSH_ADDRESS} {self.host_key}\n", encoding="utf-8")
        path = self.home / "ssh_config"
        path.write_text(
            f"Host {SSH_ADDRESS}\n  ProxyCommand {shlex.join(self._command())}\n  IdentityFile {key}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n",
            encoding="utf-8",
        )
        return path

    def _command(self) -> list[str]:
        return ["unshare", "--mount", "sh", os.fspath(self.home / "session.sh")]

    def _prepare(self) -> None:
        ssh = self.authorized_keys.parent
        for directory in (self.dumps, ssh):
            directory.mkdir(parents=True, exist_ok=True)
        self.authorized_keys.touch(mode=0o600)
        for path in (self.dumps, ssh.parent, ssh, self.authorized_keys):
            os.chown(path, UID, UID)
        ssh.chmod(0o700)
        self.dumps.chmod(0o700)  # a vmcore is a machine's memory
        if not (self.home / "host_key").exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab dump server", "-f", self.home / "host_key"],
                stage="make the dump server's host key", timeout=60)  # fmt: skip
        values = {"home": self.home, "user": USER, "sshd": SSHD}
        accounts = (
            "root:x:0:0::/root:/bin/sh\n"
            "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
            f"{USER}:x:{UID}:{UID}::/srv/home:/bin/sh\n"
        )
        for name, text in (
            ("sshd_config", _SSHD_CONFIG.format(**values)),
            ("session.sh", _SESSION.format(**values)),
            ("passwd", accounts),
            ("group", f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n"),
        ):
            (self.home / name).write_text(text, encoding="utf-8")
            (self.home / name).chmod(0o644)


class NfsTarget:
    """NFS 4 below ``home``: a context manager that runs the server; what it receives is in :attr:`dumps`.

    Guests mount ``10.0.2.102:/dumps``.
    """

    place: Final = f"{NFS_ADDRESS}:/dumps"

    def __init__(self, home: Path) -> None:
        if not shutil.which(GANESHA):
            raise LabError(f"{GANESHA} is not there", where="make the NFS target",
                           fix="apt-get install --no-install-recommends nfs-ganesha nfs-ganesha-vfs")  # fmt: skip
        self.home = home.resolve()
        self.dumps = self.home / "dumps"
        self.log = self.home / "ganesha.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NfsTarget:
        for directory in (self.dumps, self.home / "recovery"):
            directory.mkdir(parents=True, exist_ok=True)
        self.dumps.chmod(0o700)
        self.port = free_port()
        config = self.home / "ganesha.conf"
        config.write_text(_GANESHA_CONFIG.format(home=self.home, port=self.port), encoding="utf-8")
        files: list[str | Path] = ["-f", config, "-L", self.log, "-p", self.home / "ganesha.pid"]
        argv = [GANESHA, "-F", "-N", "NIV_EVENT", *(os.fspath(word) for word in files)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                raise LabError("it does not answer", where="start the NFS server", why=self._said())
            time.sleep(0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def forward(self) -> str:
        """The value of QEMU's ``guestfwd=`` that shows the server to a guest."""
        argv = [sys.executable, "-I", relay.__file__, str(self.port)]
        return f"tcp:{NFS_ADDRESS}:2049-cmd:{shlex.join(argv).replace(',', ',,')}"

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 2).close()
        except OSError:
            return False
        return True

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-1500:] if self.log.exists() else ""
