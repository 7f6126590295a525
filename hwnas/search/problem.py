"""All that a searcher is given: a space, metrics of its networks, objectives and budgets.

Making a problem refuses an impossible budget, and names the smallest value that can be reached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hwnas.networks.ops import Op
from hwnas.networks.space import SearchSpace
from hwnas.predictors.predictor import Predictor
from hwnas.pricing import elimination
from hwnas.pricing.links import Link
from hwnas.pricing.terms import UNITS, Terms, count_terms, evaluate_all, op_terms
from hwnas.settings.amounts import amount
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError, InfeasibleError

MOST_JOINED = 3  # metrics of one exact front; fronts of four costs grow too large


class Metric(Protocol):
    """What prices a population: `Terms`, or the user's own."""

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) values of (n, n_choices) genomes, to be minimised."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Which networks of a space are wanted.

    Attributes:
        space: the search space; genomes are its option indices.
        objectives: names of metrics, all minimised.
        metrics: every metric known by name, objectives or not.
        budgets: largest value that a metric may have, in its unit.
        start: (n, n_choices) networks to go on from, as the front of an earlier search; None: none.
        whole: every metric of the max network of a space that this one is part of; None: of none.
    """

    space: SearchSpace
    objectives: tuple[str, ...]
    metrics: Mapping[str, Metric]
    budgets: Mapping[str, float]
    start: np.ndarray | None = None
    whole: Mapping[str, float] | None = None

    @functools.cached_property
    def max_network(self) -> Mapping[str, float]:
        """Every metric of the max network, which shares of budgets are of: of `whole` or, without,
        of the space.
        """
        return self.whole or of_largest(self.space, self.metrics)

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n, m) objectives of (n, n_choices) genomes."""
        metrics = [self.metrics[name] for name in self.objectives]
        tables = [metric for metric in metrics if isinstance(metric, Terms)]
        if len(tables) == len(metrics):
            return evaluate_all(tables, genome)
        return np.stack([metric.evaluate(genome) for metric in metrics], axis=1)

    def violation(self, genome: np.ndarray) -> np.ndarray:
        """(n,) how far past its worst budget each genome is, relative; 0 = feasible."""
        worst = np.zeros(len(genome))
        for name, budget in self.budgets.items():
            excess = self.metrics[name].evaluate(genome) - budget
            worst = np.maximum(worst, excess / budget)
        return worst

    def predict(self, genome: np.ndarray) -> dict[str, np.ndarray]:
        """(n,) values of every metric by name."""
        return {name: metric.evaluate(genome) for name, metric in self.metrics.items()}

    @functools.cached_property
    def allowed(self) -> np.ndarray | None:
        """(P, R, sizes...) which cells a network within the peak budgets may have (a budget on a
        maximum rules out single ops); None: there is no such budget.
        """
        filters = [
            metric.within(budget)
            for name, budget in self.budgets.items()
            if isinstance(metric := self.metrics[name], Terms) and metric.largest
        ]
        return np.logical_and.reduce(filters) if filters else None

    @functools.cached_property
    def joined(self) -> dict[str, Terms]:
        """The metrics of an exact front: the objectives, then the budgeted sums, of those that
        tables price.
        """
        named = {name: self.metrics[name] for name in (*self.objectives, *self.budgets)}
        tables = {n: metric for n, metric in named.items() if isinstance(metric, Terms)}
        return {n: t for n, t in tables.items() if n in self.objectives or not t.largest}

    @property
    def why_not_exact(self) -> str:
        """Why the exact front cannot be computed; empty when it can."""
        for name in (*self.objectives, *self.budgets):
            if not isinstance(self.metrics[name], Terms):
                return f"{name} is neither a sum nor a maximum over a network's ops"
        if len(self.joined) > MOST_JOINED:
            return (
                f"{', '.join(self.joined)} are {len(self.joined)} metrics at once, at most "
                f"{MOST_JOINED} can be searched exactly"
            )
        return ""

    def exact_front(self, names: Sequence[str]) -> np.ndarray:
        """(n, n_choices) genomes that hold every non-dominated combination of two or more of the
        joined metrics within the peak budgets.

        Links are not applied and resolutions not compared, so some of the genomes may be dominated.
        Budgets on metrics that are not named do not count.
        """
        terms = [self.joined[name] for name in names]
        limits = [
            np.inf if term.link else self.budgets.get(name, np.inf)
            for name, term in zip(names, terms, strict=True)
        ]
        return elimination.front(terms, self.allowed, limits)


