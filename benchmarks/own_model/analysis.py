"""Which public models pass the proof, and whether it notices a union that is left out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from hwnas.networks.slots import distinct_ops
from hwnas.networks.spaces import of_model
from hwnas.settings.errors import ConfigError, VerificationError
from hwnas.traced.analyse import analyse, analysed
from hwnas.traced.analysis import Analysis
from hwnas.traced.lowering import lowered
from hwnas.traced.program import Program, exported
from hwnas.traced.proof import LIMIT, prove
from hwnas.traced.units import Units
from own_model import zoo

TRIALS, AGAIN, FAULTS = 3, 20, 50
LEAST_FIRST, LEAST_OTHERS = 36, 6
BROKEN = ["resnet18", "mobilenetv3_small_100", "tv:shufflenet_v2_x1_0", "vit_tiny_patch16_224",
          "convnext_atto"]  # fmt: skip
LARGE = "resnet50@224"
QUICK = ["own:residual", "own:shuffled", "own:vit"]


class Row(NamedTuple):
    """What was found in one model; `error` says why it was refused."""

    model: str
    groups: int = 0
    units: int = 0
    skips: int = 0
    covered: float = 0.0
    worst: float | None = None
    same: float | None = None
    analysis_s: float = 0.0
    proof_s: float = 0.0
    error: str = ""
    keys: int = 0
    no_space: str = ""  # why it is proved but cannot be measured or exported yet

    @property
    def passed(self) -> bool:
        """Whether its proof held."""
        return self.worst is not None and self.worst <= LIMIT


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part: of all models, of some, or of small ones and few faults."""
    chosen = models or (QUICK if quick else [*zoo.FIRST, *zoo.OTHERS, LARGE])
    if (lacking := zoo.missing()) and not all(name.startswith("own:") for name in chosen):
        raise SystemExit(f"needs {' and '.join(lacking)}: {zoo.INSTALL}")
    print(f"{'model':<40}groups  units  skips  covered    worst     same  analysis   proof  keys")
    rows = [_shown(_row(name)) for name in chosen]
    faults = _faults(QUICK if quick else BROKEN, 6 if quick else FAULTS) if not models else None
    return _document(rows, faults, full=not models and not quick)


def _row(name: str) -> Row:
    model, shape = zoo.make(name)
    start = time.perf_counter()
    try:
        analysis = analyse(model, shape)
        middle = time.perf_counter()
        proof = prove(analysis, TRIALS, 0, model)
    except (ConfigError, VerificationError) as error:
        return Row(name, error=str(error))
    return Row(
        name, len(analysis.groups), sum(group.units for group in analysis.groups),
        len(analysis.branches), _covered(analysis), proof.worst, proof.same,
        middle - start, time.perf_counter() - middle, "", *_keys(analysis, shape),
    )  # fmt: skip


def _keys(analysis: Analysis, shape: tuple[int, ...]) -> tuple[int, str]:
    """How many different ops its networks are made of, or why it is no space."""
    try:
        low = lowered(analysis, 4, 8)
        space = of_model(low.family, [shape[-1]], low.bn_eps)
        return len(distinct_ops(space)), ""
    except ConfigError as error:
        return 0, str(error)


def _covered(analysis: Analysis) -> float:
    """Share of the values in the state dict that some width changes."""
    elastic = {name for group in analysis.groups for name, _ in group.weights}
    sizes = {id(t): t.numel() for n, t in analysis.tensors.items() if n in analysis.names}
    covered = {id(analysis.tensors[name]) for name in elastic if name in analysis.names}
    return sum(sizes[key] for key in covered) / sum(sizes.values())


def _shown(row: Row) -> Row:
    if row.error:
        print(f"{row.model:<40}refused: {row.error}", flush=True)
    else:
        print(
            f"{row.model:<40}{row.groups:>6}{row.units:>7}{row.skips:>7}{row.covered:>8.1%} "
            f"{row.worst:>8.1e} {row.same:>8.1e} {row.analysis_s:>8.1f}s {row.proof_s:>6.1f}s "
            f"{row.keys or row.no_space[:60]}",
            flush=True,
        )
    return row


@contextmanager
def _left_out(fault: int) -> Iterator[list[int]]:
    """Analyses leave out one union of those that unite anything; how many there have been."""
    real, seen = Units.union, [0]

    def union(units: Units, a: Any, b: Any) -> None:
        if not np.array_equal(*np.broadcast_arrays(units.find(a), units.find(b))):
            seen[0] += 1
            if seen[0] == fault:
                return
        real(units, a, b)

    with mock.patch.object(Units, "union", union):
        yield seen


def _faults(models: list[str], most: int) -> Counter[str]:
    """Outcomes of analyses that each leave out one union, drawn by a seed."""
    rng = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for number, name in enumerate(models):
        program = exported(*zoo.make(name))
        with _left_out(0) as seen:
            sound = analysed(program)
        for _ in range(most // len(models) + (number < most % len(models))):
            outcomes[_fault(program, sound, int(rng.integers(1, seen[0] + 1)))] += 1
    print(f"\nunions left out: {dict(outcomes)}")
    return outcomes


def _fault(program: Program, sound: Analysis, fault: int) -> str:
    """What becomes of an analysis without one union. Where the proof finds nothing in it, more
    random networks say whether any output changes: some unions only say what others say too.
    """
    with _left_out(fault):
        broken = analysed(program)
    if (broken.axes, broken.branches) == (sound.axes, sound.branches):
        return "changes nothing"
    try:
        prove(broken, TRIALS, 0)
    except VerificationError:
        return "noticed"
    try:
        prove(broken, AGAIN, 1)
    except VerificationError:
        return "missed"
    return "changes no output"


def _document(rows: list[Row], faults: Counter[str] | None, full: bool) -> dict[str, Any]:
    first = sum(row.passed for row in rows if row.model in zoo.FIRST)
    others = sum(row.passed for row in rows if row.model in zoo.OTHERS)
    missed = None if faults is None else faults["missed"]
    resnet = next((row.analysis_s + row.proof_s for row in rows if row.model == LARGE), None)
    return {
        "setting": f"{TRIALS} random networks of each model, float64, error at most {LIMIT}",
        "n": len(rows),
        "spread": None,
        "models": [row._asdict() for row in rows],
        "faults": None if faults is None else dict(faults),
        "bars": [
            bar("first_models_that_pass", first if full else None, ">=", LEAST_FIRST),
            bar("other_models_that_pass", others if full else None, ">=", LEAST_OTHERS),
            bar("faults_that_change_an_output_and_are_missed", missed, "<=", 0),
            bar("resnet50_224px_analysis_and_proof_s", resnet, "<=", 60),
        ],
    }


def bar(name: str, value: float | None, sense: str, limit: float) -> dict[str, Any]:
    holds = value is not None and (value >= limit if sense == ">=" else value <= limit)
    return {"name": name, "value": value, "limit": f"{sense} {limit:g}", "holds": bool(holds)}
