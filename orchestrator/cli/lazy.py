# SPDX-License-Identifier: Apache-2.0
"""A command group whose commands are imported when they are used, so that ``kdo --help`` stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """``verbs``: name → one line of help, in the order of the listing. A verb's module has ``command``."""

    def __init__(
        self, *args: Any, verbs: Mapping[str, str], modules: str, heading: str = "Verbs", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = verbs
        self._modules = modules  # a pattern with the verb in it
        self._heading = heading

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        if cmd_name not in self._verbs:
            return None
        command: Any = importlib.import_module(self._modules.format(cmd_name.replace("-", "_"))).command
        return command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The listing, without importing anything."""
        with formatter.section(self._heading):
            formatter.write_dl(list(self._verbs.items()))
