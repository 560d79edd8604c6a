# SPDX-License-Identifier: Apache-2.0
"""``kdo completion``."""

from __future__ import annotations

import click

from orchestrator.errors import KdoError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print what makes SHELL complete verbs, options and their values.

    bash: kdo completion bash > ~/.local/share/bash-completion/completions/kdo

    zsh: kdo completion zsh > "${fpath[1]}/_kdo"

    fish: kdo completion fish > ~/.config/fish/completions/kdo.fish
    """
    from click.shell_completion import get_completion_class

    from orchestrator.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise KdoError(f"this click knows no {shell}", why="its completion is missing", fix="update click")
    # click's own bash script asks a running bash for its version; what is printed must not depend on this machine.
    script = found(cli, {}, "kdo", "_KDO_COMPLETE")
    click.echo(script.source_template % script.source_vars())
    return 0
