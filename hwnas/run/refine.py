"""Stage `refine`: measure the most promising subnets and refit, until the front is stable.

If subnets come measured in a CSV, nothing can be measured here: the networks to measure next are
written to candidates.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.networks.space import Architecture
from hwnas.predictors import fit as predictor_fit
from hwnas.predictors.results import write_candidates
from hwnas.pricing.terms import Terms, count_terms, op_terms
from hwnas.run.context import Context, need
from hwnas.run.evaluate import (
    evaluate_work,
    first_rows,
    results,
    results_path,
    write_predictors,
)
from hwnas.run.folder import Work, begin, is_current, mark_current
from hwnas.run.search import usable_table
from hwnas.search.refine import Goal, Loop, Round, goal_of, propose, refine
from hwnas.tables.table import CostTable
from profilers.errors import HwnasError
from profilers.schema import read_json, sha256_file, write_json

REFINE_VERSION = 1
FORMAT = "hwnas-refine-1"


def refine_front(context: Context) -> bool:
    """Run the measure-refit loop. Returns whether anything was to do.

    Raises:
        ConfigError: the stage `evaluate` has not run.
    """
    run, config = context.run, context.config.refine
    need(run.predictor, "evaluate")
    first = evaluate_work(context)
    goals = make_goals(context)
    work = refine_work(context, first, goals)
    if _is_done(context, work):
        return False
    loop = Loop(context.space, goals, config)
    if context.config.accuracy.results:
        _suggest(context, loop)
        return True
    from hwnas.run.weights import make_evaluator, measuring  # import torch

    evaluator = make_evaluator(context)
    with measuring(context, evaluator) as measurer:

        def measure(archs: Sequence[Architecture]) -> Iterator[float]:
            return (top1 for _, top1 in measurer.measure(archs))

        rows = first_rows(context, measurer)
        rounds = _until_stable(context, refine(loop, rows, measure))
    begin(run, first, work)
    write_predictors(context, rounds[-1].measured if rounds else rows, evaluator)
    mark_current(run, first)  # the predictor of `evaluate` is this one now
    write_json(summary_path(context), _summary(context, goals, rounds))
    mark_current(run, work)
    return True


def summary_path(context: Context) -> Path:
    """File of what each round measured, and its results."""
    return context.run.root / "refine.json"


def make_goals(context: Context) -> tuple[Goal, ...]:
    """The costs that error is weighed against: the counts among the settings' objectives, latency
    on each target that has a table; MACs if there is none.
    """
    space, goals = context.space, []
    wanted = [name for name in context.config.search.objectives if name != "error"]
    counted = count_terms(space)
    for name in wanted:
        if name in counted:
            goals.append(goal_of(space, name, counted[name]))
    if "latency_ms" in wanted:
        goals += _latency_goals(context)
    if not goals:
        goals.append(goal_of(space, "macs", counted["macs"]))
    return tuple(goals)


def _latency_goals(context: Context) -> list[Goal]:
    """Latency on each target whose table can be used; unusable tables are reported."""
    goals = []
    for target in context.config.targets:
        if not context.run.table(target).exists():
            continue
        try:
            table = usable_table(context, target)
        except HwnasError as error:
            context.report.warn(f"refine leaves {target} out: {error}")
            continue
        latency = _latency(context, table)
        goals.append(goal_of(context.space, f"latency_ms on {target}", latency))
    return goals


def _latency(context: Context, table: CostTable) -> Terms:
    space = context.space
    return op_terms(space, lambda op: table.row(op.key), table.intercept, table.link)


def refine_work(context: Context, first: Work, goals: Iterable[Goal]) -> Work:
    """What decides the result of the loop."""
    run, targets = context.run, context.config.targets
    tables = [run.table(t) for t in targets if run.table(t).exists()]
    inputs = {
        "evaluate": first.inputs_hash,
        "refine": context.config.refine.model_dump(mode="json", exclude={"in_run", "first"}),
        "goals": [goal.name for goal in goals],
        "tables": [sha256_file(table) for table in tables],
    }
    csv = context.config.accuracy.results
    outputs = () if csv else (summary_path(context),)
    return Work("refine", REFINE_VERSION, inputs, outputs, first.versions)


def _is_done(context: Context, work: Work) -> bool:
    """Whether the loop ran on this and the predictor is still the one it wrote."""
    if not work.outputs or not is_current(context.run, work, context.report.note):
        return False
    written = read_json(summary_path(context), FORMAT).get("predictor")
    return bool(written == sha256_file(context.run.predictor))


def _until_stable(context: Context, rounds: Iterable[Round]) -> list[Round]:
    """The rounds up to the first one whose measured front is stable."""
    say, done, n = context.report.progress("refine"), [], 0
    for last in rounds:
        done.append(last)
        n += len(last.batch)
        say(min(n / context.config.refine.budget, 0.99), _round_text(last))
        if last.stable:
            break
    if done:
        ending = "the measured front is stable" if done[-1].stable else "the budget is spent"
        context.report.note(f"refine: {ending} after {n} more subnets; {_round_text(done[-1])}")
    say(1.0, "")
    return done


def _round_text(last: Round) -> str:
    return (
        f"{len(last.measured)} subnets measured, hypervolume {last.gain:+.2%}, errors of the batch "
        f"{last.bias * 100:+.2f} points from predicted"
    )


def _summary(context: Context, goals: Iterable[Goal], rounds: Iterable[Round]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "predictor": sha256_file(context.run.predictor),
        "goals": [
            {"name": goal.name, "reference_point": goal.reference.tolist()} for goal in goals
        ],
        "rounds": [
            {
                "measured": len(last.measured),
                "batch": [arch.id for arch in last.batch],
                "hypervolume": last.hypervolume.tolist(),
                "gain": last.gain,
                "bias": last.bias,
                "stable": last.stable,
            }
            for last in rounds
        ],
    }


def _suggest(context: Context, loop: Loop) -> None:
    """Write the networks to measure next, where the measuring is done elsewhere."""
    rows = results(context)
    seed = loop.config.seed
    fit = predictor_fit.fit_predictor(context.space, rows.items(), seed, "")
    rng = np.random.default_rng([seed, len(rows)])
    archs = propose(loop, rows, fit, loop.config.batch, rng)
    path = context.run.root / "candidates.csv"
    write_candidates(path, archs)
    context.report.note(
        f"refine: {path} holds {len(archs)} networks to measure next; add their top1 to "
        f"{results_path(context)} and run this again"
    )
