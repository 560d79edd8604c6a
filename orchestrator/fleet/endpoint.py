# SPDX-License-Identifier: Apache-2.0
"""Where and how a host of an inventory is reached: from its variables, Ansible's settings and OpenSSH's, without asking it.

What would need a guess, a password or a template raises :class:`Unsupported`: such a host is asked through Ansible.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.errors import KdoError
from orchestrator.fleet.inventory import Host
from orchestrator.fleet.runner import program
from orchestrator.fleet.sshconfig import (
    Option,
    Unsupported,
    arguments,
    expand_home,
    home,
    listed,
    resolve,
    word_set,
)

IDENTITIES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa")
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
ALGORITHMS = ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms")
MAX_JUMPS = 8
_INTERPRETER = re.compile(r"/[A-Za-z0-9._/+-]+")
_SSH_CONNECTIONS = ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh")

# Variables that are read here (several names mean the same), those that make no difference, and all others of their kind.
_NAMES = {
    "host": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "key": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "timeout": ("ansible_ssh_timeout",),
    "ssh_args": ("ansible_ssh_args",),
    "ssh_common_args": ("ansible_ssh_common_args",),
    "ssh_extra_args": ("ansible_ssh_extra_args",),
    "connection": ("ansible_connection",),
    "interpreter": ("ansible_python_interpreter",),
    "become": ("ansible_become",),
    "method": ("ansible_become_method",),
    "become_user": ("ansible_become_user", "ansible_sudo_user"),
}
_HARMLESS = word_set(
    """ansible_pipelining ansible_ssh_pipelining ansible_ssh_retries ansible_ssh_transfer_method ansible_ssh_use_tty
    ansible_control_path ansible_control_path_dir ansible_ssh_verbosity ansible_scp_extra_args ansible_sftp_extra_args
    ansible_scp_executable ansible_sftp_executable ansible_ssh_password_mechanism ansible_sshpass_prompt"""
)
_KNOWN = frozenset(name for names in _NAMES.values() for name in names) | _HARMLESS
_OF_THAT_KIND = re.compile(
    r"ansible_(ssh|become|sudo|su|private|host_key|paramiko|password|control|shell|sshpass|scp|sftp)"
)


@dataclass(frozen=True)
class Endpoint:
    """One place to connect to. ``jumps``: the way there, first hop first. ``files``: known hosts, the user's files first."""

    host: str
    port: int
    user: str
    identities: tuple[str, ...]
    known_hosts: tuple[str, ...]
    known_as: str = ""  # HostKeyAlias
    connect_timeout: float = 10
    family: str = "any"
    identities_only: bool = False
    agent: str = ""  # path of the agent's socket, empty for none
    denied_is_final: bool = True  # False: ssh has ways to log in that are not had here
    algorithms: tuple[tuple[str, str], ...] = ()
    jumps: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Route:
    """How a host is asked: where, with which Python, and whether below sudo."""

    endpoint: Endpoint
    interpreter: str = "python3"
    become: bool = False


@dataclass(frozen=True)
class Defaults:
    """What Ansible's own configuration says, by the keys of ``_NAMES``."""

    values: Mapping[str, Any]
    refused: str = ""  # why no host at all can be asked here


_CONFIG_NAMES = {"DEFAULT_REMOTE_USER": "user", "DEFAULT_PRIVATE_KEY_FILE": "key", "DEFAULT_REMOTE_PORT": "port",
                 "DEFAULT_TIMEOUT": "timeout", "DEFAULT_BECOME": "become", "DEFAULT_BECOME_METHOD": "method",
                 "DEFAULT_BECOME_USER": "become_user", "DEFAULT_TRANSPORT": "connection", "INTERPRETER_PYTHON": "interpreter"}  # fmt: skip
_PLUGIN_NAMES = {"remote_user": "user", "private_key_file": "key", "port": "port", "timeout": "timeout", "ssh_args": "ssh_args",
                 "ssh_common_args": "ssh_common_args", "ssh_extra_args": "ssh_extra_args", "become_user": "become_user"}  # fmt: skip
_PLUGIN_HARMLESS = word_set(
    """host_key_checking pipelining control_path control_path_dir reconnection_retries ssh_transfer_method use_tty
    verbosity scp_extra_args sftp_extra_args scp_executable sftp_executable"""
)  # host_key_checking: runner.environment overrides the file, and the environment is looked at by itself


