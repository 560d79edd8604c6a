# SPDX-License-Identifier: Apache-2.0
"""Detached signatures of policies, made and checked with OpenSSH: ``ssh-keygen -Y sign -n kdump-orchestrator``.

What is verified are the very bytes that are parsed: they go to ssh-keygen on its standard input.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from orchestrator.errors import PolicyError

NAMESPACE = "kdump-orchestrator"
_TIMEOUT = 20  # seconds


class Signers:
    """The people whose signature counts: an ``allowed_signers`` file as in ssh-keygen(1). Call it as a ``Verify``."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        if not Path(allowed).is_file():
            raise PolicyError(
                "the list of allowed signers cannot be read",
                where=allowed,
                why="it is not a file",
                fix="give a file of lines `principal key-type key` (ALLOWED SIGNERS in ssh-keygen(1))",
                id="P060",
            )
        if shutil.which("ssh-keygen") is None:
            raise PolicyError(
                "signatures cannot be checked",
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
        signature = Path(f"{path}.sig")
        how = f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY {path}"
        if not signature.is_file():
            raise PolicyError(
                "the file is not signed", where=str(path), why=f"there is no {signature}", fix=how, id="P062"
            )
        found = self._run("-Y", "find-principals", "-s", str(signature), "-f", self.allowed)
        principals = found.stdout.decode("utf-8", "replace").split("\n")
        principal = principals[0].strip()
        if found.returncode != 0 or not principal:
            why = _said(found) or "its key does not stand in the list of allowed signers, or not for this time"
            fix = f"have it signed by somebody of {self.allowed}: {how}"
            raise PolicyError("the signature is not one that counts", where=str(path), why=why, fix=fix, id="P063")
        checked = self._run("-Y", "verify", "-n", NAMESPACE, "-I", principal, "-f", self.allowed, "-s", str(signature), data=data)  # fmt: skip
        if checked.returncode != 0:
            why = _said(checked) or "the file has been changed since, or was signed for something else"
            raise PolicyError("the signature does not fit the file", where=str(path), why=why, fix=f"sign it again: {how}", id="P064")  # fmt: skip
        return principal


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
