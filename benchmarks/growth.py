# SPDX-License-Identifier: Apache-2.0
"""docs/growth.svg: what was measured by benchmarks/fleet.py, over the number of hosts. Plain SVG, drawn by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

_W, _H, _LEFT, _TOP, _GAP = 250, 170, 58, 56, 78
_INK, _FAINT = "#1f2328", "#d0d7de"
_LINES = {"sqlite": "#0969da", "postgresql": "#bc4c00"}

Value = Callable[[dict[str, Any]], float | None]


def _driver(f: dict[str, Any]) -> float | None:
    return float(f["drive"]["cpu"] - f["drive"]["shards_cpu"]) / f["hosts"] / 2 * 1e6


def _part(phase: str, *names: str) -> Value:
    return lambda f: sum(f[phase]["parts"][n] for n in names) / f[phase]["hosts"] * 1e6


#: Title, unit, what is drawn, a limit that was aimed at.
_PICTURES: Sequence[tuple[str, str, Value, float | None]] = (
    ("Controller, for each host of a run", "µs CPU", _driver, None),
    ("Controller, peak memory", "MiB", lambda f: float(f["drive"]["peak"]), 500.0),
    ("kdo status, start to end", "ms CPU", lambda f: float(f["status"]["cpu"] * 1000), None),
    ("Worker, for each host of a sweep", "µs CPU", _part("sweep", "judging", "writing", "other"), None),
    ("Worker, for each host that is changed", "µs CPU", _part("apply", "judging", "writing", "other"), None),
    ("Store, after sweep and apply", "kB for each host", lambda f: f["bytes_after_apply"] / f["hosts"] / 1000, None),
)


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{text}</text>'


def _nice(top: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten, and not below ``top``."""
    power = 10 ** math.floor(math.log10(top))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= top * 1.05 or f == 10)


def _picture(x: float, y: float, fleets: Sequence[dict[str, Any]], picture: tuple[str, str, Value, float | None]) -> list[str]:  # fmt: skip
    title, unit, value, limit = picture
    points: dict[str, list[tuple[int, float]]] = {}
    for f in fleets:
        if (v := value(f)) is not None:
            points.setdefault(f["store"], []).append((f["hosts"], v))
    top = _nice(max([v for p in points.values() for _, v in p] + [limit or 0.0]))
    low, high = (math.log10(n([f["hosts"] for f in fleets])) for n in (min, max))

    def at(hosts: float, v: float) -> tuple[float, float]:
        return x + _W * (math.log10(hosts) - low) / ((high - low) or 1), y + _H * (1 - v / top)

    out = [_text(x, y - 26, title, 'font-weight="600"'), _text(x, y - 11, unit, 'fill="#57606a"')]
    for step in range(5):
        height, label = y + _H * (1 - step / 4), top * step / 4
        out.append(f'<line x1="{x}" x2="{x + _W}" y1="{height:.1f}" y2="{height:.1f}" stroke="{_FAINT}"/>')
        out.append(_text(x - 7, height + 4, f"{label:,.0f}" if top >= 8 else f"{label:g}", 'text-anchor="end"'))
    for power in range(round(low), round(high) + 1):
        out.append(_text(at(10**power, 0)[0], y + _H + 17, f"{10**power:,}", 'text-anchor="middle"'))
    if limit is not None:
        height = at(10**low, limit)[1]
        out.append(f'<line x1="{x}" x2="{x + _W}" y1="{height:.1f}" y2="{height:.1f}" stroke="#cf222e" stroke-dasharray="5 4"/>')  # fmt: skip
        out.append(_text(x + _W, height - 5, f"aim: {limit:g}", 'text-anchor="end" fill="#cf222e"'))
    for store, found in sorted(points.items()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(n, v) for n, v in sorted(found)))
        out.append(f'<polyline points="{path}" fill="none" stroke="{_LINES[store]}" stroke-width="2"/>')
        for hosts, v in found:
            a, b = at(hosts, v)
            out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.2" fill="{_LINES[store]}"><title>{hosts:,} hosts, {store}: {v:.3g} {unit}</title></circle>')  # fmt: skip
    return out


def draw(fleets: Sequence[dict[str, Any]]) -> str:
    """The whole picture."""
    width, height = 3 * _W + 2 * _GAP + _LEFT + 24, 2 * (_H + 84) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">',
        "<!-- Made by: python benchmarks/fleet.py with the flag for plots, from benchmarks/results/fleet.json -->",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, picture in enumerate(_PICTURES):
        column, row = number % 3, number // 3
        out += _picture(_LEFT + column * (_W + _GAP), _TOP + row * (_H + 84), fleets, picture)
    x = float(_LEFT)
    for store, colour in _LINES.items():
        out.append(f'<rect x="{x}" y="{height - 26}" width="18" height="4" fill="{colour}"/>')
        out.append(_text(x + 25, height - 20, {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[store]))
        x += 120
    out.append(_text(x, height - 20, "across: number of hosts (each step is ten times as many)", 'fill="#57606a"'))
    return "\n".join([*out, "</svg>"]) + "\n"
