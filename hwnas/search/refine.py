"""The measure-refit loop: fit the measured subnets, measure the most promising ones, fit again.

Networks to measure next come from the exact fronts of the fit and of refits on resampled subnets
(or from NSGA-II on the fit), from neighbours of the measured front, and from chance. Of these the
batch takes those that are expected to add most hypervolume to the measured front, given how
uncertain each error is (`posterior`). The answer is the measured front: the fit is only a proposal.

The loop is LINAS's (Cummings et al. 2022, arXiv 2202.12954); how it chooses what to measure next is
this project's. The expected improvement is that of Emmerich et al. 2006, "Single- and
multiobjective evolutionary optimization assisted by Gaussian random field metamodels", for one
uncertain cost.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors.fit import fit_ensemble, fit_predictor
from hwnas.predictors.predictor import Predictor
from hwnas.pricing import elimination, pareto
from hwnas.pricing.terms import Terms
from hwnas.search import searchers
from hwnas.search.front import reference_point
from hwnas.search.posterior import believe
from hwnas.search.problem import Metric, Problem
from hwnas.settings.config import RefineConfig, SearchConfig
from profilers.errors import ConfigError

REFITS = 10
RANDOM_SHARE = 0.1  # of a batch, drawn uniformly: keeps the residual estimate honest
N_RANDOM = 500  # random networks among those that a batch is chosen from
MOST_WEIGHED = 1000  # networks whose improvement is computed again after each choice
QUANTILES = np.array(  # of the standard normal distribution, each standing for an equal share
    [statistics.NormalDist().inv_cdf((i + 0.5) / 8) for i in range(8)]
)
STABLE_GAIN, STABLE_ROUNDS = 1e-3, 2  # the front is stable after so many rounds of less gain
NSGA2 = {"population": 50, "generations": 40}  # of the inner search, 2,000 predicted evaluations

Accuracies = Mapping[Architecture, float]
Measure = Callable[[Sequence[Architecture]], Iterable[float]]


@dataclass(frozen=True, eq=False)
class Goal:
    """A cost that the error is weighed against.

    Attributes:
        name: `latency_ms on <target>`, `macs`.
        cost: what prices it: terms, or a metric of the user's own.
        reference: (2,) reference point of the hypervolume: error, cost.
    """

    name: str
    cost: Metric
    reference: np.ndarray


def goal_of(space: SearchSpace, name: str, cost: Metric) -> Goal:
    """The goal of a cost, under the reference point of fronts."""
    largest = float(cost.evaluate(space.genome([space.largest]))[0])
    return Goal(name, cost, reference_point(("error", "cost"), {"cost": largest}, space.n_classes))


@dataclass(frozen=True, eq=False)
class Loop:
    """The space to refine, the costs to weigh the error against, and the settings."""

    space: SearchSpace
    goals: tuple[Goal, ...]
    config: RefineConfig


@dataclass(frozen=True, eq=False)
class Round:
    """One round of the loop.

    Attributes:
        number: from 1.
        measured: every accuracy known, the round's batch included.
        batch: the networks measured in this round.
        hypervolume: (goals,) of the measured front, error x cost.
        gain: relative growth of the hypervolume, the largest over the goals.
        bias: mean measured minus predicted error of the batch, a fraction: the fit is optimistic
            where nobody measured.
        stable: whether the measured front is stable.
    """

    number: int
    measured: dict[Architecture, float]
    batch: tuple[Architecture, ...]
    hypervolume: np.ndarray
    gain: float
    bias: float
    stable: bool


@dataclass(eq=False)
class _Batch:
    """Networks that are being measured.

    Attributes:
        archs: which ones.
        fit: that chose them.
        coming: their top-1, in their order, as it is measured.
        found: what was taken of it.
    """

    archs: tuple[Architecture, ...]
    fit: Predictor
    coming: Iterator[float]
    found: list[float] = field(default_factory=list)

    def take(self, n: int | None = None) -> dict[Architecture, float]:
        """The first n accuracies (None: all), waited for.

        Raises:
            ConfigError: there are more or fewer of them, or one is not in [0, 1].
        """
        more = None if n is None else max(0, n - len(self.found))
        self.found += map(float, itertools.islice(self.coming, more))
        if n is None and len(self.found) != len(self.archs):
            raise ConfigError(
                f"{len(self.found)} accuracies came back of {len(self.archs)} networks; give one "
                "for each, in their order"
            )
        known = self.archs[: len(self.found)]
        check_accuracies(known, np.array(self.found))
        return dict(zip(known, self.found, strict=True))


def refine(loop: Loop, known: Accuracies, measure: Measure) -> Iterator[Round]:
    """Rounds, until `config.budget` more networks are measured, or all are, or the caller stops:
    `Round.stable` says when to.

    Args:
        loop: what is refined.
        known: accuracies (top-1, fractions) measured so far.
        measure: top-1 of networks, in their order; all may start when it is called, and each be
            waited for when it is taken.

    Raises:
        ConfigError: too few networks are known for a fit, or an accuracy is not in [0, 1].
    """
    before, quiet = hypervolumes(loop, known), 0
    for number, (batch, measured) in enumerate(_batches(loop, known, measure), start=1):
        after = hypervolumes(loop, measured)
        gain = float(np.max(after / np.maximum(before, 1e-300) - 1))
        quiet = quiet + 1 if gain < STABLE_GAIN else 0
        predicted = batch.fit.predict(loop.space.genome(batch.archs))
        bias = float(np.mean(1 - np.array(batch.found) - predicted))
        stable = quiet >= STABLE_ROUNDS
        yield Round(number, measured, batch.archs, after, gain, bias, stable)
        before = after


def _batches(
    loop: Loop, known: Accuracies, measure: Measure
) -> Iterator[tuple[_Batch, dict[Architecture, float]]]:
    """Batches, each when it is measured, with every accuracy known. The last `config.pending`
    networks of one count as pending when the next is chosen, whether they are or not: what is
    chosen does not depend on who is done when.
    """
    rng = np.random.default_rng(loop.config.seed)
    measured, left = dict(known), loop.config.budget
    batch = _start(loop, measured, (), min(loop.config.batch, left), measure, rng)
    while batch is not None:
        left -= len(batch.archs)
        measured |= batch.take(len(batch.archs) - loop.config.pending)
        pending = batch.archs[len(batch.found) :]
        if not pending:
            yield batch, measured | batch.take()
        following = _start(loop, measured, pending, min(loop.config.batch, left), measure, rng)
        if pending:
            measured |= batch.take()
            yield batch, dict(measured)
        batch = following


def _start(
    loop: Loop,
    measured: Accuracies,
    pending: Sequence[Architecture],
    n: int,
    measure: Measure,
    rng: np.random.Generator,
) -> _Batch | None:
    """A batch of at most n networks that are being measured from now on; None if there are none.

    Args:
        pending: networks that are still being measured: they count as expected (the "kriging
            believer" of Ginsbourger et al. 2010, "Kriging is well-suited to parallelize
            optimization"), so that they are neither chosen again nor outdone by chance.
    """
    if n == 0:
        return None
    fit = fit_predictor(loop.space, measured.items(), loop.config.seed, "")
    counted = dict(measured)
    if pending:
        expected = 1 - believe(loop.space, measured, loop.space.genome(pending)).mean
        counted |= dict(zip(pending, expected.tolist(), strict=True))
    archs = propose(loop, counted, fit, n, rng)
    return _Batch(tuple(archs), fit, iter(measure(archs))) if archs else None


def measured_front(measured: Accuracies, cost: Metric) -> list[Architecture]:
    """The measured networks of which none has both less error and less of a cost, cheapest
    first.
    """
    archs = list(measured)
    genome = archs[0].space.genome(archs) if archs else np.zeros((0, 0), dtype=np.int64)
    costs = np.stack([1 - np.array(list(measured.values())), cost.evaluate(genome)], axis=1)
    rows = np.flatnonzero(pareto.non_dominated(costs))
    return [archs[row] for row in rows[np.argsort(costs[rows, 1], kind="stable")]]


def check_accuracies(archs: Sequence[Architecture], top1: np.ndarray) -> None:
    """Refuse accuracies that are no fractions.

    Raises:
        ConfigError: names the network.
    """
    for arch, accuracy in zip(archs, top1.tolist(), strict=True):
        if not 0 <= accuracy <= 1:
            raise ConfigError(f"accuracy {accuracy!r} of network {arch.id} is not in [0, 1]")


def hypervolumes(loop: Loop, measured: Accuracies) -> np.ndarray:
    """(goals,) hypervolume of the measured front, error x cost."""
    genome, error = loop.space.genome(measured), 1 - np.array(list(measured.values()))
    return np.array(
        [
            pareto.hypervolume(
                np.stack([error, goal.cost.evaluate(genome)], axis=1), goal.reference
            )
            for goal in loop.goals
        ]
    )


def propose(
    loop: Loop, measured: Accuracies, fit: Predictor, n: int, rng: np.random.Generator
) -> list[Architecture]:
    """At most n networks to measure next, none of them measured before.

    Args:
        loop: what is refined.
        measured: accuracies known.
        fit: on these.
        n: how many; the goals take turns.
        rng: source of chance.
    """
    refits = fit_ensemble(loop.space, measured.items(), loop.config.seed, REFITS)
    pool = candidates(loop, measured, [fit.terms, *refits], rng)
    seen = set(measured)
    chosen: list[Architecture] = []
    n_random = min(round(RANDOM_SHARE * n), n - 1)
    shares = np.diff(np.linspace(0, n - n_random, len(loop.goals) + 1).round().astype(int))
    for goal, share in zip(loop.goals, shares.tolist(), strict=True):
        fresh = [arch for arch in pool if arch not in seen]
        taken = best_batch(goal, measured, fresh, share)
        chosen += taken
        seen |= set(taken)
    rest = [arch for arch in _random(loop.space, rng) if arch not in seen]
    return chosen + rest[: n - len(chosen)]


def candidates(
    loop: Loop, measured: Accuracies, fits: Sequence[Terms], rng: np.random.Generator
) -> list[Architecture]:
    """Networks that a batch is chosen from, each once: fronts of the fits, one-choice neighbours of
    the fit's front and of the measured one, random ones.
    """
    space = loop.space
    parts = [space.genome(_random(space, rng))]
    for goal in loop.goals:
        front = _front(space, goal, measured)
        if loop.config.inner == "dp" and isinstance(goal.cost, Terms):
            fronts = [predicted_front(terms, goal.cost) for terms in fits]
        else:
            fronts = [searched_front(space, goal, fits[0], rng)]
        best = fronts[0][pareto.non_dominated(_costs(goal, fits[0], fronts[0]))]
        parts += [*fronts, neighbours(space, np.concatenate((front, best)))]
    return list(dict.fromkeys(space.architectures(np.concatenate(parts))))


def predicted_front(error: Terms, cost: Terms) -> np.ndarray:
    """(n, n_choices) genomes of the exact front of a fit, resolution by resolution."""
    return elimination.front([error, cost])


def searched_front(
    space: SearchSpace, goal: Goal, error: Terms, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_choices) genomes that NSGA-II finds on a fit: its last population and its front."""
    config = SearchConfig(
        algorithm="nsga2", seed=int(rng.integers(2**31)), start_from_dp=False, **NSGA2
    )
    last = searchers.search(_problem(space, goal, error), config)
    return np.concatenate((last.front.genome, last.population.genome)).astype(np.int64)


def neighbours(space: SearchSpace, genome: np.ndarray) -> np.ndarray:
    """(n, n_choices) every genome that differs from one of the given ones in one choice."""
    out = []
    for column, n_options in enumerate(space.n_options.tolist()):
        for shift in range(1, n_options):
            moved = genome.astype(np.int64)
            moved[:, column] = (moved[:, column] + shift) % n_options
            out.append(moved)
    return np.concatenate(out) if out else genome[:0]


def best_batch(
    goal: Goal, measured: Accuracies, archs: Sequence[Architecture], n: int
) -> list[Architecture]:
    """At most n of the networks, chosen one by one by expected improvement of the measured front;
    each choice counts as measured, with its expected error, before the next one is made.
    """
    if not archs:
        return []
    space = archs[0].space
    front = _front(space, goal, measured)
    error = 1 - np.array([measured[arch] for arch in space.architectures(front)])
    steps = np.stack([goal.cost.evaluate(front), error], axis=1)
    genome = space.genome(archs)
    belief = believe(space, measured, genome)
    points = np.stack([goal.cost.evaluate(genome), belief.mean], axis=1)
    weighed = np.argsort(-improvement(steps, points, belief.spread, goal.reference))
    weighed = weighed[:MOST_WEIGHED]
    points, spread = points[weighed], belief.spread[weighed]
    chosen: list[int] = []
    while len(chosen) < min(n, len(weighed)):
        gain = improvement(steps, points, spread, goal.reference)
        gain[chosen] = -np.inf  # where nothing gains, each is chosen once all the same
        best = int(gain.argmax())
        chosen.append(best)
        steps = np.concatenate((steps, points[[best]]))
        steps = steps[pareto.non_dominated(steps)]
    return [archs[weighed[best]] for best in chosen]


def improvement(
    front: np.ndarray, points: np.ndarray, spread: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """(n,) hypervolume that points of known cost and uncertain error are expected to add.

    Args:
        front: (k, 2) cost and error, non-dominated.
        points: (n, 2) cost and expected error.
        spread: (n,) standard deviation of the error.
        reference: (2,) error, cost.
    """
    order = np.argsort(front[:, 0])
    starts = np.append(-np.inf, front[order, 0])
    ends = np.append(front[order, 0], reference[1])
    level = np.append(reference[0], np.minimum(front[order, 1], reference[0]))
    width = np.maximum(np.minimum(ends, reference[1]) - np.maximum(starts, points[:, :1]), 0)
    total = np.zeros(len(points))
    for quantile in QUANTILES:
        found = points[:, 1] + quantile * spread
        total += (width * np.maximum(level - found[:, None], 0)).sum(axis=1)
    return total / len(QUANTILES)


def _front(space: SearchSpace, goal: Goal, measured: Accuracies) -> np.ndarray:
    """(n, n_choices) genomes of the measured front."""
    genome, error = space.genome(measured), 1 - np.array(list(measured.values()))
    costs = np.stack([error, goal.cost.evaluate(genome)], axis=1)
    return np.asarray(genome[pareto.non_dominated(costs)])


def _costs(goal: Goal, error: Terms, genome: np.ndarray) -> np.ndarray:
    """(n, 2) predicted error and cost."""
    return np.stack([error.evaluate(genome), goal.cost.evaluate(genome)], axis=1)


def _problem(space: SearchSpace, goal: Goal, error: Terms) -> Problem:
    return Problem(space, ("error", "cost"), {"error": error, "cost": goal.cost}, {})


def _random(space: SearchSpace, rng: np.random.Generator) -> list[Architecture]:
    """Different random networks, in random order."""
    return list(dict.fromkeys(space.architectures(space.sample(N_RANDOM, rng))))
