"""Ranges of a network's activations over images, for quantisation: min-max, percentile, entropy.

The network itself tells them: its file with every tensor of interest joined to one output. Of large
tensors a fixed random part enters histograms.
Source of `entropy`: Migacz 2017, "8-bit Inference with TensorRT", GTC.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from profilers.errors import VerificationError

OBSERVED = "observed"
BINS = 2048  # of the magnitudes of a tensor
PART = 4096  # elements of a tensor that enter its histogram, at most
STEP = 16  # bins between thresholds that `entropy` tries
LEAST = 1e-9  # share of a bin that stands for nothing
STEPS, HALF = 256, 128  # numbers that 8 bits tell apart, and magnitudes if they have a sign

Ranges = dict[str, tuple[float, float]]
Run = Callable[[np.ndarray], np.ndarray]  # inputs of one batch to OBSERVED


class Watched(NamedTuple):
    """A file whose only output is OBSERVED (batch, elements), and the elements of each tensor."""

    model: bytes
    sizes: dict[str, int]


def watched(model: bytes, names: Collection[str]) -> Watched:
    """A file with the tensors of some names joined to one output.

    Args:
        model: with static shapes, the batch first.
    """
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    graph = proto.graph
    known = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
    shapes = {name: [d.dim_value for d in known[name].type.tensor_type.shape.dim] for name in names}
    batch = shapes[graph.input[0].name][0] if graph.input[0].name in shapes else 0
    batch = batch or known[graph.input[0].name].type.tensor_type.shape.dim[0].dim_value
    flat = helper.make_tensor(f"{OBSERVED}/flat", TensorProto.INT64, (2,), [batch, -1])
    graph.initializer.append(flat)
    for n, name in enumerate(names):
        graph.node.append(helper.make_node("Reshape", [name, flat.name], [f"{OBSERVED}/{n}"]))
    parts = [f"{OBSERVED}/{n}" for n in range(len(names))]
    graph.node.append(helper.make_node("Concat", parts, [OBSERVED], axis=1))
    sizes = {name: int(np.prod(shape)) // batch for name, shape in shapes.items()}
    del graph.output[:]
    total = [batch, sum(sizes.values())]
    graph.output.append(helper.make_tensor_value_info(OBSERVED, TensorProto.FLOAT, total))
    return Watched(bytes(proto.SerializeToString(deterministic=True)), sizes)


def ranges(
    run: Run, batches: Callable[[], Iterable[np.ndarray]], sizes: dict[str, int], method: str,
    percentile: float,
) -> Ranges:  # fmt: skip
    """Least and largest value of each tensor that its 8 bits are to tell apart.

    Args:
        run: the file of `watched`.
        batches: gives all inputs, batch by batch; asked twice but for min-max.
        sizes: of `watched`.
        method: min-max, percentile or entropy.
        percentile: share of magnitudes that `percentile` keeps, of 100.

    Raises:
        VerificationError: an activation is not a number.
    """
    low, high = _ends(run, batches(), sizes)
    if method != "min-max":
        most = np.maximum(-low, high)
        counts = _histograms(run, batches(), list(sizes.values()), np.maximum(most, 1e-12))
        limits = [
            most[n] * (_kept(row, percentile) if method == "percentile" else _sharpest(row, signed))
            for n, (row, signed) in enumerate(zip(counts, low < 0, strict=True))
        ]
        low, high = np.maximum(low, np.negative(limits)), np.minimum(high, limits)
    return {name: (float(low[n]), float(high[n])) for n, name in enumerate(sizes)}


def _ends(
    run: Run, batches: Iterable[np.ndarray], sizes: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(tensors,) least and (tensors,) largest values."""
    starts = np.concatenate([[0], np.cumsum(list(sizes.values()))[:-1]])
    low, high = np.full(len(sizes), np.inf), np.full(len(sizes), -np.inf)
    for batch in batches:
        values = run(batch)
        low = np.minimum(low, np.minimum.reduceat(values, starts, axis=1).min(axis=0))
        high = np.maximum(high, np.maximum.reduceat(values, starts, axis=1).max(axis=0))
        strange = ~np.isfinite(low + high)
        if strange.any():
            raise VerificationError(
                f"tensor {list(sizes)[int(np.argmax(strange))]} is not a number on some training "
                "images; the network's weights are useless"
            )
    return low, high


def _histograms(
    run: Run, batches: Iterable[np.ndarray], sizes: list[int], most: np.ndarray
) -> np.ndarray:
    """(tensors, BINS) counts of magnitudes from 0 to the largest."""
    rng, start, chosen = np.random.default_rng(0), 0, []
    for size in sizes:
        part = np.arange(size) if size <= PART else np.sort(rng.choice(size, PART, replace=False))
        chosen.append(start + part)
        start += size
    columns = np.concatenate(chosen)
    owner = np.repeat(np.arange(len(sizes)), [len(part) for part in chosen])
    per_unit, counts = (BINS / most)[owner], np.zeros(len(sizes) * BINS, dtype=np.int64)
    for batch in batches:
        at = np.minimum((np.abs(run(batch)[:, columns]) * per_unit).astype(np.int64), BINS - 1)
        counts += np.bincount((owner * BINS + at).reshape(-1), minlength=len(counts))
    return counts.reshape(len(sizes), BINS)


def _kept(counts: np.ndarray, percentile: float) -> float:
    """Share of the largest magnitude below which the given percentage of values lies."""
    wanted = counts.sum() * percentile / 100
    return float(np.searchsorted(np.cumsum(counts), wanted) + 1) / BINS


def _sharpest(counts: np.ndarray, signed: bool) -> float:
    """Share of the largest magnitude that loses least information (Kullback-Leibler divergence)
    when what lies above it is cut off and the rest told apart in steps.
    """
    levels = HALF if signed else STEPS
    found = min(_divergences(counts.astype(float), levels), default=(0.0, BINS))
    return found[1] / BINS


def _divergences(counts: np.ndarray, levels: int) -> Iterator[tuple[float, int]]:
    """(divergence, bins kept) of each threshold."""
    counts = counts.copy()
    counts[0] = min(counts[0], counts[1])  # zeros of a relu are exact at any scale
    total = counts.sum()
    for kept in range(levels, BINS + 1, STEP) if total else ():
        p = counts[:kept].copy()
        p[-1] += counts[kept:].sum()
        group = np.arange(kept) * levels // kept
        used = counts[:kept] > 0
        share = np.bincount(group[used], minlength=levels)
        mass = np.bincount(group, weights=counts[:kept], minlength=levels)
        q = np.where(used, (mass / np.maximum(share, 1))[group], 0.0)
        there = p > 0
        p, q = p[there] / total, np.maximum(q[there] / max(q.sum(), LEAST), LEAST)
        yield float((p * np.log(p / q)).sum()), kept
