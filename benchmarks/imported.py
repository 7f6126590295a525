"""Tables fitted to latencies of whole networks that somebody else measured, against a ridge.

A GPU is modelled: every kernel, those of squeeze-excite too, costs its launch or its work (MACs at
a rate of its kind, bytes at a bandwidth), whichever is longer, and a network one launch more;
samples have noise. Nobody times an op. `hwnas import latencies` fits 50 networks (a fifth of them
held out, as always); the ridge regression (scikit-learn, strength by cross-validation) on MACs,
bytes and the counts of kernels sees all 50, and so does one on everything that ours sums. All
predict 200 others.

    python benchmarks/imported.py             10 seeds, two spaces, 2 minutes
    python benchmarks/imported.py --quick     1 seed, seconds
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from hwnas.networks import spaces
from hwnas.networks.ops import Op
from hwnas.networks.space import Architecture
from hwnas.tables.table import network_latency
from hwnas.tables.whole_networks import (
    KINDS,
    WORK,
    Sources,
    Timed,
    fit_networks,
    kernel_views,
    kind_of,
)
from profilers.schema import target_from_name

SPACES = {"ofa-mbv3-w10": (160, 192, 224), "ofa-proxyless-w13": (224,)}
TARGET = target_from_name("gpu.modelled.fp32.b1.t1")
N, UNSEEN = 50, 200
LAUNCH_MS, BYTES_PER_MS, NOISE = 0.005, 3e8, 0.005
MACS_PER_MS = {"depthwise": 3e8, "conv": 2e9, "pointwise": 4e9, "linear": 2e9, "squeeze": 1e9}
MOST_OVER = 1.1  # times the ridge's error


def main() -> None:
    parser = argparse.ArgumentParser(description="imported latencies against a ridge")
    parser.add_argument("--quick", action="store_true", help="one seed")
    seeds = 1 if parser.parse_args().quick else 10
    rows = [judged(name, sizes, seed) for name, sizes in SPACES.items() for seed in range(seeds)]
    print("| space | seeds | error, imported | error, ridge | ridge on all views | estimators |")
    print("|---|---|---|---|---|---|")
    bars = []
    for name in SPACES:
        mine = [row for row in rows if row["space"] == name]
        who = ("ours", "ridge", "ridge_all")
        ours, ridge, all_views = (statistics.mean(row[name] for row in mine) for name in who)
        chosen = ", ".join(sorted({row["estimator"] for row in mine}))
        print(f"| {name} | {seeds} | {ours:.2%} | {ridge:.2%} | {all_views:.2%} | {chosen} |")
        limit = MOST_OVER * ridge
        bars.append(
            {"name": f"error, {name}", "value": ours, "limit": limit, "holds": ours <= limit}
        )
    for bar in bars:
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {bar['value']:.4f}")
    setting = {"networks": N, "unseen": UNSEEN, "noise": NOISE}
    print(json.dumps({"setting": setting, "n": seeds, "spread": {"rows": rows}, "bars": bars}))


def judged(name: str, sizes: Sequence[int], seed: int) -> dict[str, Any]:
    """Mean relative errors of both for networks that neither has seen."""
    space, rng = spaces.load(name).restricted(sizes), np.random.default_rng(seed)
    drawn = space.architectures(space.sample(N + UNSEEN, rng))
    true_ms = np.array([latency_ms(arch) for arch in drawn])
    given_ms = true_ms[:N] * (1 + NOISE * np.abs(rng.normal(size=N)))
    networks = [Timed(arch, (ms,)) for arch, ms in zip(drawn[:N], given_ms.tolist(), strict=True)]
    table = fit_networks(space, TARGET, networks, Sources({}), seed)
    ours = np.array([network_latency(table, arch) for arch in drawn[N:]])
    by_ridge, by_all = (
        ridge(drawn[:N], given_ms, drawn[N:], names)
        for names in (("macs", "bytes", *KINDS), (*WORK, *KINDS))
    )
    return {
        "space": name,
        "seed": seed,
        "ours": float(np.abs(ours / true_ms[N:] - 1).mean()),
        "ridge": float(np.abs(by_ridge / true_ms[N:] - 1).mean()),
        "ridge_all": float(np.abs(by_all / true_ms[N:] - 1).mean()),
        "estimator": table.calibration["estimator"],
        "freedom": table.calibration["freedom"],
        "verdict": table.verdict,
    }


def latency_ms(arch: Architecture) -> float:
    """Of a network on the modelled GPU."""
    return LAUNCH_MS + sum(_op_ms(placed.op) for placed in arch.ops)


def _op_ms(op: Op) -> float:
    total = 0.0
    for p in op.exported:
        numbers = sum(map(math.prod, (*p.shapes, p.shape, *p.weights.values())))
        work = p.macs / MACS_PER_MS.get(kind_of(op, p), 1e9) + 4 * numbers / BYTES_PER_MS
        total += max(LAUNCH_MS, work)
    return total


def ridge(
    seen: Sequence[Architecture],
    seen_ms: np.ndarray,
    unseen: Sequence[Architecture],
    names: Sequence[str],
) -> np.ndarray:
    """(n,) ms by ridge regression on some views of whole networks."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(archs: Sequence[Architecture]) -> np.ndarray:
        rows = [kernel_views([placed.op for placed in arch.ops]) for arch in archs]
        return np.array([[row[name].sum() for name in names] for row in rows])

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-4, 3, 22)))
    model.fit(features(seen), seen_ms)
    return np.asarray(model.predict(features(unseen)))


if __name__ == "__main__":
    main()
