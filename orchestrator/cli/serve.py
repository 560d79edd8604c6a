# SPDX-License-Identifier: Apache-2.0
"""``kdo serve``."""

from __future__ import annotations

import ipaddress
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import policy_options
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput
from orchestrator.resources import how_to_install

if TYPE_CHECKING:
    from orchestrator.web.guard import Guard

_PORT = 8420


@click.command()
@click.option("--listen", default=f"127.0.0.1:{_PORT}", show_default=True, metavar="ADDRESS:PORT|unix:PATH",
              help="Where to listen.")  # fmt: skip
@click.option("--auth", "how", type=click.Choice(("token", "proxy", "none")), default="token", show_default=True,
              help="Who may look: whoever has the token, whoever the proxy has let in, or anybody who reaches a loopback address.")  # fmt: skip
@click.option("--token-file", type=click.Path(dir_okay=False), metavar="FILE",
              help="File with the token, private to its owner. Default: one in the state directory, made when it is not there.")  # fmt: skip
@click.option("--proxy-header", default="X-Forwarded-User", show_default=True, metavar="NAME",
              help="With --auth proxy: the header in which the proxy says who asks.")  # fmt: skip
@click.option("--proxy-from", "proxies", multiple=True, metavar="NETWORK", default=("127.0.0.1", "::1"), show_default=True,
              help="With --auth proxy: where the proxy speaks from.")  # fmt: skip
@click.option("--name", "names", multiple=True, metavar="NAME",
              help="A name that browsers reach this server by, beside localhost and its address.")  # fmt: skip
@click.option(
    "--tls-certificate",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="For HTTPS: certificate chain, PEM.",
)
@click.option(
    "--tls-key", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="For HTTPS: its private key, PEM."
)
@policy_options()
@store_option
def command(
    listen: str, how: str, token_file: str | None, proxy_header: str, proxies: tuple[str, ...], names: tuple[str, ...],
    tls_certificate: str | None, tls_key: str | None, chosen: PolicyChoice, store_url: str | None,
) -> int:  # fmt: skip
    """Show the store in a browser and as JSON, with runs as they go on, /metrics and /healthz. Nothing can be changed there.

    The extra `web` is needed. A browser asks for a user and a password: any user, and the token. Programs send it as
    "Authorization: Bearer TOKEN". With -p the hosts' pages have the trace of the policy's rules.
    """
    try:
        import litestar  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InvalidInput("kdo serve cannot start", why=f"{error.name} is not installed",
                           fix=how_to_install("web")) from None  # fmt: skip
    address, port, path = _where(listen)
    if (tls_certificate is None) != (tls_key is None):
        raise InvalidInput("HTTPS needs both files", fix="give --tls-certificate and --tls-key")
    if not path and not _loopback(address):
        if how == "none":
            raise InvalidInput(f"anybody who reaches {address} could look", where="--auth none",
                               fix="listen on 127.0.0.1 or unix:PATH, or use --auth token")  # fmt: skip
        if how == "token" and tls_certificate is None:
            raise InvalidInput("the token would be sent in the clear", where=f"--listen {listen}", why="it is not a loopback address",
                               fix="give --tls-certificate and --tls-key, or listen on 127.0.0.1 behind a proxy that has them")  # fmt: skip
    guard = _guard(how, token_file, proxy_header, proxies, names, address if not path else "")

    from orchestrator.web.app import application
    from orchestrator.web.reader import Reader

    reader = Reader(store_url, chosen.pipeline())
    scheme = "https" if tls_certificate else "http"
    host = f"[{address}]" if ":" in address else address
    click.echo(f"{scheme}://{host}:{port}/" if not path else f"unix:{path}", err=True)

    def broken(error: Exception, where: str) -> None:
        click.echo(f"{where}: {type(error).__name__}: {error}"[:500].replace("\n", " "), err=True)

    app = application(reader, guard, broken)
    # The peer's address must stay the peer's own: what a header says of it is for nobody here.
    config = uvicorn.Config(
        app, host=address, port=port, uds=path or None, log_level="warning", access_log=False, proxy_headers=False,
        server_header=False, ssl_certfile=tls_certificate, ssl_keyfile=tls_key, timeout_graceful_shutdown=2, lifespan="on",
        limit_concurrency=500,
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit as error:  # uvicorn has said why; a port that is taken, most often
        raise InvalidInput(f"cannot listen on {listen}", fix="give another one with --listen") from error
    return Exit.OK if server.started else Exit.INTERNAL


def _where(listen: str) -> tuple[str, int, str]:
    """Address, port and path of the socket."""
    if listen.startswith("unix:"):
        return "", 0, listen.removeprefix("unix:")
    address, colon, port = listen.rpartition(":")
    address = address.strip("[]")
    try:
        if not colon or not 0 < int(port) < 65536:
            raise ValueError
        if address != "localhost":
            ipaddress.ip_address(address)
    except ValueError:
        raise InvalidInput(f"{listen!r} is no place to listen", where="--listen", why="it is neither ADDRESS:PORT nor unix:PATH",
                           fix=f"give e.g. 127.0.0.1:{_PORT}") from None  # fmt: skip
    return address, int(port), ""


def _loopback(address: str) -> bool:
    return address == "localhost" or ipaddress.ip_address(address).is_loopback


def _guard(
    how: str, token_file: str | None, header: str, proxies: tuple[str, ...], names: tuple[str, ...], address: str
) -> Guard:
    from orchestrator.web.guard import Guard

    for network in proxies:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise InvalidInput(
                f"{network!r} is no network", where="--proxy-from", why=str(error), fix="give e.g. 10.0.0.0/8"
            ) from None
    if how == "proxy" and address and _loopback(address) and sys.stderr.isatty():
        click.echo("every user of this machine can claim any name here; unix:PATH keeps them out", err=True)
    ours = {"localhost", "127.0.0.1", "[::1]", *(n.lower() for n in names)}
    if address:
        ours.add(f"[{address}]" if ":" in address else address)
    # A proxy decides itself which names it answers to.
    known = sorted(ours) if how != "proxy" else []
    token = _token(token_file) if how == "token" else ""
    return Guard(how, token, header.lower(), proxies, known)


def _token(file: str | None) -> str:
    """The token of that file; the default one is made when it is not there."""
    from orchestrator.resources import state_dir

    path = Path(file) if file else state_dir() / "web-token"
    try:
        if file is None and not path.exists():
            from orchestrator.files import write_atomically

            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, secrets.token_urlsafe(32).encode() + b"\n", 0o600)
        # systemd lets the unit's own user alone read its credentials, by a list that the mode shows as rights of the group.
        given = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", "/dev/null"))
        if path.stat().st_mode & 0o077 and not given:
            raise InvalidInput(
                "others can read the token",
                where=str(path),
                why="its permissions are too wide",
                fix=f"chmod 600 {path}",
            )
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "it is not text"
        raise InvalidInput(
            "the token cannot be read", where=str(path), why=why, fix="give a file with --token-file"
        ) from None
    if len(token) < 20:
        raise InvalidInput("the token is too short", where=str(path), why="it can be guessed",
                           fix=f"openssl rand -hex 32 > {path}")  # fmt: skip
    click.echo(f"user: any, password: the token in {path}", err=True)
    return token
