"""Stage `search`: table and predictor to front. Imports neither torch nor scikit-learn."""

from __future__ import annotations

from hwnas import searchers
from hwnas.accuracy import predictor
from hwnas.accuracy.predictor import ErrorModel
from hwnas.run_folder import Work, is_current, mark_current
from hwnas.search import front, problem
from hwnas.search.archive import Generation
from hwnas.search.problem import Problem
from hwnas.stages.context import Context, need
from hwnas.tables import table
from hwnas.tables.table import CostTable
from profilers.schema import sha256_file

SEARCH_VERSION = 1


def usable_table(context: Context, target: str) -> CostTable:
    """The table of a target, if it serves the space and is good enough or accepted by name.

    Raises:
        TableError: it does not serve; the message says why.
    """
    found = table.load_table(need(context.run.table(target), f"profile --target {target}"))
    for warning in table.check_serves(found, context.space, context.accept):
        context.report.warn(warning)
    return found


def make_problem(context: Context, costs: CostTable, error: ErrorModel) -> Problem:
    """The search problem of a target: its table, the predictor, the settings' objectives."""
    metrics = problem.metrics_of(
        context.space,
        price=lambda spec: costs.row(spec.key),
        intercept=costs.intercept,
        error=error.metric(context.space),
    )
    return problem.make_problem(context.space, context.config.search, metrics)


def search(context: Context, target: str) -> bool:
    """Search the front of a target. Returns whether anything was to do.

    Raises:
        TableError: the table does not serve, or is not accepted.
        InfeasibleError: a budget cannot be met.
    """
    run, config = context.run, context.config.search
    costs = usable_table(context, target)
    error = predictor.load(need(run.predictor, "evaluate"), context.space)
    hashes = {
        "table": sha256_file(run.table(target)),
        "predictor": sha256_file(run.predictor),
        "supernet": error.supernet_sha256,
    }
    inputs = {
        "search": config.model_dump(mode="json"),
        "hashes": hashes,
        "offered": context.space.offered(),
    }
    work = Work(f"search.{target}", SEARCH_VERSION, inputs, ())
    path = run.front(target)
    if path.exists() and is_current(run, work):
        front.load(path, context.space)  # measuring adds to it, so its hash is its own affair
        return False
    stated = make_problem(context, costs, error)
    say = context.report.progress(f"search {target}")

    def tell(state: Generation) -> None:
        share = state.generation / config.generations
        say(min(share, 0.99), f"{state.evaluations:,} networks, front {len(state.front.genome)}")

    last = searchers.search(stated, config, tell)
    found = front.make_front(target, stated, last, config, hashes, tuple(sorted(context.accept)))
    front.save(found, path)
    mark_current(run, work)
    say(1.0, "")
    return True
