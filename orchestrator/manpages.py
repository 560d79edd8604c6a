# SPDX-License-Identifier: Apache-2.0
"""Man pages of every verb, from the command line itself: ``python -m orchestrator.manpages FOLDER`` writes them.

roff by hand, in the few macros of man(7). No date: the same version gives the same bytes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator import __version__
from orchestrator.files import write_atomically

_ENVIRONMENT = (
    ("KDO_STORE", "Where the fleet is remembered: a file, or postgresql://HOST/DATABASE."),
    ("XDG_STATE_HOME", "Folder of the store and of proofs, where KDO_STORE says nothing. Default: ~/.local/state."),
    ("NO_COLOR", "Whatever it is set to: no colours."),
    ("ANSIBLE_CONFIG", "Ansible's configuration; ansible.cfg of the current directory counts, too."),
)
_CODES = (
    ("0", "Fine."), ("1", "A fault of kdo."), ("2", "Changes are pending, or a host is not as the policy wants it."),
    ("3", "Some hosts failed."), ("4", "Some hosts could not be reached."),
    ("5", "A policy, an inventory, facts, a plan or an option is not valid."),
    ("6", "The plan is stale: the host is no longer as it was when the plan was made."), ("130", "Interrupted."),
)  # fmt: skip


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page, the main one first."""
    from orchestrator.cli.main import cli  # noqa: PLC0415  (imports every verb)

    def walk(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
        context = click.Context(command, info_name=name, parent=parent)
        page = context.command_path.replace(" ", "-")
        children = []
        if isinstance(command, click.Group):
            found = [(n, command.get_command(context, n)) for n in command.list_commands(context)]
            children = [(n, c) for n, c in found if c is not None and not c.hidden]
        yield f"{page}.1", _page(context, page, [(n, c.get_short_help_str(200)) for n, c in children])
        for child, sub in children:
            yield from walk(sub, child, context)

    yield from walk(cli, "kdo", None)


def _page(context: click.Context, page: str, children: list[tuple[str, str]]) -> str:
    command = context.command
    text = inspect.cleandoc((command.help or "").partition("\f")[0])
    brief = command.get_short_help_str(200).rstrip(".")
    usage = " ".join(command.collect_usage_pieces(context))
    out = [
        f'.TH "{page.upper()}" "1" "" "kdump-orchestrator {__version__}" "kdump-orchestrator"',
        ".SH NAME", rf"{_text(page)} \- {_text(brief[:1].lower() + brief[1:])}",
        ".SH SYNOPSIS", rf"\fB{_text(context.command_path)}\fR {_text(usage)}",
        ".SH DESCRIPTION", *_paragraphs(text),
    ]  # fmt: skip
    options = [
        r
        for p in command.get_params(context)
        if isinstance(p, click.Option) and (r := p.get_help_record(context)) is not None
    ]
    if options:
        out += [".SH OPTIONS", *_tagged(options)]
    if children:
        what = "VERBS" if context.parent is None else "COMMANDS"
        out += [f".SH {what}", *_tagged([(f"{page}-{n}(1)", short) for n, short in children])]
    out += [".SH EXIT STATUS", *_tagged(_CODES), ".SH ENVIRONMENT", *_tagged(_ENVIRONMENT)]
    above = (
        [context.parent.command_path.replace(" ", "-")]
        if context.parent is not None
        else ["kexec", "makedumpfile", "ansible"]
    )
    sections = {"kexec": "8", "makedumpfile": "8"}
    out += [".SH SEE ALSO", ", ".join(rf"\fB{_text(a)}\fR({sections.get(a, '1')})" for a in above)]
    return "\n".join(out) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.replace("\b\n", ""))):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _tagged(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for tag, what in rows:
        yield from (".TP", rf"\fB{_text(tag)}\fR", _text(" ".join(what.split())) or r"\&")


def _text(text: str) -> str:
    """Text that means itself: no escape, no request at the beginning of a line, and hyphens that can be copied."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def main() -> None:
    """Write the pages into the folder that is given."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        write_atomically(folder / name, text.encode(), 0o644)


if __name__ == "__main__":
    main()
