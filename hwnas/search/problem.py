"""All that a searcher is given: a space, metrics of its networks, objectives and budgets.

An impossible budget is refused when the problem is made, with the smallest value that can be
reached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwnas.accuracy.predictor import Predictor
from hwnas.amounts import amount
from hwnas.config import SearchConfig
from hwnas.search.cost import (
    UNITS,
    AdditiveTerms,
    Link,
    PeakTerms,
    SumTerms,
    count_terms,
    evaluate_all,
    is_sum,
    sum_terms,
)
from hwnas.search.elastic import ElasticTerms
from hwnas.search.exact import sum_front
from hwnas.search.layout import layout
from hwnas.space import SearchSpace
from profilers.errors import ConfigError, InfeasibleError
from profilers.schema import OpSpec

MOST_SUMS = 3  # metrics that are summed together exactly; fronts of four costs grow too large


class Metric(Protocol):
    """What prices a population: `AdditiveTerms`, `PeakTerms`, or the user's own."""

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) values of (n, n_choices) genomes, to be minimised."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Which networks of a space are wanted.

    Attributes:
        space: the search space; genomes are its option indices.
        objectives: names of metrics, all minimised.
        metrics: every metric known by name, objectives or not.
        budgets: largest value wanted of a metric, in its unit.
        start: (n, n_choices) networks to go on from, as the front of an earlier search; None: none.
    """

    space: SearchSpace
    objectives: tuple[str, ...]
    metrics: Mapping[str, Metric]
    budgets: Mapping[str, float]
    start: np.ndarray | None = None

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n, m) objectives of (n, n_choices) genomes."""
        metrics = [self.metrics[name] for name in self.objectives]
        tables = [metric for metric in metrics if isinstance(metric, AdditiveTerms | PeakTerms)]
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
    def allowed(self) -> np.ndarray:
        """(R, B, K, E) options that a network within the peak budgets may have: a budget on a
        largest value is a filter on ops.
        """
        plan = layout(self.space)
        options = np.broadcast_to(plan.offered, (plan.shape[1], *plan.offered.shape))
        for name, budget in self.budgets.items():
            metric = self.metrics[name]
            if isinstance(metric, PeakTerms):
                options = options & metric.within(budget)
        return options

    @functools.cached_property
    def sums(self) -> dict[str, SumTerms]:
        """The objectives, then the budgeted metrics, that are sums over a network's blocks."""
        named = {name: self.metrics[name] for name in (*self.objectives, *self.budgets)}
        return {name: metric for name, metric in named.items() if is_sum(metric)}

    @property
    def additive(self) -> dict[str, SumTerms] | None:
        """Per-block terms of everything the search depends on (peak budgets are in `allowed`), or
        None.
        """
        return None if self.why_not_additive else self.sums

    @property
    def why_not_additive(self) -> str:
        """Why the exact front cannot be computed; empty when it can."""
        for name in self.objectives:
            if name not in self.sums:
                return f"objective {name} is not a sum over a network's blocks"
        for name in self.budgets:
            if isinstance(self.metrics[name], ElasticTerms) and name not in self.sums:
                return f"budget {name} is a maximum, which filters no option of elastic widths"
            if name not in self.sums and not isinstance(self.metrics[name], PeakTerms):
                return f"budget {name} is neither a sum nor a maximum over a network's blocks"
        if len(self.sums) > MOST_SUMS:
            return (
                f"{', '.join(self.sums)} are {len(self.sums)} sums at once, at most {MOST_SUMS} "
                "can be searched exactly"
            )
        return ""


def metrics_of(
    space: SearchSpace,
    price: Callable[[OpSpec], float] | None = None,
    intercept: Callable[[int], float] | None = None,
    error: Metric | Predictor | None = None,
    link: Link | None = None,
) -> dict[str, Metric]:
    """Every metric there is, by name: the exact counts, and what a table and a predictor give.

    Args:
        space: the search space.
        price: latency of one op, ms; None: there is no table.
        intercept: latency of a network of a resolution (px) besides its ops, ms.
        error: predicted error, a fraction; None: there is no predictor.
        link: from the sum of intercept and ops to the latency; None: it is the sum.
    """
    metrics: dict[str, Metric] = {**count_terms(space)}
    if price is not None:
        metrics["latency_ms"] = sum_terms(space, price, intercept, link)
    if error is not None:
        metrics["error"] = error.additive_terms(space) if isinstance(error, Predictor) else error
    return metrics


def make_problem(
    space: SearchSpace, settings: SearchConfig, metrics: Mapping[str, Metric]
) -> Problem:
    """The problem that search settings state.

    Args:
        space: the search space.
        settings: objectives and budgets; a share is of the max network's value.
        metrics: by name, as `metrics_of` gives them.

    Raises:
        ConfigError: a metric is not known, or an objective is named twice.
        InfeasibleError: a budget cannot be met; names the smallest reachable value.
    """
    for name in (*settings.objectives, *settings.budgets):
        if name not in metrics:
            raise ConfigError(f"metric {name} is not known here: {_SOURCE.get(name, 'add it')}")
    if len(set(settings.objectives)) != len(settings.objectives):
        raise ConfigError(f"objectives {', '.join(settings.objectives)} name one metric twice")
    largest = space.genome([space.largest])
    budgets: dict[str, float] = {
        name: amount(budget, float(metrics[name].evaluate(largest)[0]))
        for name, budget in settings.budgets.items()
    }
    problem = Problem(space, tuple(settings.objectives), dict(metrics), budgets)
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
    offered = Problem(problem.space, problem.objectives, problem.metrics, {}).allowed
    for name, budget in problem.budgets.items():
        metric = problem.metrics[name]
        allowed = offered if isinstance(metric, PeakTerms) else problem.allowed
        if isinstance(metric, AdditiveTerms | PeakTerms):
            least = metric.smallest(allowed)
        elif isinstance(metric, ElasticTerms):
            least = metric.smallest()
        else:
            continue
        if least > budget:
            raise InfeasibleError(_too_small(problem, name, least))
    summed = {n: problem.sums[n] for n in problem.budgets if n in problem.sums}
    if 2 <= len(summed) <= MOST_SUMS:
        genome = sum_front(problem.space, list(summed.values()), problem.allowed)
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
