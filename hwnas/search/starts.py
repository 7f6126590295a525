"""What an evolutionary search starts from: extremes, known fronts, exact fronts, a fitted sketch.

The exact front of the additive objectives costs milliseconds. If an objective is not a sum (an
accuracy predictor with interactions), a sum is fitted to a few hundred networks, and evolution
begins at its exact front; later the sum is fitted again, near the front that was reached.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.predictors.encoding import encode, feature_names
from hwnas.predictors.fit import fit_ridge
from hwnas.predictors.predictor import score_terms
from hwnas.pricing import pareto
from hwnas.pricing.terms import Terms
from hwnas.search.archive import Archive, Population
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

ATTEMPTS = 8  # times that a generation is topped up after duplicates were dropped
SKETCH = 500  # networks at most that the fitted sums are made of


def known_networks(problem: Problem, config: SearchConfig) -> np.ndarray:
    """(n, n_choices) genomes that a search starts from: those of the problem, then the exact front
    if it is wanted and there is one.
    """
    none = np.zeros((0, len(problem.space.choices)), dtype=np.int64)
    exact = exact_seeds(problem, config.population // 2) if config.start_from_dp else None
    return np.concatenate([none if some is None else some for some in (problem.start, exact)])


def first_networks(
    archive: Archive, known: np.ndarray, config: SearchConfig, rng: np.random.Generator
) -> Population:
    """The first networks of a search, evaluated: the max and the min network, those known, random
    networks to fill up a population.
    """
    space = archive.problem.space
    first = archive.add(space.genome([space.largest, space.smallest]))
    first = first.joined(archive.add(known))
    for _ in range(ATTEMPTS):
        missing = config.population - len(first)
        if missing <= 0 or archive.full:
            break
        first = first.joined(archive.add(space.sample(missing, rng), missing))
    return first


def with_sketch(
    archive: Archive, first: Population, config: SearchConfig, rng: np.random.Generator
) -> Population:
    """The first networks and, if an objective is not a sum, those of a sketch that is fitted to
    them and to more random networks: at most a tenth of all evaluations. There is no sketch if so
    few networks cannot tell what each option is worth.
    """
    n = min(SKETCH, archive.limit // 10)
    if not _no_sums(archive.problem, config) or n < 2 * len(feature_names(archive.problem.space)):
        return first
    space = archive.problem.space
    if n > len(first):
        first = first.joined(archive.add(space.sample(n - len(first), rng)))
    return first.joined(sketched(archive, first, config))


def sketched(archive: Archive, known: Population, config: SearchConfig) -> Population:
    """New networks, evaluated, of an exact front in which sums that were fitted to known networks
    stand for the objectives that are not sums: at most a population of them, evenly spread. None if
    every objective is a sum, or too few networks are known for a fit.
    """
    problem, space = archive.problem, archive.problem.space
    missing = _no_sums(problem, config)
    if not missing or len(known) < 2 * len(feature_names(space)):
        return known.take(np.zeros(0, dtype=np.int64))
    features, columns = encode(space, known.genome), problem.objectives.index
    terms = {name: _fitted_sum(space, features, known.costs[:, columns(name)]) for name in missing}
    sketch = replace(problem, metrics={**problem.metrics, **terms}, budgets={})
    seeds = exact_seeds(sketch, config.population)
    if seeds is None:
        return known.take(np.zeros(0, dtype=np.int64))
    spread = np.linspace(0, len(seeds) - 1, min(config.population, len(seeds))).astype(np.int64)
    return archive.add(seeds[spread])


def _no_sums(problem: Problem, config: SearchConfig) -> list[str]:
    """Objectives that a fitted sum may stand for."""
    return [n for n in problem.objectives if config.start_from_dp and n not in problem.joined]


def _fitted_sum(space: SearchSpace, features: np.ndarray, values: np.ndarray) -> Terms:
    fit = fit_ridge(features, values)
    return score_terms(space, feature_names(space), fit.weights, fit.intercept)


def exact_seeds(problem: Problem, few: int) -> np.ndarray | None:
    """Genomes of the exact fronts of the first summed objective with each other one; only a few of
    them, evenly spread, where a metric is not a table and so may be slow.
    """
    names = [name for name in problem.objectives if name in problem.joined]
    if len(names) < 2:
        return None
    genome = np.concatenate([problem.exact_front([names[0], other]) for other in names[1:]])
    feasible = problem.violation(genome) == 0
    genome = genome[feasible | ~feasible.any()]
    used = [problem.metrics[name] for name in (*problem.objectives, *problem.budgets)]
    if all(isinstance(metric, Terms) for metric in used):
        return np.asarray(genome[pareto.non_dominated(problem.evaluate(genome))])
    return np.asarray(
        genome[np.linspace(0, len(genome) - 1, min(few, len(genome))).astype(np.int64)]
    )
