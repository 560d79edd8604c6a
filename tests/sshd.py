# SPDX-License-Identifier: Apache-2.0
"""A real sshd on loopback addresses, with keys of its own, for tests and for benchmarks/lanes.py. It ends by its own pid."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") or ""
MAX_LISTEN = 16  # sockets of one sshd

# As root, sshd wants /run/sshd, which only a running service has: here it is in a mount namespace of this sshd alone.
# setsid: a Ctrl-C in a benchmark is not for the sshd.
_AS_ROOT = ["setsid", "unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"', "sh"]  # fmt: skip


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair; the private half is at ``path``."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)],
        check=True,
        capture_output=True,
    )
    return path


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind((address, 0))
        return int(s.getsockname()[1])


class Sshd:
    """One sshd. ``places``: (address, port) to listen on; ``extra``: more lines for sshd_config; ``home``: a private directory."""

    def __init__(
        self, home: Path, places: Sequence[tuple[str, int]] = (), extra: str = "", host_key: Path | None = None,
        user_key: Path | None = None,
    ) -> None:  # fmt: skip
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home = home
        self.places = list(places) or [("127.0.0.1", free_port())]
        self.host_key = host_key or keygen(home / "host_key")
        self.key = user_key or keygen(home / "user_key")
        self.user = getpass.getuser()
        self.log = home / "sshd.log"
        allowed = home / "authorized_keys"
        allowed.write_text(Path(f"{self.key}.pub").read_text())
        lines = [f"ListenAddress {a}:{p}" for a, p in self.places]
        lines += [f"HostKey {self.host_key}", f"AuthorizedKeysFile {allowed}", f"PidFile {home}/pid", "UsePAM no",
                  "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
                  "PermitRootLogin prohibit-password", "MaxStartups 1000", "UseDNS no", "LogLevel INFO", "PrintMotd no"]  # fmt: skip
        config = home / "sshd_config"
        config.write_text("\n".join([*lines, extra]) + "\n")
        self.command = [SSHD, "-D", "-f", str(config), "-E", str(self.log)]
        if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
            self.command = _AS_ROOT + self.command
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.places[0][1]

    def known_hosts(self, path: Path, key: Path | None = None) -> Path:
        """A known_hosts file with the key of this sshd (or another one) for all its addresses."""
        words = Path(f"{key or self.host_key}.pub").read_text().split()
        path.write_text("".join(f"[{a}]:{p} {words[0]} {words[1]}\n" for a, p in self.places))
        return path

    def __enter__(self) -> Sshd:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        for place in self.places:
            while True:
                try:
                    socket.create_connection(place, timeout=5).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        self.__exit__()
                        raise RuntimeError(
                            f"sshd does not run: {self.log.read_text() if self.log.exists() else ''}"
                        ) from None
                    time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None
