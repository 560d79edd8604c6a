# SPDX-License-Identifier: Apache-2.0
"""A host as a tree of files, a policy with a signature, and a server on loopback with a certificate of its own authority."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.agent.bundle import create
from orchestrator.agent.look import Me, Orders
from orchestrator.documents.base import pretty
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import load
from orchestrator.policy.signatures import NAMESPACE
from tests.platforms.hosttree import HOSTS, load_host, materialise

POLICY = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: fleet}\nspec:\n  extends: [%s]\n"
WAIVERS = """\
apiVersion: kdump-orchestrator/v1
kind: Waivers
spec:
  waivers:
    - {id: w, check: target, hosts: {host: web1}, justification: nobody minds it here, approver: ann, expires: "2199-01-01"}
"""


@pytest.fixture(scope="session")
def orders() -> Orders:
    known = knowledge()
    return Orders(Pipeline(load("default", known), known))


@pytest.fixture
def tree(tmp_path) -> Me:
    """A Debian guest on QEMU; kdump is not set up."""
    root = materialise(load_host(HOSTS / "qemu-kvm-debian12.yaml"), tmp_path / "root")
    return Me("web1", (), str(root))


class Desk:
    """Where bundles are made and signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.allowed = folder / "allowed_signers"
        self.allowed.write_text("")
        self.key("ann")

    def key(self, name: str, *, allow: bool = True) -> Path:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        if allow:
            public = " ".join((self.folder / f"{name}.pub").read_text().split()[:2])
            with self.allowed.open("a") as file:
                file.write(f"{name}@example.org {public}\n")
        return path

    def sign(self, path: Path, key: str = "ann") -> Path:
        Path(f"{path}.sig").unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", self.folder / key, path]
        subprocess.run(command, check=True, capture_output=True)
        return path

    def policy(self, name: str = "policy.yaml", extends: str = "default") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(POLICY % extends)
        return path

    def bundle(self, serial: int = 1, key: str = "ann", waivers: bool = False, **more) -> Path:
        files = []
        if waivers:
            (self.folder / "w.yaml").write_text(WAIVERS)
            files = [str(self.folder / "w.yaml")]
        made = create(str(self.policy()), files, serial, more.pop("expires", None), knowledge(), **more)
        path = self.folder / "FLEET.bundle"
        path.write_bytes(pretty(made))
        return self.sign(path, key)


@pytest.fixture
def desk(tmp_path) -> Desk:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen (openssh-client)")
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(folder)


@dataclass
class Server:
    """Files that it gives, what it was asked, and answers that a test wants instead."""

    url: str = ""
    ca: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    put: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, int, str]] = field(default_factory=list)  # method, path, status, authorization
    answers: list[int] = field(default_factory=list)  # statuses of the next requests; 0 = as usual
    lie: int | None = None  # a Content-Length that is not true


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_args) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            server.asked.append((self.command, self.path, status, self.headers.get("Authorization", "")))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(server.lie if server.lie is not None and body else len(body)))
            self.end_headers()
            self.wfile.write(body)

        def planned(self) -> bool:
            status = server.answers.pop(0) if server.answers else 0
            if status:
                self.answer(status, Location=f"{server.url}/elsewhere")
            return bool(status)

        def do_GET(self) -> None:
            if self.planned():
                return
            body = server.files.get(self.path)
            if body is None:
                self.answer(404)
                return
            etag = f'"{sha256(body).hexdigest()[:16]}"'
            if self.headers.get("If-None-Match") == etag:
                self.answer(304, ETag=etag)
            else:
                self.answer(200, body, ETag=etag)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.planned():
                return
            server.put[self.path] = body
            self.answer(201)

    return Handler


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Path:
    """An authority of its own, and a certificate of it for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("ca")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "ext", "-out", "server.pem")  # fmt: skip
    return folder


@pytest.fixture
def server(authority):
    """HTTPS on loopback, until the test ends."""
    found = Server(ca=str(authority / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    found.url = f"https://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found
    listener.shutdown()
    listener.server_close()
    thread.join()
