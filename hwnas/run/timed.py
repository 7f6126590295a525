"""Models measured on their target, for packages and for the networks that missed a budget.

Before a budget is given up, the networks that were measured over it are measured once more, all
together: each missed it at another moment.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.measuring import remote, verdict
from hwnas.networks.space import Architecture
from hwnas.run import energy, results
from hwnas.run.context import Context, Progress, mutes
from profilers.errors import UnstableMeasurementError
from profilers.schema import Target, sha256_file, write_atomic, write_error


def costs(
    context: Context,
    target: Target,
    models: Sequence[Path],
    archs: Sequence[Architecture],
    say: Progress,
) -> list[dict[str, Any]]:
    """Latency and, with a meter, energy of models, interleaved; unknown (None) if the machine is
    too disturbed and that is accepted.

    Args:
        context: of the run.
        target: to measure on.
        models: ONNX files.
        archs: what each is.
        say: where progress goes.

    Raises:
        UnstableMeasurementError: too disturbed, and `untimed` is not accepted.
    """
    ops, settings = [arch.ops for arch in archs], context.config.profile
    try:
        timed = remote.measure_models(
            target, models, settings, lambda text, share: say(share, text), ops
        )
    except UnstableMeasurementError as error:
        if not mutes(context, "untimed", f"{target.name}: packages were not timed: {error}"):
            raise
        timed = [{"latency_ms": None, "unstable": str(error)} for _ in models]
    metered = energy.package_energies(context, target, models, ops)
    return [{**latency, **more} for latency, more in zip(timed, metered, strict=True)]


def keep_candidate(context: Context, target: str, model: Path, budgets: dict[str, float]) -> None:
    """Keep the model of a package that another one replaces because it missed its budgets."""
    sha256 = sha256_file(model)
    result = results.load(context, target).of.get(sha256)
    if result is not None and results.over(context, target, result.measured, budgets):
        write_atomic(context.run.candidate(target, sha256), model.read_bytes())


def once_more(context: Context, target_name: str, networks: Sequence[str]) -> bool:
    """Measure networks once more that missed a budget, together; whether there were any.

    Args:
        context: of the run.
        target_name: of the target.
        networks: their ids.
    """
    known = results.current(context, target_name)
    files = _models(context, target_name)
    tried = [known[name] for name in networks if name in known and not known[name].again]
    tried = [result for result in tried if result.model in files]
    if not tried:
        return False
    target, archs = context.target(target_name), [context.space.from_json(r.arch) for r in tried]
    context.report.note(
        f"{target_name}: every network within the budget was measured over it; the "
        f"{len(tried)} that were tried are measured once more, together"
    )
    say = context.report.progress(f"measure again {target_name}")
    found = costs(context, target, [files[r.model] for r in tried], archs, say)
    say(1.0, "")
    fresh = [
        replace(result, measured={**result.measured, **cost}, again=True)
        for result, cost in zip(tried, found, strict=True)
        if cost["latency_ms"] is not None and not verdict.is_disturbed(cost)
    ]
    results.add(context, target_name, results.load(context, target_name).made_by, fresh)
    return bool(fresh)


def _models(context: Context, target: str) -> dict[str, Path]:
    """Files of candidates and packages of a target, by sha256."""
    kept = context.run.candidate(target, "x").parent.glob("*.onnx")
    made = context.run.packages(target).glob("*/model.onnx")
    return {sha256_file(path): path for path in (*kept, *made)}


def forget_candidates(context: Context, target: str) -> None:
    """Remove the candidates of a target, once every package meets its budget."""
    folder = context.run.candidate(target, "x").parent
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise write_error(folder, error) from error
