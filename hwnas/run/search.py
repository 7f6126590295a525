"""Stage `search`: table and predictor to front. Imports neither torch nor scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.predictors import choice, predictor
from hwnas.predictors.predictor import ErrorModel
from hwnas.pricing import pareto
from hwnas.run import accuracy, imported
from hwnas.run.context import Context, Progress, need
from hwnas.run.folder import Work, begin, is_current, mark_current
from hwnas.search import front, problem, searchers
from hwnas.search.archive import Generation
from hwnas.search.front import Front
from hwnas.search.priced import priced
from hwnas.search.problem import Metric, Problem
from hwnas.settings import versions
from hwnas.settings.accept import TABLES
from hwnas.settings.config import SearchConfig
from hwnas.tables import energy, table
from hwnas.tables.energy_section import IMPORTED
from hwnas.tables.table import CostTable
from profilers.errors import TableError
from profilers.schema import sha256_file

SEARCH_VERSION = 1


def usable_table(context: Context, target: str) -> CostTable:
    """The table of a target, if it serves the space and is good enough or accepted by name.

    Raises:
        TableError: it does not serve; the message says why.
    """
    path = need(context.table(target), f"profile --target {target}")
    found = table.load_table(path)
    made_for = found.target["name"]
    if made_for != target:
        raise TableError(
            f"{path} holds costs of {made_for}, not of {target}; run `hwnas profile --target "
            f"{target}`"
        )
    if path != context.run.table(target):
        context.report.warn(
            f"table {target} is the one that ships with hwnas, measured on "
            f"{found.environment.get('cpu') or 'another machine'}; `hwnas profile` measures yours"
        )
    for warning in table.check_serves(found, context.space, context.accept):
        context.report.warn(warning)
    return found


def run_error(context: Context) -> ErrorModel | None:
    """The run's predictor, if there is one yet."""
    path = context.run.predictor
    return predictor.load(path, context.space) if path.exists() else None


def metrics_with(context: Context, costs: CostTable, error: ErrorModel | None) -> dict[str, Metric]:
    """Every metric of a target's networks by name; energy where the table may be used for it.

    Args:
        context: of the run; its searched space holds the networks.
        costs: the target's table.
        error: the predictor.

    Raises:
        TableError: energy is wanted, and the table gives none.
    """
    if check_energies(context, costs):
        _warn_of_energies(context, costs)
    return _priced(context, context.searched, costs, error)


def check_energies(context: Context, costs: CostTable) -> bool:
    """Whether the settings search for energy.

    Raises:
        TableError: they do, and the table gives none, or those that it gives are not accepted.
    """
    wanted = "energy_mj" in (*context.config.search.objectives, *context.config.search.budgets)
    why_not = energy.refusal(costs, context.accept)
    if wanted and why_not:
        raise TableError(why_not)
    return wanted


def max_values(context: Context, costs: CostTable, error: ErrorModel | None) -> dict[str, float]:
    """Every metric of the max network of the whole space: what shares are of, whatever
    `search.only` forbids.
    """
    return problem.of_largest(context.space, _priced(context, context.space, costs, error))


def _priced(
    context: Context, space: SearchSpace, costs: CostTable, error: ErrorModel | None
) -> dict[str, Metric]:
    return priced(space, costs, error.metric(space) if error else None, context.accept)


def _warn_of_energies(context: Context, costs: CostTable) -> None:
    """Warn of what is unknown about the energies of a search, and of what was accepted of them."""
    if IMPORTED in costs.energy["marks"]:
        name = costs.target["name"]
        context.report.warn(f"energies of {name} were imported: nothing says how good they are")
    for word in TABLES:
        if refused := energy.refusal(costs, set(TABLES) - {word}):
            context.report.warn(f"{refused.partition(';')[0]}; accepted by name")


def target_metrics(context: Context, target: str) -> tuple[dict[str, Metric], dict[str, float]]:
    """Every metric of a target's networks, of its table and the predictor in the run folder; and
    of the max network (`max_values`).

    Raises:
        ConfigError: there is no table or no predictor yet.
        TableError: the table does not serve, or is not accepted.
    """
    error = predictor.load(need(context.predictor(target), "evaluate"), context.space)
    costs = usable_table(context, target)
    return metrics_with(context, costs, error), max_values(context, costs, error)


def make_problem(context: Context, costs: CostTable, error: ErrorModel) -> Problem:
    """The search problem of a target: its table, the predictor, the settings' objectives."""
    metrics, whole = metrics_with(context, costs, error), max_values(context, costs, error)
    return problem.make_problem(context.searched, context.config.search, metrics, whole)