def defaults(environment: Mapping[str, str] = os.environ) -> Defaults:
    """What the user's ansible.cfg and ``ANSIBLE_*`` say, asked of Ansible itself once, and only if there is any."""
    for name in ("ANSIBLE_HOST_KEY_CHECKING", "ANSIBLE_SSH_HOST_KEY_CHECKING"):
        if environment.get(name, "True").strip().lower() not in ("true", "yes", "y", "on", "1", "t", ""):
            return Defaults({}, f"{name} is off: host keys are always checked here")
    paths = (Path("ansible.cfg"), Path("~/.ansible.cfg").expanduser(), Path("/etc/ansible/ansible.cfg"))
    if not any(name.startswith("ANSIBLE_") for name in environment) and not any(p.is_file() for p in paths):
        return Defaults({})
    try:
        command = [program("ansible-config"), "dump", "--only-changed", "--format", "json", "-t", "all"]
        done = subprocess.run(command, capture_output=True, env=dict(environment), timeout=60, check=False)
        return _read_defaults(json.loads(done.stdout))
    except (KdoError, OSError, ValueError, subprocess.TimeoutExpired, AttributeError, TypeError):
        return Defaults({}, "Ansible's configuration cannot be read")


def _read_defaults(data: list[dict[str, Any]]) -> Defaults:
    values: dict[str, Any] = {}
    plugins: list[dict[str, Any]] = []
    for item in data:
        if item.get("name") in _CONFIG_NAMES:
            values[_CONFIG_NAMES[item["name"]]] = item["value"]
        for kind, wanted in (("CONNECTION_PLUGINS", "ssh"), ("BECOME_PLUGINS", "sudo")):
            for plugin in item.get(kind, []):
                plugins += plugin.get(wanted, [])
    for setting in plugins:
        name = setting["name"]
        if name in _PLUGIN_NAMES:
            values[_PLUGIN_NAMES[name]] = setting["value"]
        elif name not in _PLUGIN_HARMLESS:
            return Defaults({}, f"Ansible's setting {name}")
    return Defaults(values)


def _templated(value: object) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value)


def _variables(host: Host, given: Defaults) -> dict[str, Any]:
    """The values that count, by the keys of ``_NAMES``. Raises :class:`Unsupported`."""
    for name in host.variables:
        if name not in _KNOWN and _OF_THAT_KIND.match(name):
            raise Unsupported(f"variable {name[:60]}")
    out: dict[str, Any] = {}
    for key, names in _NAMES.items():
        found = [host.variables[name] for name in names if host.variables.get(name) is not None]
        value = found[0] if found else given.values.get(key)
        if any(other != value for other in found):
            raise Unsupported(f"{' and '.join(names)} say different things")
        if value is None or value == "":
            continue
        if _templated(value):
            raise Unsupported(f"a template in {names[0]}")
        if not isinstance(value, (str, int, float)):
            raise Unsupported(f"a value of {names[0]} that is no plain text")  # a vault value, for one
        out[key] = value
    return out


def _true(value: object) -> bool:
    return str(value).strip().lower() in ("true", "yes", "y", "on", "1", "t")


def route(host: Host, given: Defaults, *, become: bool = False) -> Route:
    """How a host is asked. Raises :class:`Unsupported` with the reason why Ansible has to do it."""
    if given.refused:
        raise Unsupported(given.refused)
    said = _variables(host, given)
    if str(said.get("connection", "ssh")) not in _SSH_CONNECTIONS:
        raise Unsupported(f"connection {str(said['connection'])[:40]}")
    interpreter = str(said.get("interpreter", "auto"))
    if interpreter.startswith("auto"):
        interpreter = "python3"
    elif not _INTERPRETER.fullmatch(interpreter):
        raise Unsupported("ansible_python_interpreter is no plain path")
    become = _true(said["become"]) if "become" in said else become
    if become and str(said.get("method", "sudo")) not in ("sudo", "ansible.builtin.sudo"):
        raise Unsupported(f"ansible_become_method {str(said['method'])[:40]}")
    if become and str(said.get("become_user", "root")) != "root":
        raise Unsupported("ansible_become_user is not root")
    return Route(_endpoint(host.name, said), interpreter, become)


def _endpoint(name: str, said: Mapping[str, Any]) -> Endpoint:
    """In the order of Ansible's own command line, since the first of two equal options counts."""
    options: list[Option] = []
    config = ""

    def args(key: str) -> None:
        nonlocal config
        more, file = arguments(str(said.get(key, "")))
        options.extend(more)
        config = config or file

    args("ssh_args")
    if "port" in said:
        options.append(("port", (str(said["port"]),)))
    if "key" in said:
        options.append(("identityfile", (os.path.expanduser(str(said["key"])),)))  # noqa: PTH111 - as Ansible does it
    if "user" in said:
        options.append(("user", (str(said["user"]),)))
    options.append(("connecttimeout", (str(said.get("timeout", 10)),)))
    args("ssh_common_args")
    args("ssh_extra_args")
    target = str(said.get("host", name))
    if target.startswith("-"):
        raise Unsupported("a host name that begins with a dash")
    return finished(target, tuple(options), config)


