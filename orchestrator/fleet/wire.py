# SPDX-License-Identifier: Apache-2.0
"""AsyncSSH as the fast lane uses it: keys and known hosts are read once and shared, connections are made as ``ssh`` would.

What a connection meets is one of two: :class:`Unreachable`, which Ansible would meet as well, or :class:`Unsupported`, where
the real ``ssh`` may have ways that are not had here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh

from orchestrator.fleet.endpoint import Endpoint
from orchestrator.fleet.sshconfig import Unsupported

MAX_ERROR = 8192  # bytes kept of what a host says on stderr
WINDOW = 4 << 20  # bytes a host may send before it has to wait: a whole answer
PACKET = 1 << 17
HOP_TIMEOUT = 30  # seconds until a jump host counts as dead, for all hosts behind it
_WAYS = ("publickey",)

# The cheapest of the good ones first. Whatever a host has beside them is left to ssh.
_KEX = ["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521", "diffie-hellman-group-exchange-sha256", "diffie-hellman-group16-sha512"]  # fmt: skip
_CIPHERS = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr",
            "aes192-ctr", "aes256-ctr"]  # fmt: skip
_MACS = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"]
_SIGNATURES = ["ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
               "ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-256", "rsa-sha2-512"]  # fmt: skip
_CERTIFICATES = ["ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256-cert-v01@openssh.com",
                 "ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp521-cert-v01@openssh.com",
                 "rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com"]  # fmt: skip


class Unreachable(Exception):
    """The host cannot be reached; the text is what Ansible would say of it."""


class _Pairs(list[Any]):
    """Key pairs. Also when there are none, AsyncSSH must take this list (and the agent) and not look for keys by itself."""

    def __bool__(self) -> bool:
        return True


@dataclass
class _Keys:
    """What can be shown to a host. ``incomplete``: an identity is there that only ssh can use (a passphrase, a token)."""

    pairs: list[Any] = field(default_factory=_Pairs)
    incomplete: bool = False


class Wire:
    """Connections of one sweep. Not for use from two threads."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, ...], _Keys] = {}
        self._known: dict[str, Any] = {}
        self._files: dict[tuple[str, ...], list[Any]] = {}
        self._hops: dict[tuple[Endpoint, ...], asyncio.Task[asyncssh.SSHClientConnection]] = {}
        self._algorithms: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}

    async def connect(self, place: Endpoint) -> asyncssh.SSHClientConnection:
        """A connection that is logged in. Raises :class:`Unreachable` or :class:`Unsupported`."""
        through = await self._through(place.jumps) if place.jumps else None
        return await self._login(place, through)

    async def _through(self, jumps: tuple[Endpoint, ...]) -> asyncssh.SSHClientConnection:
        """The connection to the last of these hops, one for all hosts behind it; what it failed by stands for all of them."""
        task = self._hops.get(jumps)
        if (
            task is not None
            and task.done()
            and not task.cancelled()
            and not task.exception()
            and task.result().is_closed()
        ):
            task = None
        if task is None:
            task = self._hops[jumps] = asyncio.create_task(self._hop(jumps))
        return await asyncio.shield(task)

    async def _hop(self, jumps: tuple[Endpoint, ...]) -> asyncssh.SSHClientConnection:
        try:
            async with asyncio.timeout(HOP_TIMEOUT):
                through = await self._through(jumps[:-1]) if len(jumps) > 1 else None
                return await self._login(replace(jumps[-1], jumps=()), through)
        except TimeoutError:
            text = f"Failed to connect to the host via ssh: the jump host {jumps[-1].host} did not answer in time"
            raise Unreachable(text) from None

    def abort(self) -> None:
        """End the connections to jump hosts at once."""
        for task in self._hops.values():
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None:
                task.result().abort()
        self._hops.clear()

    async def _login(
        self, place: Endpoint, through: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        keys = self._identities(place.identities)
        where = f"{place.host} port {place.port}"
        sock = None if through is not None else await _open(place)
        known = self._known_keys(place)
        choice = self._choice(place.algorithms)
        # The kinds of key that are known come first, as in OpenSSH; the others stay, so that a host with another key is seen as such.
        kinds = {kind.decode() for key in known[0] for kind in key.sig_algorithms}
        accepted = choice["server_host_key_algs"]
        first = [a for a in accepted if a in kinds or (known[1] and a in _CERTIFICATES)]
        try:
            return await asyncssh.connect(
                place.host,
                place.port,
                sock=sock,
                tunnel=through,
                config=None,
                username=place.user,
                client_keys=keys.pairs if len(keys.pairs) or place.agent else None,
                agent_path=place.agent or None,
                known_hosts=known,
                host_key_alias=place.known_as or None,
                x509_trusted_certs=None,
                x509_trusted_cert_paths=None,
                preferred_auth=_WAYS,
                gss_kex=False,
                gss_auth=False,
                compression_algs=None,
                connect_timeout=None,
                login_timeout=0,
                **{**choice, "server_host_key_algs": first + [a for a in accepted if a not in first]},
            )
        except asyncssh.HostKeyNotVerifiable as e:
            _close(sock)
            raise Unreachable(
                f"Failed to connect to the host via ssh: Host key verification failed. ({e.reason})"
            ) from None
        except asyncssh.PermissionDenied:
            _close(sock)
            if keys.incomplete or not place.denied_is_final:
                raise Unsupported(
                    "login refused, and ssh has more ways to log in (a key with a passphrase, Kerberos)"
                ) from None
            text = f"Failed to connect to the host via ssh: {place.user}@{place.host}: Permission denied (publickey)."
            raise Unreachable(text) from None
        except asyncssh.KeyExchangeFailed:
            _close(sock)
            raise Unsupported("no common algorithm for the connection") from None
        except asyncssh.ChannelOpenError as e:
            raise Unreachable(f"Failed to connect to the host via ssh: channel 0: open failed: {e.reason}") from None
        except (asyncssh.DisconnectError, ConnectionError) as e:
            _close(sock)
            why = getattr(e, "reason", "") or str(e)
            raise Unreachable(
                f"Failed to connect to the host via ssh: Connection to {where} closed: {why[:200]}"
            ) from None
        except (OSError, ValueError, asyncssh.Error) as e:
            _close(sock)
            raise Unsupported(f"the connection failed: {type(e).__name__}") from None
        except BaseException:
            _close(sock)
            raise

    def _identities(self, files: tuple[str, ...]) -> _Keys:
        """The private keys in these files, with their certificates, read once for all hosts that use them."""
        if files not in self._keys:
            keys = self._keys[files] = _Keys()
            for name in files:
                try:
                    found = Path(name).stat()
                    if found.st_uid == os.getuid() and found.st_mode & 0o077:  # ssh does not use it, and says why
                        keys.incomplete = True
                        continue
                    key = asyncssh.read_private_key(name)
                except FileNotFoundError:
                    continue
                except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
                    keys.incomplete = True
                    continue
                with contextlib.suppress(OSError, asyncssh.KeyImportError, ValueError):
                    keys.pairs.append((key, asyncssh.read_certificate(f"{name}-cert.pub")))
                keys.pairs.append(key)
        return self._keys[files]

    def _known_keys(self, place: Endpoint) -> tuple[Any, ...]:
        """(trusted keys, trusted authorities, revoked keys) by the name that OpenSSH would look for."""
        files = self._files.get(place.known_hosts)
        if files is None:
            files = self._files[place.known_hosts] = [
                f for f in map(self._known_file, place.known_hosts) if f is not None
            ]
        name = place.known_as or place.host
        # An alias stands without a port, as in OpenSSH, and addresses beside names do not count (CheckHostIP no).
        port = None if place.known_as or place.port == 22 else place.port
        found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for file in files:
            for kind, keys in zip(found, file.match(name.lower(), "", port), strict=False):
                kind.extend(keys)
        return found

    def _known_file(self, name: str) -> Any:
        if name not in self._known:
            known: Any = asyncssh.import_known_hosts("")
            try:
                text = Path(name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                text = ""
            try:
                known.load(text)
            except ValueError:  # a line that OpenSSH would skip: one by one
                known = asyncssh.import_known_hosts("")
                for line in text.splitlines():
                    with contextlib.suppress(ValueError):
                        known.load(line)
            self._known[name] = known if text else None
        return self._known[name]

    def _choice(self, said: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        """Which algorithms may be used: ours, as far as the user's configuration allows them."""
        if said not in self._algorithms:
            wanted = dict(said)
            out: dict[str, Any] = {
                "kex_algs": _allowed(_KEX, wanted.get("kexalgorithms", "")),
                "encryption_algs": _allowed(_CIPHERS, wanted.get("ciphers", "")),
                "mac_algs": _allowed(_MACS, wanted.get("macs", "")),
                "signature_algs": _allowed(_SIGNATURES, wanted.get("pubkeyacceptedalgorithms", "")),
            }
            out["server_host_key_algs"] = _allowed(_CERTIFICATES + _SIGNATURES, wanted.get("hostkeyalgorithms", ""))
            self._algorithms[said] = out
        return self._algorithms[said]


def _allowed(ours: list[str], said: str) -> list[str]:
    """``ours`` cut down by a list of ssh_config (``a,b``, ``+a``, ``^a`` or ``-a*``). Raises :class:`Unsupported` if none is left."""
    from fnmatch import fnmatchcase  # noqa: PLC0415

    if said[:1] in ("", "+", "^"):
        return ours
    names = said.lstrip("-").split(",")
    left = [a for a in ours if any(fnmatchcase(a, n) for n in names) != said.startswith("-")]
    if not left:
        raise Unsupported("the ssh configuration allows no algorithm that is had here")
    return left


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


async def _open(place: Endpoint) -> socket.socket:
    """A connected socket; each address of the host is tried for ``connect_timeout`` seconds, as ssh does."""
    loop = asyncio.get_running_loop()
    family = _FAMILIES.get(place.family, socket.AF_UNSPEC)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(place.host, place.port, family, socket.SOCK_STREAM, flags=numeric)
    except socket.gaierror:
        try:
            found = await loop.getaddrinfo(place.host, place.port, family=family, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as e:
            why = getattr(e, "strerror", None) or "Name or service not known"
            text = f"Failed to connect to the host via ssh: ssh: Could not resolve hostname {place.host}: {why}"
            raise Unreachable(text) from None
    said = "No route to host"
    for kind, how, protocol, _, address in found:
        try:
            sock = socket.socket(kind, how, protocol)
        except OSError as e:
            raise Unsupported(f"no socket: {errno.errorcode.get(e.errno or 0, '')}") from None
        sock.setblocking(False)
        try:
            async with asyncio.timeout(place.connect_timeout):
                await loop.sock_connect(sock, address)
        except TimeoutError:
            said = "Connection timed out"
        except OSError as e:
            said = os.strerror(e.errno) if e.errno else str(e)  # asyncio has words of its own
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock.close()
    text = f"Failed to connect to the host via ssh: ssh: connect to host {place.host} port {place.port}: {said}"
    raise Unreachable(text)


class Said(asyncssh.SSHClientSession[bytes]):
    """What a command prints, up to a limit. ``done`` ends with the channel."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.output: list[bytes] = []
        self.errors = b""
        self.size = 0
        self.cut = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel: Any = None

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            self.errors = (self.errors + data)[:MAX_ERROR]
            return
        self.size += len(data)
        if self.size > self.limit:
            self.cut = True
            self.output.clear()
            self._channel.abort()
        else:
            self.output.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(
    connection: asyncssh.SSHClientConnection, command: str, text: bytes, limit: int
) -> tuple[Said, int | None]:
    """Run a command with ``text`` as its input; what it said, and its exit code. Raises :class:`Unsupported`."""
    try:
        said = Said(limit)
        channel, _ = await connection.create_session(
            lambda: said, command, encoding=None, window=WINDOW, max_pktsize=PACKET, env=(), send_env=()
        )
        # A host that ends the command before it has read everything is no error here: what it said tells why.
        with contextlib.suppress(BrokenPipeError):
            channel.write(text)
            channel.write_eof()
        await said.done
    except asyncssh.ChannelOpenError:
        raise Unsupported("the host opens no session") from None
    except (asyncssh.Error, OSError) as e:
        text_of = getattr(e, "reason", "") or str(e)
        raise Unreachable(f"Failed to connect to the host via ssh: {text_of[:200]}") from None
    return said, channel.get_exit_status()
