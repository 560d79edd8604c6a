# SPDX-License-Identifier: Apache-2.0
"""Logins at dump servers: tried from the hosts, and keys of hosts brought to a server by the operator's own ssh."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from orchestrator.documents.decision import SSH_KEY, DumpTarget
from orchestrator.documents.facts import Facts, SshKey
from orchestrator.errors import Exit, KdoError
from orchestrator.fleet.runner import Progress, Whom, run_playbook

PUSH_SECONDS = 60
_PUBLIC = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+=*\Z")
_COMMENT = re.compile(r"[^A-Za-z0-9@._-]")
# Reads "type base64 comment" lines, adds the ones that no line of authorized_keys has yet, and says which.
_ADD = """\
set -e; umask 077; cd; mkdir -p .ssh; f=.ssh/authorized_keys; touch "$f"
while read -r kind body comment; do
  if grep -v '^[[:space:]]*#' "$f" | grep -qF -- "$kind $body"; then echo "there $body"; continue; fi
  [ -z "$(tail -c 1 "$f")" ] || echo >> "$f"
  printf 'restrict %s %s %s\\n' "$kind" "$body" "$comment" >> "$f"; echo "added $body"
done
"""


class PushError(KdoError):
    """The server could not be reached, or did not take the keys."""

    exit_code = Exit.FAILED


def key_of(facts: Facts, path: str = SSH_KEY) -> SshKey | None:
    """The key of a host that a dump would log in with."""
    return next((k for k in facts.ssh.keys or [] if k.path == path), None)


def try_logins(
    whom: Whom, wanted: Iterable[tuple[Facts, DumpTarget]], progress: Progress | None = None
) -> dict[str, str]:
    """Let each host log in at its dump server as the capture kernel will: host → "" or what went wrong."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for facts, target in wanted:
        groups.setdefault((target.place, target.key or SSH_KEY, target.path or "/var/crash"), []).append(facts.host)
    out: dict[str, str] = {}
    for (place, key, path), hosts in sorted(groups.items()):
        variables = {"kdo_place": place, "kdo_key": key, "kdo_path": path}
        answers = run_playbook("login.yml", whom, variables=variables, hosts=sorted(hosts), progress=progress)
        for host in hosts:
            answer = answers.get(host)
            if answer is None or answer.status != "ok":
                out[host] = (answer.message if answer is not None else "") or "the host did not answer"
            else:
                out[host] = _said(answer.result.get("rc"), str(answer.result.get("stderr", "")), path)
    return out


def _said(code: object, stderr: str, path: str) -> str:
    if code == 0:
        return ""
    last = [line for line in stderr.splitlines() if line.strip()][-1:]
    if code == 4:
        return f"the login works, but the account cannot write to {path} there"
    return last[0][:300] if last else f"ssh ended with status {code}"


def with_login(facts: Facts, answer: str) -> Facts:
    """The facts with what came of the login."""
    return msgspec.structs.replace(facts, ssh=msgspec.structs.replace(facts.ssh, login=answer))


def push(keys: Sequence[tuple[str, str]], account: str, config: Path | None = None) -> dict[str, bool]:
    """Put public keys (host, key) into an account's authorized_keys: host → whether it was added.

    The operator's own ssh and its configuration are used, with host key checking on and without any question. A key is
    added with ``restrict``: it runs commands, as a dump needs, and forwards nothing. Raises :class:`PushError`.
    """
    for host, key in keys:
        if not _PUBLIC.match(key):
            raise PushError("that is no public key", where=host)
    lines = "".join(f"{key} kdump@{_COMMENT.sub('-', host)}\n" for host, key in keys)
    options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"]
    argv = ["ssh", *(["-F", str(config)] if config else []), *options, "--", account, f"sh -c '{_quoted(_ADD)}'"]
    try:
        done = subprocess.run(argv, input=lines, capture_output=True, text=True, timeout=PUSH_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PushError(f"{account} does not answer", where="ssh", why=str(error)[:300]) from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        fix = f"ssh {account} true must work without any question"
        raise PushError(f"{account} did not take the keys", where="ssh", why=last[0][:300], fix=fix)
    said = {words[1]: words[0] for line in done.stdout.splitlines() if len(words := line.split()) == 2}
    missing = [host for host, key in keys if key.split()[1] not in said]
    if missing:
        raise PushError(f"{account} did not say that it has the keys", where=", ".join(missing))
    return {host: said[key.split()[1]] == "added" for host, key in keys}


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")