def finished(target: str, options: tuple[Option, ...], config: str, depth: int = 0) -> Endpoint:
    """The endpoint of a host name with these options. Raises :class:`Unsupported`."""
    found = resolve(target, options, config)
    user = found.get("user") or pwd.getpwuid(os.getuid()).pw_name
    port = _number(found.get("port", "22"), "Port", 65535)
    name = _tokens(found.get("hostname", "%h"), {"h": target})
    tokens = {"h": name, "n": target, "p": str(port), "r": user, "u": pwd.getpwuid(os.getuid()).pw_name, "d": str(home()),
              "i": str(os.getuid())}  # fmt: skip
    if found.get("stricthostkeychecking", "ask").lower() not in ("ask", "yes", "true"):
        raise Unsupported("StrictHostKeyChecking is not yes: host keys are always checked here")
    agent = found.get("identityagent", "SSH_AUTH_SOCK")
    agent = (
        os.environ.get("SSH_AUTH_SOCK", "")
        if agent == "SSH_AUTH_SOCK"
        else ""
        if agent == "none"
        else _path(agent, tokens)
    )
    only = _true(found.get("identitiesonly", "no"))
    named = tuple(_path(p, tokens) for p in found.identities if p.lower() != "none")
    known = (
        *listed(found, "userknownhostsfile", USER_KNOWN_HOSTS),
        *listed(found, "globalknownhostsfile", GLOBAL_KNOWN_HOSTS),
    )
    other_ways = _true(found.get("hostbasedauthentication", "no")) or (
        _true(found.get("gssapiauthentication", "no")) and _has_ticket()
    )
    jump = found.get("proxyjump", "none")
    return Endpoint(
        host=name,
        port=port,
        user=user,
        identities=named or tuple(str(home() / ".ssh" / n) for n in IDENTITIES if not found.identities),
        known_hosts=tuple(_path(p, tokens) for p in known),
        known_as=_tokens(found.get("hostkeyalias"), tokens),
        connect_timeout=_seconds(found.get("connecttimeout", "10")),
        family=found.get("addressfamily", "any").lower(),
        identities_only=only,
        agent="" if only else agent,
        denied_is_final=not other_ways and not (only and agent),
        algorithms=tuple((a, ",".join(found.first[a])) for a in ALGORITHMS if a in found.first),
        jumps=() if jump.lower() == "none" else _jumps(jump, config, depth),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _jumps(text: str, config: str, depth: int) -> tuple[Endpoint, ...]:
    """The hops of ``ProxyJump``: each of them as ssh itself would connect there, with the files and without our arguments."""
    if depth >= MAX_JUMPS:
        raise Unsupported("too many jump hosts")
    out: list[Endpoint] = []
    for number, hop in enumerate(text.split(",")):
        match = re.fullmatch(
            r"(?:ssh://)?(?:([^@\s/]+)@)?(\[[0-9A-Fa-f:.]+\]|[^:\s@/\[\]%-][^:\s@/\[\]%]*)(?::([0-9]{1,5}))?/?", hop
        )
        if match is None:
            raise Unsupported("a jump host that cannot be read")
        options: list[Option] = [("user", (match.group(1),))] if match.group(1) else []
        options += [("port", (match.group(3),))] if match.group(3) else []
        if number:
            options.append(("proxyjump", ("none",)))  # the hop before it is the way
        place = finished(match.group(2).strip("[]"), tuple(options), config, depth + 1)
        out += [*place.jumps, place]
    if len(out) > MAX_JUMPS:
        raise Unsupported("too many jump hosts")
    return tuple(out)


def _has_ticket() -> bool:
    """Whether Kerberos could let somebody in."""
    return "KRB5CCNAME" in os.environ or Path(f"/tmp/krb5cc_{os.getuid()}").exists()  # noqa: S108


def _tokens(text: str, tokens: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        if match.group(1) != "%" and match.group(1) not in tokens:
            raise Unsupported(f"%{match.group(1)} in an ssh option")
        return "%" if match.group(1) == "%" else tokens[match.group(1)]

    return re.sub(r"%(.?)", one, text, flags=re.S)


def _path(text: str, tokens: Mapping[str, str]) -> str:
    if "${" in text:
        raise Unsupported("an environment variable in an ssh option")
    path = _tokens(expand_home(text), tokens)
    if not path.startswith("/"):
        raise Unsupported("a relative file name in an ssh option")
    return path


def _number(text: str, what: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) <= most:
        raise Unsupported(f"{what} is no number")
    return int(text)


def _seconds(text: str) -> float:
    return 10 if text.lower() == "none" else float(_number(text, "ConnectTimeout", 86400))