def search(context: Context, target: str) -> bool:
    """Search the front of a target, or go on from it. Returns whether anything was to do.

    Raises:
        TableError: the table does not serve, or is not accepted.
        InfeasibleError: a budget cannot be met.
    """
    run, config = context.run, context.config.search
    costs, work = usable_table(context, target), search_work(context, target)
    path = run.front(target)
    check_energies(context, costs)
    if not context.resume and path.exists() and is_current(run, work, context.report.note):
        front.load(path, context.space)  # measuring adds to it, so its stamp has no hash of it
        return False
    if doubts := predictor_doubts(context, [target]):
        context.report.warn(f"search of {target}: {doubts}")
    error = predictor.load(context.predictor(target), context.space)
    stated = make_problem(context, costs, error)
    if context.resume:
        stated = replace(stated, start=_earlier(context, target))
    say = context.report.progress(f"search {target}")
    last = searchers.search(stated, config, _teller(stated, config, say))
    found = front.make_front(
        target, stated, last, config, dict(work.inputs["hashes"]), tuple(sorted(context.accept))
    )
    begin(run, work)
    front.save(found, path)
    mark_current(run, work)
    say(1.0, "")
    return True


def search_work(context: Context, target: str) -> Work:
    """What the front of a target is searched from.

    Raises:
        ConfigError: there is no table or no predictor yet.
    """
    path = need(context.predictor(target), "evaluate")
    error = predictor.load(path, context.space)
    hashes = {
        "table": sha256_file(context.table(target)),
        "predictor": sha256_file(path),
        "supernet": error.supernet_sha256,
    }
    inputs = {
        "search": context.config.search.model_dump(mode="json"),
        "hashes": hashes,
        "offered": context.searched.offered(),
    }
    return Work(f"search.{target}", SEARCH_VERSION, inputs, (), versions.of("numpy"))


def _teller(stated: Problem, config: SearchConfig, say: Progress) -> Callable[[Generation], None]:
    """A function that reports how far a search is: networks priced, size and hypervolume of the
    front.
    """
    space = stated.space
    reference = front.reference_point(stated.objectives, stated.max_network, space.n_classes)

    def tell(state: Generation) -> None:
        share = state.generation / config.generations
        volume = pareto.hypervolume(state.front.costs, reference) if len(state.front) else 0.0
        words = f"front {len(state.front)}, hypervolume {volume:.5g}"
        say(min(share, 0.99), f"{state.evaluations:,} networks, {words}")

    return tell


def predictor_doubts(context: Context, targets: Iterable[str]) -> str:
    """What to warn of wherever predictors of targets are used: that one cannot rank; else empty."""
    told = [choice.doubts(each.scores) for each in _fitted(context, targets)]
    return "; ".join(filter(None, told))


def predictor_words(context: Context, targets: Iterable[str]) -> str:
    """How far the errors that the predictors of targets give are off; empty where unknown."""
    told = [
        f"within {100 * accuracy.Z * each.residual_spread:.1f} points ({each.scores['n']:.0f} "
        "subnets)"
        for each in _fitted(context, targets)
    ]
    what = "predicted errors are of validation images; 95 % of subnets outside the fit lie"
    return f"{what} {', '.join(told)}" if told else ""


def _fitted(context: Context, targets: Iterable[str]) -> list[predictor.Predictor]:
    """The predictors of targets that were fitted to subnets of this run, each once."""
    paths = dict.fromkeys(context.predictor(target) for target in targets)
    found: list[Any] = [predictor.load(p, context.space) for p in paths if p.exists()]
    return [each for each in found if getattr(each, "scores", None)]


def load_front(context: Context, target: str) -> Front:
    """The front of a target.

    Raises:
        ConfigError: it has not been searched.
    """
    path = need(context.run.front(target), f"search --target {target}")
    return front.load(path, context.space)


def warn_of_changes(context: Context, found: Front) -> None:
    """Warn of what is not what a front was searched from any more: table, predictor, supernet."""
    run, target = context.run, found.target
    files = {"table": context.table(target)}
    if files["table"].exists():  # else nothing says how its networks are written
        files["predictor"] = context.predictor(target)
    if run.supernet.exists() and not imported.imported(run):
        files["supernet"] = run.supernet
    for name, path in files.items():
        then = found.hashes.get(name)
        if then and path.exists() and sha256_file(path) != then:
            first = "`hwnas evaluate` and " if name == "supernet" else ""
            context.report.warn(
                f"{target}: its front is of an older {name}; run {first}`hwnas search --target "
                f"{target}` to make it anew"
            )


def _earlier(context: Context, target: str) -> np.ndarray:
    """(n, n_choices) networks of the front that is there.

    Raises:
        ConfigError: there is none to go on from.
    """
    space, points = context.searched, load_front(context, target).points
    return space.genome([point.arch for point in points if space.holds(point.arch)])