def of_largest(space: SearchSpace, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Every metric of a space's max network."""
    largest = space.genome([space.largest])
    return {name: float(metric.evaluate(largest)[0]) for name, metric in metrics.items()}


def metrics_of(
    space: SearchSpace,
    price: Callable[[Op], float] | None = None,
    intercept: Callable[[int], float] | None = None,
    error: Metric | Predictor | None = None,
    link: Link | None = None,
) -> dict[str, Metric]:
    """All metrics by name: exact counts, those of a table, and the error of a predictor.

    Args:
        space: the search space.
        price: latency of one op, ms; None: there is no table.
        intercept: latency of a network of a resolution (px) besides its ops, ms.
        error: predicted error, a fraction; None: there is no predictor.
        link: from the sum of intercept and ops to the latency; None: it is the sum.
    """
    metrics: dict[str, Metric] = {**count_terms(space)}
    if price is not None:
        metrics["latency_ms"] = op_terms(space, price, intercept, link)
    if error is not None:
        metrics["error"] = error.metric(space) if isinstance(error, Predictor) else error
    return metrics


def make_problem(
    space: SearchSpace,
    settings: SearchConfig,
    metrics: Mapping[str, Metric],
    whole: Mapping[str, float] | None = None,
) -> Problem:
    """The problem that search settings state.

    Args:
        space: the search space.
        settings: objectives and budgets; a share is of the max network's value.
        metrics: by name, as `metrics_of` gives them.
        whole: every metric of the max network of the space that this one is part of.

    Raises:
        ConfigError: a metric is not known, or an objective is named twice.
        InfeasibleError: a budget cannot be met; names the smallest reachable value.
    """
    for name in (*settings.objectives, *settings.budgets):
        if name not in metrics:
            source = _SOURCE.get(name, f"add it to {', '.join(metrics)}")
            raise ConfigError(f"metric {name} is not known here: {source}")
    if len(set(settings.objectives)) != len(settings.objectives):
        raise ConfigError(f"objectives {', '.join(settings.objectives)} name one metric twice")
    problem = Problem(space, tuple(settings.objectives), dict(metrics), {}, whole=whole)
    budgets: dict[str, float] = {
        name: amount(budget, problem.max_network[name]) for name, budget in settings.budgets.items()
    }
    problem = replace(problem, budgets=budgets)
    check_feasible(problem)
    return problem


_SOURCE = {
    "latency_ms": "it needs the target's table; run `hwnas profile`",
    "energy_mj": "it needs a table with energies; name a meter in the target and run "
    "`hwnas profile`",
    "error": "it needs an accuracy predictor; run `hwnas evaluate`",
}


def check_feasible(problem: Problem) -> None:
    """Refuse budgets that no network meets, each alone and the summed ones together.

    Raises:
        InfeasibleError: names the smallest reachable value, or the network nearest to all budgets.
    """
    for name, budget in problem.budgets.items():
        metric = problem.metrics[name]
        if not isinstance(metric, Terms):
            continue
        least = elimination.least(metric, None if metric.largest else problem.allowed)
        if least > budget:
            raise InfeasibleError(_too_small(problem, name, least))
    summed = [name for name in problem.budgets if name in problem.joined]
    if 2 <= len(summed) <= MOST_JOINED:
        terms = [problem.joined[name] for name in summed]
        genome = elimination.front(terms, problem.allowed)
        violation = problem.violation(genome)
        if violation.min() > 0:
            raise InfeasibleError(infeasible_text(problem, genome[[violation.argmin()]]))


def _too_small(problem: Problem, name: str, least: float) -> str:
    budget = f"budget {name} = {problem.budgets[name]:.6g}"
    if np.isinf(least):
        return (
            f"{budget} cannot be met: no network of space {problem.space.name} meets the budget "
            "of peak activation memory"
        )
    return (
        f"{budget} cannot be met by any network of space {problem.space.name}; "
        f"the smallest reachable is {least:.6g} {UNITS.get(name, '')}".rstrip()
    )


def infeasible_text(problem: Problem, genome: np.ndarray) -> str:
    """The message for budgets that were not met.

    Args:
        problem: with the budgets.
        genome: (1, n_choices) the network nearest to them.
    """
    reached = (
        f"{name} {float(problem.metrics[name].evaluate(genome)[0]):.6g} (budget {budget:.6g})"
        for name, budget in problem.budgets.items()
    )
    return f"the budgets cannot be met together; the nearest network has {', '.join(reached)}"
