# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server of the test's own: Debian's binaries, a private directory, a socket and a port of loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


def binaries() -> Path | None:
    """Where initdb and postgres are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if found:
        return found[0].parent
    return Path(str(shutil.which("initdb"))).parent if shutil.which("initdb") else None


@dataclass
class Server:
    """A server that can be stopped and started again. With ``password`` it takes nobody without it, and only over TLS."""

    folder: Path
    bin: Path
    port: int
    password: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def certificate(self) -> Path:
        """Its own, made for 127.0.0.1."""
        return self.folder / "server.crt"

    @property
    def url(self) -> str:
        """Its default database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _as(self, *command: str) -> list[str]:
        """PostgreSQL does not run as root."""
        return ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else [*command]

    def make(self) -> None:
        """The files of an empty server."""
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        command = [str(self.bin / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8",
                   "--locale=C.UTF-8"]  # fmt: skip
        done = subprocess.run(self._as(*command), capture_output=True, cwd="/", check=False)
        assert done.returncode == 0, done.stderr
        if self.password:
            self._make_tls()

    def _make_tls(self) -> None:
        """A certificate, no way in without TLS and password, and the password itself: for a moment without either."""
        key, rules = self.folder / "server.key", self.folder / "data" / "pg_hba.conf"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
             "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        key.chmod(0o600)
        if os.getuid() == 0:
            shutil.chown(key, "postgres")
        password, self.password = self.password, ""
        self.start()
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"ALTER USER postgres PASSWORD '{password}'")
        self.stop()
        self.password = password
        text = "hostssl all all 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(text)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off",
                    "max_connections": 60}  # fmt: skip
        if self.password:
            settings |= {
                "ssl": "on",
                "ssl_cert_file": str(self.certificate),
                "ssl_key_file": str(self.folder / "server.key"),
            }
        options = [x for k, v in settings.items() for x in ("-c", f"{k}={v}")]
        command = self._as(str(self.bin / "postgres"), "-D", str(self.folder / "data"), *options)
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    pass
                import psycopg

                psycopg.connect(self.url, connect_timeout=2, password=self.password or None).close()
                return
            except Exception:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self, how: str = "fast") -> None:
        """End it: fast, or immediate as a crash would."""
        command = [str(self.bin / "pg_ctl"), "-D", str(self.folder / "data"), "-m", how, "-w", "stop"]
        subprocess.run(self._as(*command), capture_output=True, cwd="/", check=False)
        if self.process is not None:
            self.process.wait(30)
            self.process = None

    def database(self, name: str) -> str:
        """The URL of a new database."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True, password=self.password or None) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url.rsplit("/", 1)[0] + f"/{name}"


@contextmanager
def server(folder: Path, password: str = "") -> Iterator[Server]:
    """A running server; skips, with the reason, where there is none to be had."""
    where = binaries()
    if where is None:
        pytest.skip("PostgreSQL is not installed (make test installs it, as root)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its parents must be open to the user that it runs as.
    place = Path("/tmp") / f"kdo-postgres-{os.getpid()}-{port}"
    place.mkdir(mode=0o700)
    found = Server(place, where, port, password)
    try:
        found.make()
        found.start()
        yield found
    finally:
        found.stop("immediate")
        shutil.rmtree(place, ignore_errors=True)
