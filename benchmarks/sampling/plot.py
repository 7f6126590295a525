"""Lines with their spread as an SVG file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 760, 420, 64, 36, 44, 170
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#8d6a9f", "#e08e0b", "#4a4e4d", "#00798c", "#7a4419")


class Line(NamedTuple):
    """One contestant: x, and y as middle, low and high at each x."""

    name: str
    x: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]


def write(path: Path, title: str, axes: tuple[str, str], lines: list[Line]) -> None:
    """Draw lines over their ranges, their names at the right."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in (*line.low, *line.high)]
    low, high = min(ys), max(ys)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
    ]

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x / max(xs)) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    for share in range(5):
        x, y = max(xs) * share / 4, low + (high - low) * share / 4
        parts.append(_text(at(x, low)[0], HEIGHT - BOTTOM + 16, f"{x:,.0f}", "middle"))
        parts.append(_text(LEFT - 6, at(0, y)[1] + 4, f"{y:.2%}", "end"))
        parts.append(_path([at(0, y), at(max(xs), y)], "#dddddd", 1))
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


def _path(points: list[tuple[float, float]], colour: str, width: int) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
