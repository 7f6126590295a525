"""The front of a run as a picture for README: what the search predicts, and what was measured.

    python benchmarks/front_picture.py examples/runs/digits docs/front.svg    after `make demo`

One curve for each target: accuracy that the predictor expects over latency that the table says. A
dot is a package: accuracy on the test images with its 95 % interval (Wilson), latency measured on
the target. The last line is a JSON document: how many packages, how far they lie from the curve.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 24, 52
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea")
Z = 1.96  # of a 95 % interval


class Package(NamedTuple):
    """A package's measured latency, test accuracy with its interval, and what was predicted."""

    ms: float
    accuracy: float
    low: float
    high: float
    predicted_ms: float
    predicted_error: float


class Target(NamedTuple):
    """A target's front, (ms, accuracy) ascending, and its packages."""

    name: str
    front: list[tuple[float, float]]
    packages: list[Package]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("picture", type=Path, help="file to write, .svg")
    parser.add_argument("--target", action="append", help="only this; may be given again")
    given = parser.parse_args()
    names = given.target or [path.stem for path in sorted((given.run / "fronts").glob("*.json"))]
    targets = [read(given.run, name) for name in names]
    given.picture.write_text(drawn(targets), encoding="utf-8")
    print(json.dumps(document(targets)))


def read(run: Path, name: str) -> Target:
    """What a run holds of a target."""
    front = json.loads((run / "fronts" / f"{name}.json").read_text())
    points = sorted(
        (point["predicted"]["latency_ms"], 1 - point["predicted"]["error"])
        for point in front["points"]
    )
    manifests = sorted((run / "packages" / name).glob("*/manifest.json"))
    return Target(name, points, [package(json.loads(path.read_text())) for path in manifests])


def package(manifest: dict[str, Any]) -> Package:
    measured, predicted = manifest["measured"], manifest["predicted"]
    accuracy = measured["test_accuracy"]
    low, high = wilson(accuracy, measured["test_images"])
    ms, error = predicted["latency_ms"], predicted["error"]
    return Package(measured["latency_ms"], accuracy, low, high, ms, error)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n images."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return middle - half, middle + half


def document(targets: list[Target]) -> dict[str, Any]:
    packages = [package for target in targets for package in target.packages]
    gaps = [abs(p.ms / p.predicted_ms - 1) for p in packages]
    misses = [abs(1 - p.predicted_error - p.accuracy) for p in packages]
    return {
        "setting": [target.name for target in targets],
        "n": len(packages),
        "spread": {
            "latency_gap": [statistics.median(gaps), max(gaps)],
            "accuracy_gap": [statistics.median(misses), max(misses)],
        },
        "bars": [],
    }


class Scales(NamedTuple):
    """Data to pixels: latency on a logarithmic axis, accuracy on a linear one."""

    ms: tuple[float, float]
    accuracy: tuple[float, float]

    def x(self, ms: float) -> float:
        """Pixels from the left."""
        low, high = map(math.log, self.ms)
        return LEFT + (math.log(ms) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, accuracy: float) -> float:
        """Pixels from the top."""
        low, high = self.accuracy
        return HEIGHT - BOTTOM - (accuracy - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def drawn(targets: list[Target]) -> str:
    """The picture; readable on white and on black."""
    ms = [x for t in targets for x in [*(p[0] for p in t.front), *(p.ms for p in t.packages)]]
    shares = [s for t in targets for s in [*(p[1] for p in t.front), *(p.low for p in t.packages)]]
    top = max(p.high for t in targets for p in t.packages)
    scales = Scales((min(ms) / 1.1, max(ms) * 1.1), (min(shares) - 0.002, max(top, *shares)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Accuracy over latency: predicted fronts and measured packages" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *axes(scales),
    ]
    for number, target in enumerate(targets):
        parts += curve(target, COLOURS[number % len(COLOURS)], scales)
        parts += key(target, COLOURS[number % len(COLOURS)], number)
    return "\n".join([*parts, "</svg>\n"])


def axes(scales: Scales) -> list[str]:
    """Grid, ticks and titles."""
    parts = []
    for tick in ticks(*scales.accuracy):
        y = scales.y(tick)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#374151">'
            f"{tick:.1%}</text>"
        )
    for tick in decades(*scales.ms):
        x = scales.x(tick)
        parts.append(
            f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e5e7eb"/>'
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#374151">'
            f"{tick:g}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle" fill="#111827">'
        "latency of one inference, ms</text>"
        f'<text x="{LEFT}" y="14" fill="#111827">accuracy</text>'
    )
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers of a range."""
    steps = (step * 10.0**power for power in range(-4, 0) for step in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= 7)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range."""
    every = (step * 10.0**power for power in range(-5, 6) for step in (1, 2, 5))
    return [value for value in every if low <= value <= high]


def curve(target: Target, colour: str, scales: Scales) -> list[str]:
    """The predicted front, and a dot with its interval for each package."""
    path = "L".join(f"{scales.x(ms):.1f} {scales.y(share):.1f}" for ms, share in target.front)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for one in target.packages:
        x = scales.x(one.ms)
        parts.append(
            f'<path d="M{x:.1f} {scales.y(one.low):.1f}V{scales.y(one.high):.1f}" '
            f'stroke="{colour}" stroke-opacity="0.5"/>'
            f'<circle cx="{x:.1f}" cy="{scales.y(one.accuracy):.1f}" r="4.5" fill="{colour}" '
            'stroke="#ffffff"/>'
        )
    return parts


def key(target: Target, colour: str, number: int) -> list[str]:
    """A line of the legend, at the lower right."""
    y = HEIGHT - BOTTOM - 14 - 20 * number
    text = f"{target.name}: predicted front, measured packages"
    return [
        f'<circle cx="{WIDTH - RIGHT - 8}" cy="{y - 4}" r="4.5" fill="{colour}"/>'
        f'<text x="{WIDTH - RIGHT - 20}" y="{y}" text-anchor="end" fill="#111827">'
        f"{escape(text)}</text>"
    ]


if __name__ == "__main__":
    main()
