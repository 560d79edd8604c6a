# SPDX-License-Identifier: Apache-2.0
"""Simple pictures as SVG (text, no dependency) or PNG (with Pillow, extra ``png``), from the same shapes. Sizes in pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.errors import InvalidInput
from orchestrator.resources import how_to_install

_SCALE = 2  # of PNG, so that small text stays readable


@dataclass(frozen=True)
class Box:
    """A rectangle. ``title`` is what a viewer shows when the pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str = ""


@dataclass(frozen=True)
class Label:
    """A line of text; ``y`` is its base line. ``anchor``: start or middle."""

    x: float
    y: float
    text: str
    size: float = 12
    fill: str = "#1f2328"
    bold: bool = False
    anchor: str = "start"


Shape = Box | Label


def svg(shapes: Sequence[Shape], width: float, height: float, title: str) -> str:
    """One self-contained SVG document."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
        ' font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for s in shapes:
        if isinstance(s, Box):
            tip = f"<title>{escape(s.title)}</title>" if s.title else ""
            place = f'x="{s.x:g}" y="{s.y:g}" width="{s.width:g}" height="{s.height:g}"'
            out.append(f'<rect {place} rx="3" fill="{s.fill}">{tip}</rect>')
        else:
            weight = ' font-weight="600"' if s.bold else ""
            place = f'x="{s.x:g}" y="{s.y:g}" font-size="{s.size:g}" fill="{s.fill}" text-anchor="{s.anchor}"{weight}'
            out.append(f'<text {place} pointer-events="none">{escape(s.text)}</text>')
    return "\n".join([*out, "</svg>", ""])


def png(shapes: Sequence[Shape], width: float, height: float) -> bytes:
    """The same as PNG. Raises :class:`InvalidInput` when Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415  (an extra)
    except ImportError:
        raise InvalidInput(
            "a PNG cannot be drawn",
            why="the package Pillow is not installed",
            fix=f"{how_to_install('png', 'python3-pil')}, or ask for SVG",
        ) from None
    image = Image.new("RGB", (round(width * _SCALE), round(height * _SCALE)), "#ffffff")
    draw = ImageDraw.Draw(image)
    for s in shapes:
        if isinstance(s, Box):
            corners = [s.x, s.y, s.x + s.width, s.y + s.height]
            draw.rounded_rectangle([c * _SCALE for c in corners], 3 * _SCALE, fill=s.fill)
        else:
            font = ImageFont.load_default(size=s.size * _SCALE)
            anchor = "ms" if s.anchor == "middle" else "ls"
            stroke = 0.4 * _SCALE if s.bold else 0
            draw.text((s.x * _SCALE, s.y * _SCALE), s.text, s.fill, font, anchor, stroke_width=stroke, stroke_fill=s.fill)  # fmt: skip
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
