"""Models measured on their target, for packages and for the networks that missed a budget.

Before a budget is given up, the networks that were measured over it are measured once more, all
together, because each missed it at a different moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.measuring import remote, verdict
from hwnas.networks.space import Architecture
from hwnas.run import energy, package, results
from hwnas.run.context import Context, Progress, mutes
from profilers.errors import UnstableMeasurementError
from profilers.schema import Target, sha256_file


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
        models: files that the target's engine loads.
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


def once_more(context: Context, target_name: str, networks: Sequence[str]) -> bool:
    """Measure the networks that missed a budget once more, together. Returns whether there were
    any; what another engine or environment measured is forgotten instead.

    Args:
        context: of the run.
        target_name: of the target.
        networks: their ids.
    """
    before = results.load(context, target_name).made_by
    if results.of_now(context, target_name).made_by != before:
        return True
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
    results.add(context, target_name, before, fresh)
    return bool(fresh)


def _models(context: Context, target: str) -> dict[str, Path]:
    """Files of packages of a target by sha256, also of those that are set aside."""
    folders = (context.run.aside(target), context.run.packages(target))
    found = [path.parent for each in folders for path in each.glob(f"*/{package.MODEL}")]
    files = [package.file_for(folder, context.target(target)) for folder in found]
    return {sha256_file(path): path for path in files}
