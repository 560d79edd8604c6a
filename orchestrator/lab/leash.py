# SPDX-License-Identifier: Apache-2.0
"""A guest does not outlive who started it, however that ends."""

from __future__ import annotations

import subprocess
from contextlib import suppress

# The pipe's other end is ours alone: it is closed when we let go (a line comes first) or when we are no more (none does).
_WATCH = 'read -r released || kill -KILL "$1"'


class Leash:
    """Kills process ``pid``, a child of ours, once this process has ended without :meth:`release`; SIGKILL included.

    Not ``PR_SET_PDEATHSIG``: that is about the thread that started the child, and guests are started again by threads
    that wait for their reset.
    """

    def __init__(self, pid: int) -> None:
        # A session of its own: what is sent to our process group must not end the one who watches.
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "kdo-leash", str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """The child has ended, or may live on."""
        with suppress(BrokenPipeError, ValueError):
            self._watcher.communicate(b"\n")
