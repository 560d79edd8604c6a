# SPDX-License-Identifier: Apache-2.0
"""The matrix for people: a table, its details, and a picture."""

from __future__ import annotations

from orchestrator.documents.decision import LAYERS
from orchestrator.documents.matrix import Matrix, MatrixCase, MatrixCell
from orchestrator.reports.picture import Box, Label, Shape
from orchestrator.reports.text import line, table

SHORT = dict(zip(LAYERS, ("notifiers", "handler", "reset"), strict=True))
_COLOURS = {
    "notifiers": "#f3c56b",
    "handler": "#8fce95",
    "reset": "#93bdec",
    "refused": "#e9b4ac",
    "disabled": "#c9ccd1",
    "": "#f3f4f6",
}
_LAYER_COLOURS = {"on": "#2f6f3a", "expected": "#2f6f3a", "kept": "#8a6d1d", "off": "#9aa0a6", "impossible": "#d5d8dc"}


def _word(case: MatrixCase | None) -> str:
    if case is None:
        return ""
    if case.outcome in ("refuse", "disable"):
        return case.outcome + "d"
    return SHORT[case.strategy]


def _label(cell: MatrixCell) -> str:
    case = cell.ordinary
    if case is None:
        return "-"
    refusing = {c.rule for c in cell.cases} - {c.rule for c in cell.cases if c.outcome != "refuse"}
    others = {_word(c) for c in cell.cases if c.rule not in refusing and c.row != "G0"} - {_word(case)}
    return ("audit: " if case.outcome == "audit" else "") + _word(case) + (" +" if others else "")


def matrix_table(matrix: Matrix, details: bool) -> None:
    """Hypervisors in rows, arches in columns; with ``details`` every case of every cell below."""
    rows = [[h, *(_label(matrix.cell(a, h)) for a in matrix.arches)] for h in _rows(matrix)]
    table(["HYPERVISOR", *matrix.arches], rows)
    line()
    names = ", ".join(f"{short} = {name}" for name, short in SHORT.items())
    line(f"the layer that an ordinary host relies on: {names}", "dim")
    line("+ other answers exist for special hosts of that kind (--details shows all); - no such platform", "dim")
    if not details:
        return
    for cell in matrix.cells:
        if cell.cases:
            line()
            line(f"{cell.arch} {cell.hypervisor}", "bold")
            table(("HOST", "RULE", "KNOWLEDGE", "ANSWER", "LAYERS"), [_detail(c) for c in cell.cases], indent=2)


def _detail(case: MatrixCase) -> tuple[str, str, str, str, str]:
    layers = " ".join(f"{SHORT[n]}={s}" for n, s in case.layers.items())
    needs = f" (needs {case.needs})" if case.needs else ""
    return case.example, case.rule, case.row, _word(case) + needs, layers or case.why


def _rows(matrix: Matrix) -> list[str]:
    return [h for h in matrix.hypervisors if any(matrix.cell(a, h).cases for a in matrix.arches)]


def _columns(matrix: Matrix) -> list[str]:
    return [a for a in matrix.arches if any(c.cases and c.arch == a for c in matrix.cells)]


def picture(matrix: Matrix) -> tuple[list[Shape], float, float, str]:
    """Shapes, width, height and title."""
    left, top, wide, high, gap = 110.0, 84.0, 132.0, 40.0, 4.0
    hypervisors, arches = _rows(matrix), _columns(matrix)
    title = f"Cleanup before the capture kernel: policy {matrix.policy}"
    shapes: list[Shape] = [Label(14, 30, title, 17, bold=True)]
    shapes.append(Label(14, 50, "Colour: the layer that an ordinary host relies on. A, B, C: state of each layer.", 12, "#57606a"))  # fmt: skip
    for column, arch in enumerate(arches):
        shapes.append(Label(left + column * (wide + gap) + wide / 2, top - 8, arch, 13, bold=True, anchor="middle"))
    for row, hypervisor in enumerate(hypervisors):
        y = top + row * (high + gap)
        shapes.append(Label(14, y + high / 2 + 4, hypervisor, 13, bold=True))
        for column, arch in enumerate(arches):
            shapes += _cell(matrix.cell(arch, hypervisor), left + column * (wide + gap), y, wide, high)
    height = top + len(hypervisors) * (high + gap) + 58
    shapes += _legend(14, height - 44)
    return shapes, max(left + len(arches) * (wide + gap) + 14, 760), height, title


def _cell(cell: MatrixCell, x: float, y: float, wide: float, high: float) -> list[Shape]:
    case = cell.ordinary
    where = f"{cell.arch} {cell.hypervisor}"
    if case is None:
        return [Box(x, y, wide, high, _COLOURS[""], f"{where}: no such platform")]
    lines = [f"{c.example}: {_word(c)} [{c.rule}, {c.row}]" for c in cell.cases]
    out: list[Shape] = [
        Box(x, y, wide, high, _COLOURS[_word(case)], "\n".join([where, *lines])),
        Label(x + 8, y + 17, _label(cell), 13, bold=True),
    ]
    for n, (letter, name) in enumerate(zip("ABC", LAYERS, strict=True)):
        if case.layers:
            state = case.layers[name]
            out.append(Box(x + 8 + n * 22, y + 22, 18, 14, _LAYER_COLOURS[state], f"{name}: {state}"))
            out.append(Label(x + 17 + n * 22, y + 33, letter, 10, "#ffffff", bold=True, anchor="middle"))
    if not case.layers:
        out.append(Label(x + 8, y + 33, f"[{case.row if case.outcome == 'refuse' else case.rule}]", 10, "#57606a"))
    return out


def _legend(x: float, y: float) -> list[Shape]:
    out: list[Shape] = []
    texts = [*((short, f"{short}: {name}") for name, short in SHORT.items()), ("refused", "refused"), ("disabled", "disabled"), ("", "no such platform")]  # fmt: skip
    at = x
    for colour, text in texts:
        out += [Box(at, y - 10, 14, 14, _COLOURS[colour]), Label(at + 19, y + 2, text, 11)]
        at += 36 + len(text) * 5.7
    at = x
    for state, text in (("on", "on or expected"), ("kept", "as the kernel sets it"), ("off", "off"), ("impossible", "impossible")):  # fmt: skip
        out += [Box(at, y + 12, 14, 14, _LAYER_COLOURS[state]), Label(at + 19, y + 24, text, 11)]
        at += 36 + len(text) * 5.7
    return out
