# SPDX-License-Identifier: Apache-2.0
"""A real `kdo serve` on loopback, and a store for it."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.documents.proof import Dump, Proof
from orchestrator.engine.look import looked
from orchestrator.policy.waivers import Waivers
from orchestrator.store import runs
from orchestrator.store.hosts import keep_proof, keep_seen
from orchestrator.store.runs import Placed
from orchestrator.store.store import Store
from tests.engine.test_campaign import PIPELINE
from tests.reports.test_from_the_store import NOBODY
from tests.simulated import drifted, settled
from tests.store.test_store import entered, keep, later, seen

TOKEN = "a-token-that-nobody-guesses"
EVIL = "<img src=x onerror=alert(1)>{{ 7*7 }}</script>\"'"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def data(self) -> Any:
        """As JSON."""
        return json.loads(self.body)


class Server(NamedTuple):
    """A server and how to ask it."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, path: str, *, method: str = "GET", token: str | None = TOKEN, **headers: str) -> Answer:
        """One request with the token."""
        request = urllib.request.Request(self.url + path, method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode())

    def first_event(self, path: str) -> list[str]:
        """The lines of the first event of a stream."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            lines: list[str] = []
            while not lines or lines[-1]:
                lines.append(answer.readline().decode().strip())
        return lines


def basic(password: str) -> str:
    """What a browser sends."""
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def serving(url: str, folder: Path, *more: str, token: str = TOKEN) -> Iterator[Server]:
    """Start it, wait until it answers, and end it as systemd would."""
    file = folder / "token"
    file.touch(0o600)
    file.write_text(token + "\n")
    port = free_port()
    command = [sys.executable, "-m", "orchestrator", "serve", "--store", url, "--listen", f"127.0.0.1:{port}"]
    command += [] if "--auth" in more else ["--token-file", str(file)]
    process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        for _ in range(300):
            try:
                if server.ask("/healthz", token=None).status:
                    break
            except OSError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert token not in said


def fill(store: Store) -> str:
    """Hosts of several kinds, a proof, a waiver, and a run on its way with two waves. Returns the run's id."""
    assert isinstance(NOBODY, Waivers)
    run = entered(store, placed=[Placed(n, 0, 0) for n in ("a", "b", "c", "d", "e")])
    found = [looked(PIPELINE, NOBODY, drifted("a")), looked(PIPELINE, NOBODY, settled("b"))]
    store.database.do(lambda s: keep_seen(s, run, later(1), found))
    keep(store, run, 2, seen("c", "waived", {"n": 1}, waivers=[("W1", "dump-room", "lead", "2026-01-01")]))
    keep(
        store,
        run,
        3,
        seen("d", "unreachable", why=EVIL),
        seen("e", "failed", {"n": 2}, why="no answer", tags=("zone=a",)),
    )
    keep_proof(store.database, Proof(how="crash-test", host="b", at=later(4), outcome="dumped", kernel=found[1].kernel,
                                     state=found[1].desired, dump=Dump(size=22_900_000, complete=True, panic="sysrq")))  # fmt: skip
    runs.move(store.database, run, "done", later(5))
    return entered(store, id="20261124-0400-bbbb", kind="apply", state="running", created=later(60),
                   placed=[Placed("a", 0, 0), *(Placed(n, 1, 1) for n in ("b", "c", "d", "e"))])  # fmt: skip
