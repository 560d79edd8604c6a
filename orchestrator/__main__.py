# SPDX-License-Identifier: Apache-2.0
"""Entry point of ``kdo``: the one place where an error becomes text and an exit code."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run ``kdo``. A user's mistake ends as a message with where, why and what to do; only our own faults show a traceback."""
    import click  # noqa: PLC0415

    from orchestrator.cli.main import cli  # noqa: PLC0415
    from orchestrator.errors import Exit, KdoError  # noqa: PLC0415

    try:
        code = cli.main(standalone_mode=False, prog_name="kdo")
        sys.exit(int(code or 0))
    except KdoError as e:
        from orchestrator.reports.text import clean  # noqa: PLC0415

        for problem in e.problems:
            for line in problem.lines():
                print(clean(line), file=sys.stderr)
        sys.exit(int(e.exit_code))
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.Abort:
        print("interrupted", file=sys.stderr)
        sys.exit(int(Exit.INTERRUPTED))
    except click.ClickException as e:
        e.show()
        sys.exit(int(Exit.INVALID))
    except KeyboardInterrupt:
        print("interrupted; a transaction that had begun on a host finishes or undoes itself there", file=sys.stderr)
        sys.exit(int(Exit.INTERRUPTED))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; nothing to complain about
        sys.exit(0)


if __name__ == "__main__":
    main()
