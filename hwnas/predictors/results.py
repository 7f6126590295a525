"""Accuracies of networks that were measured elsewhere, each network once, and networks to measure.

A network that was measured several times has the mean of its accuracies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hwnas.networks.space import Architecture
from profilers.errors import FileFormatError
from profilers.schema import canonical_json, write_atomic

APART = 0.02  # two measurements of one network differ by more: other weights, or other images


class Result(NamedTuple):
    """A measured network: where it stands in its file, its top-1 accuracy, a fraction, and how far
    the accuracies of its lines are apart.
    """

    lines: tuple[int, ...]
    arch: Architecture
    top1: float
    apart: float = 0.0


def averaged(path: Path, rows: Iterable[tuple[int, Architecture, float]]) -> list[Result]:
    """The networks of a file in the order they came, each once.

    Args:
        path: of the file.
        rows: line, network and top-1, a fraction.

    Raises:
        FileFormatError: accuracies of one network are more than APART from each other.
    """
    found: dict[Architecture, list[tuple[int, float]]] = {}
    for line, arch, top1 in rows:
        found.setdefault(arch, []).append((line, top1))
    out = []
    for arch, measured in found.items():
        top1s = [top1 for _, top1 in measured]
        lines = tuple(line for line, _ in measured)
        mean = math.fsum(top1s) / len(top1s)
        out.append(Result(lines, arch, mean, max(top1s) - min(top1s)))
    strange = [result for result in out if result.apart > APART]
    if strange:
        raise FileFormatError(
            f"{path}: the same network with accuracies more than {APART:.0%} apart: "
            f"{_told(strange)}; keep those of one supernet and one set of images"
        )
    return out


def repeats_text(results: Iterable[Result]) -> str:
    """Which networks were averaged; empty if none was."""
    several = [result for result in results if len(result.lines) > 1]
    if not several:
        return ""
    return f"{len(several)} networks were measured more than once and averaged: {_told(several)}"


def _told(results: Iterable[Result]) -> str:
    return listed((result.lines, result.apart) for result in results)


def listed(measured: Iterable[tuple[Sequence[int], float]]) -> str:
    """Measurements of one network, in words: their lines, and how far they are apart, a share."""
    return "; ".join(f"lines {', '.join(map(str, at))} ({gap:.2%} apart)" for at, gap in measured)


def write_candidates(path: Path, archs: Sequence[Architecture]) -> None:
    """Write networks that are to be measured as a CSV with an empty column `top1`, atomically."""
    lines = ['"id","top1","arch"\n']
    for arch in archs:
        text = canonical_json(arch.to_json()).replace('"', '""')
        lines.append(f'"{arch.id}","","{text}"\n')
    write_atomic(path, "".join(lines).encode("utf-8"))
