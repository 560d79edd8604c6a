# SPDX-License-Identifier: Apache-2.0
"""Runs a page: files that it shows are written, commands are run in order, and what it shows of their output is held against what came.

A block of the language ``console`` has commands after ``$ `` (lines after ``> `` belong to the same command), each followed by what it
prints. ``…`` alone on a line stands for any lines, within a line for any text. A block with ``title="NAME"`` is a file. Comments before
a block say more: ``run: exit 2`` (one of these codes), ``run: lab`` (minutes and root), ``run: in the checkout``, ``run: not``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.markdown import Block, blocks

_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Command:
    """A command of a page and what the page shows of its output. ``where``: page:line of its block."""

    text: str
    shown: str
    codes: frozenset[int]
    where: str


@dataclass(frozen=True)
class Step:
    """A block: a file to write, or commands. ``kind``: fast | lab | checkout | not."""

    kind: str
    file: str = ""
    text: str = ""
    commands: tuple[Command, ...] = ()


def steps(page: Path) -> list[Step]:
    """What a page does, in its order. Blocks of other languages without a title are for reading only."""
    out = []
    for block in blocks(page.read_text()):
        title = _TITLE.search(block.info)
        if title:
            out.append(Step("fast", file=title[1], text=block.text))
        elif block.info.split(" ")[0] == "console":
            out.append(_commands(block, page))
    return out


def _commands(block: Block, page: Path) -> Step:
    said = [mark.removeprefix("run: ") for mark in block.marks if mark.startswith("run: ")]
    codes = next((s.split()[1:] for s in said if s.startswith("exit ")), ["0"])
    kind = next((k for k in ("lab", "not") if k in said), "checkout" if "in the checkout" in said else "fast")
    found = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        more = next((i for i, line in enumerate(lines[1:]) if not line.startswith("> ")), len(lines) - 1)
        text = "\n".join([lines[0], *(line[2:] for line in lines[1 : 1 + more])])
        shown = "".join(f"{line}\n" for line in lines[1 + more :])
        found.append(Command(text, shown, frozenset(map(int, codes)), f"{page.name}:{block.line}"))
    assert found, f"{page.name}:{block.line}: a console block without a command"
    return Step(kind, commands=tuple(found))


def pattern(shown: str) -> re.Pattern[str]:
    """What output a page's words stand for."""
    out = []
    for line in shown.splitlines():
        if line.strip() == "…":
            out.append(r"(?:[^\n]*\n)*?")
        else:
            out.append(r"[^\n]*?".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n")
    return re.compile("".join(out))


def run(command: Command, folder: Path, env: Mapping[str, str], seconds: float) -> None:
    """Run one command and compare. stderr is shown where a terminal shows it: in between."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.text], cwd=folder, env=dict(env), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=seconds, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    told = f"{command.where}: {command.text}\n--- the page shows\n{command.shown}--- came, exit code {done.returncode}\n{done.stdout}"
    assert done.returncode in command.codes, told
    came = done.stdout if done.stdout.endswith("\n") or not done.stdout else f"{done.stdout}\n"
    assert pattern(command.shown).fullmatch(came), told


def play(
    page: Path, kinds: tuple[str, ...], folder: Path, env: Mapping[str, str], seconds: float = 300
) -> Iterator[Command]:
    """Do what a page says, as far as it is of these kinds; each command is given back when it has run."""
    for step in steps(page):
        if step.file:
            (folder / step.file).write_text(step.text)
        elif step.kind in kinds:
            for command in step.commands:
                run(command, folder, env, seconds)
                yield command
