"""Lines with their spread as an SVG file: what is missing to 100 %, on a logarithmic axis, because
good searchers differ in the third decimal.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 760, 420, 64, 36, 44, 170
COLOURS = (
    "#1b6ca8",
    "#d1495b",
    "#2e933c",
    "#8d6a9f",
    "#e08e0b",
    "#4a4e4d",
    "#00798c",
    "#7a4419",
    "#b5179e",
)
LEAST = 1e-5  # share missing that is drawn; less counts as this


class Line(NamedTuple):
    """One contestant: x, and shares as middle, low and high at each x."""

    name: str
    x: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]


def write(path: Path, title: str, axes: tuple[str, str], lines: list[Line]) -> None:
    """Draw what lines miss over their ranges, the best one at the bottom, names at the right."""
    xs = [x for line in lines for x in line.x]
    worst = math.ceil(max(missing(y) for line in lines for y in line.low))
    best = math.floor(min(missing(y) for line in lines for y in line.high))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
    ]

    def at(x: float, share: float) -> tuple[float, float]:
        across = LEFT + (x / max(xs)) * (WIDTH - LEFT - RIGHT)
        up = (missing(share) - best) / ((worst - best) or 1)
        return across, HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    for quarter in range(5):
        x = max(xs) * quarter / 4
        parts.append(_text(at(x, 0)[0], HEIGHT - BOTTOM + 16, f"{x:,.0f}", "middle"))
    for power in range(best, worst + 1):
        ends = [at(x, 1 - 10.0**power) for x in (0, max(xs))]
        parts.append(_text(LEFT - 6, ends[0][1] + 4, f"{100 * 10.0**power:g} %", "end"))
        parts.append(_path(ends, "#dddddd", 1))
    parts.append(_text(LEFT, HEIGHT - 8, f"{axes[0]}; up: {axes[1]}", "start"))
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        around = [at(x, y) for x, y in zip(line.x, line.high, strict=True)]
        around += [at(x, y) for x, y in zip(line.x[::-1], line.low[::-1], strict=True)]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
        parts.append(f'<polygon points="{corners}" fill="{colour}" fill-opacity="0.12"/>')
        middle = [at(x, y) for x, y in zip(line.x, line.middle, strict=True)]
        parts.append(_path(middle, colour, 2))
        parts.append(_text(WIDTH - RIGHT + 12, TOP + 12 + 18 * number, line.name, "start", colour))
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def missing(share: float) -> float:
    """Decimal logarithm of what is missing to 1."""
    return math.log10(max(1 - share, LEAST))


def _path(points: list[tuple[float, float]], colour: str, width: int) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
