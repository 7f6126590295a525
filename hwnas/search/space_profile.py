"""What a space holds in each metric, and how many of its networks meet given budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing import elimination
from hwnas.pricing.terms import UNITS, Terms
from hwnas.search.problem import Metric
from hwnas.settings.amounts import amount
from profilers.errors import ConfigError

SAMPLES = 20_000  # random networks for the median and the shares


@dataclass(frozen=True)
class MetricProfile:
    """One metric over a space.

    Attributes:
        name, unit: of the metric.
        least: smallest value; exact for sums and maxima over ops, else of the sample.
        median, p90: of random networks.
        most: largest value seen, the max network's among them.
        budget: largest value wanted; None: none.
        within: share of random networks that meet the budget; None: no budget.
    """

    name: str
    unit: str
    least: float
    median: float
    p90: float
    most: float
    budget: float | None
    within: float | None

    @property
    def reachable(self) -> bool:
        """Whether some network meets the budget."""
        return self.budget is None or self.least <= self.budget


def profile(
    space: SearchSpace,
    metrics: Mapping[str, Metric],
    budgets: Mapping[str, float | str],
    whole: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[MetricProfile]:
    """Every metric of a space.

    Args:
        space: the search space.
        metrics: by name.
        budgets: largest values wanted, absolute or as shares of the max network's.
        whole: every metric of the max network that shares are of; None: of the space's own.
        seed: of the sample.

    Raises:
        ConfigError: a budget names no metric.
    """
    for name in budgets:
        if name not in metrics:
            raise ConfigError(f"budget {name}: no such metric here; there are {', '.join(metrics)}")
    ends = space.genome([space.largest, space.smallest])
    sample = np.concatenate((ends, space.sample(SAMPLES, np.random.default_rng(seed))))
    rows = []
    for name, metric in metrics.items():
        values = metric.evaluate(sample)
        least = float(values.min())
        if isinstance(metric, Terms):
            least = elimination.least(metric)
        most = whole[name] if whole else float(values[0])
        budget = amount(budgets[name], most) if name in budgets else None
        rows.append(_row(name, values, least, budget))
    return rows


def _row(name: str, values: np.ndarray, least: float, budget: float | None) -> MetricProfile:
    random = values[2:]
    median, p90 = np.quantile(random, (0.5, 0.9))
    return MetricProfile(
        name,
        UNITS.get(name, ""),
        float(least),
        float(median),
        float(p90),
        float(values.max()),
        budget,
        None if budget is None else float((random <= budget).mean()),
    )
