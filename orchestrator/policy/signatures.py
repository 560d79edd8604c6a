# SPDX-License-Identifier: Apache-2.0
"""Detached signatures of policies, made and checked with OpenSSH: ``ssh-keygen -Y sign -n kdump-orchestrator``.

What is verified are the very bytes that are parsed: they go to ssh-keygen on its standard input.
"""

from __future__ import annotations

import base64
import binascii
import shlex
import shutil
import subprocess
from pathlib import Path

from orchestrator.errors import PolicyError

NAMESPACE = "kdump-orchestrator"
_TIMEOUT = 20  # seconds
_MAX_SIGNATURE = 64 << 10
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"


class Signers:
    """The people whose signature counts: an ``allowed_signers`` file as in ssh-keygen(1). Call it as a ``Verify``."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        try:
            why = "" if Path(allowed).is_file() else "it is not a file"
            if not why:
                with Path(allowed).open("rb") as file:
                    file.read(1)
        except (OSError, ValueError) as e:
            why = getattr(e, "strerror", None) or str(e)
        if why:
            raise PolicyError(
                "the list of allowed signers cannot be read",
                where=allowed,
                why=why,
                fix="give a file of lines `principal key-type key` (ALLOWED SIGNERS in ssh-keygen(1))",
                id="P060",
            )
        if shutil.which("ssh-keygen") is None:
            raise PolicyError(
                "signatures cannot be checked",
                where=allowed,
                why="ssh-keygen is not installed",
                fix="install openssh-client (Debian, Ubuntu) or openssh (others)",
                id="P061",
            )

    def _run(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["ssh-keygen", *arguments], input=data, capture_output=True, timeout=_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise PolicyError("ssh-keygen did not answer", why=str(e), fix="run it by hand", id="P061") from None

    def __call__(self, path: Path, data: bytes) -> str:
        """Who has signed these bytes of the file. Raises :class:`PolicyError`."""
        signature = f"{path}.sig"
        how = f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY {shlex.quote(str(path))}"
        namespace = _namespace(_read(path, signature, how))
        if namespace is None:
            why, fix = f"{signature} holds none of ssh-keygen -Y sign", f"remove it, then: {how}"
            raise PolicyError("the signature is not one", where=str(path), why=why, fix=fix, id="P066")
        found = self._run("-Y", "find-principals", "-s", signature, "-f", self.allowed)
        # One line for each name of the first line of the list that has the key; any of them will do.
        principal = found.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
        if found.returncode != 0 or not principal:
            why = f"its key is not in {self.allowed}, or not for this day ({_said(found)})"
            fix = f"have it signed by somebody of {self.allowed}: {how}"
            raise PolicyError("signed by nobody whose signature counts", where=str(path), why=why, fix=fix, id="P063")
        if namespace != NAMESPACE:
            # Read only for a clearer message: ssh-keygen refuses it too, whatever is read here.
            what = f"the signature was made for something else: {namespace[:60]!r}"
            why = f"a signature counts only for what it was made for; policies and waivers need -n {NAMESPACE}"
            raise PolicyError(what, where=str(path), why=why, fix=f"sign it again: {how}", id="P065")
        checked = self._run(
            "-Y", "verify", "-n", NAMESPACE, "-I", principal, "-f", self.allowed, "-s", signature, data=data
        )
        if checked.returncode == 0:
            return principal
        said = _said(checked)
        if "namespace" in said:  # the key may sign, but not policies
            fix = f"let its line in {self.allowed} have namespaces={NAMESPACE!r}, or sign with another key"
            raise PolicyError("signed by nobody whose signature counts", where=str(path), why=said, fix=fix, id="P063")
        why = f"these are not the bytes that {principal} has signed ({said})"
        fix = f"look at what has changed; if it is right, sign it again: {how}"
        raise PolicyError("the file was changed after it was signed", where=str(path), why=why, fix=fix, id="P064")


def _read(path: Path, signature: str, how: str) -> bytes:
    try:
        if not Path(signature).is_file():
            why = f"there is no {signature}"
            raise PolicyError("the file is not signed", where=str(path), why=why, fix=how, id="P062")
        with Path(signature).open("rb") as file:
            return file.read(_MAX_SIGNATURE)
    except OSError as e:
        why, fix = f"{signature}: {e.strerror or e}", "make it readable"
        raise PolicyError("the signature cannot be read", where=str(path), why=why, fix=fix, id="P062") from None


def _namespace(signature: bytes) -> str | None:
    """What a signature was made for (PROTOCOL.sshsig of OpenSSH); ``None`` when it is no signature."""
    _, begun, rest = signature.partition(_BEGIN)
    armoured, ended, _ = rest.partition(_END)
    try:
        blob = base64.b64decode(b"".join(armoured.split()), validate=True)
    except binascii.Error:
        return None
    if not (begun and ended) or blob[:6] != b"SSHSIG" or len(blob) < 14:
        return None
    at = 14 + int.from_bytes(blob[10:14])  # magic, version, public key
    size = int.from_bytes(blob[at : at + 4])
    name = blob[at + 4 : at + 4 + size]
    return name.decode("utf-8", "replace") if size and len(name) == size else None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode("utf-8", "replace")
    return "ssh-keygen: " + " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
