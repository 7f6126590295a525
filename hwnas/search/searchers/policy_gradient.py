"""Policy gradient on probabilities of options, one budget after the other.

Networks are drawn from a product of categorical distributions, one for each choice; what was good
for a budget becomes likelier, and options that became unlikely are dropped (progressive shrinking).

The idea is TND-NAS's (arXiv 2111.03892), read in its abstract: no controller, gradient on
architecture parameters, shrinking by them. Update rule, rewards and schedule are this project's;
the power reward is the form of MnasNet (Tan et al. 2019).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.search.archive import Archive, Generation, Population
from hwnas.search.one_budget import Ledger, OneBudget, one_budget
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

NEEDS = ()
GOES_ON = False
UPDATES = 4  # of one generation, each from an equal share of the population
LEAST_DRAWN = 8  # networks behind one update; a small population makes fewer updates
RATE = 0.2  # of Adam
ENTROPY = 0.02  # weight of the entropy bonus
MEMORY = 0.9  # of the baseline, from one update to the next
SLOPE = 2.0  # hinge: accuracy that a relative excess of 1 takes away
POWER = -1.0  # power: exponent of the relative cost beyond the budget
SHRINK_AFTER = 0.4  # of a budget's generations, in which no option is dropped
UNLIKELY = 0.05  # options of less probability are dropped
LEAST_SPREAD = 1e-3  # of rewards: smaller ones are no reason to move
EPSILON = 1e-8


@dataclass(frozen=True, eq=False)
class Policy:
    """Probabilities of the options of every choice, and the state of Adam and the baseline.

    Attributes:
        alpha: (n_choices, most options) architecture parameters; -inf: not offered, or dropped.
        mean, square: of the gradients, as alpha.
        baseline: mean reward of late, None before the first update.
        updates: so far.
    """

    alpha: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    baseline: float | None = None
    updates: int = 0

    @property
    def probability(self) -> np.ndarray:
        """(n_choices, most options), each row sums to 1."""
        weight = np.exp(self.alpha - self.alpha.max(axis=1, keepdims=True))
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Reward:
    """Reward of a network: its accuracy less a penalty for cost beyond the budget.

    Attributes:
        view: prices networks.
        level: budget, relative cost.
        worst: value of the quality that is worth nothing; 1 for the error.
        form: `hinge`, linear beyond the budget, or `power`, MnasNet's.
    """

    view: OneBudget
    level: float
    worst: float
    form: str

    def __call__(self, seen: Population) -> np.ndarray:
        """(n,) rewards of evaluated networks, dimensionless."""
        accuracy = 1 - seen.costs[:, self.view.quality] / self.worst
        over = np.maximum(self.view.cost(seen.genome) / self.level, 1)
        return accuracy * over**POWER if self.form == "power" else accuracy - SLOPE * (over - 1)


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """Generations of `config.population` drawn networks, for `config.sweep` budgets of an equal
    share of the generations each.

    Raises:
        InfeasibleError: no network within the budgets was found.
    """
    view, space = one_budget(problem), problem.space
    levels = view.levels(config)
    archive = Archive(problem, limit=config.population * config.generations)
    ledger = Ledger(archive)
    ends = ledger.look(space.genome([space.largest, space.smallest]))
    named = problem.objectives[view.quality]
    worst = 1.0 if named == "error" else float(ends.costs[:, view.quality].max())
    yield archive.state(0, ends)
    n_rounds, number = config.generations // len(levels), itertools.count(1)
    for level in levels.tolist():
        reward = Reward(view, level, worst, config.reward)
        for drawn in _rounds(ledger, reward, config.population, n_rounds, rng):
            yield archive.state(next(number), drawn)
    archive.check()


def _rounds(
    ledger: Ledger, reward: Reward, size: int, n_rounds: int, rng: np.random.Generator
) -> Iterator[Population]:
    """Networks drawn for one budget, a population at a time, until one network is left."""
    policy = uniform(ledger.archive.problem.space)
    n_updates = min(UPDATES, max(size // LEAST_DRAWN, 1))
    parts = np.diff(np.linspace(0, size, n_updates + 1).astype(np.int64)).tolist()
    for done in range(1, n_rounds + 1):
        if ledger.archive.full or (policy.probability.max(axis=1) == 1).all():
            return
        drawn = []
        for n in parts:
            seen = ledger.look(draw(policy, n, rng))
            drawn.append(seen)
            policy = updated(policy, seen.genome, reward(seen)) if len(seen) else policy
        yield functools.reduce(Population.joined, drawn)
        policy = without_unlikely(policy) if done >= SHRINK_AFTER * n_rounds else policy


def uniform(space: SearchSpace) -> Policy:
    """Every option of a choice as likely."""
    offered = np.arange(space.n_options.max()) < space.n_options[:, None]
    alpha = np.where(offered, 0.0, -np.inf)
    return Policy(alpha, np.zeros_like(alpha), np.zeros_like(alpha))


def draw(policy: Policy, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, n_choices) genomes, each choice drawn by its probabilities."""
    # The largest of parameter + Gumbel noise is a draw from the softmax of the parameters.
    noise = rng.gumbel(size=(n, *policy.alpha.shape))
    return np.asarray((policy.alpha + noise).argmax(axis=2))


def updated(policy: Policy, genome: np.ndarray, reward: np.ndarray) -> Policy:
    """The policy after one step of Adam up the policy gradient and the entropy.

    Args:
        policy: that drew the genomes.
        genome: (n, n_choices).
        reward: (n,).
    """
    probability = policy.probability
    before = reward.mean() if policy.baseline is None else policy.baseline
    baseline = MEMORY * before + (1 - MEMORY) * reward.mean()
    advantage = (reward - baseline) / (reward.std() + LEAST_SPREAD)
    chosen = genome[:, :, None] == np.arange(probability.shape[1])
    gradient = (advantage[:, None, None] * (chosen - probability)).mean(axis=0)
    gradient = gradient + ENTROPY * entropy_gradient(probability)
    updates = policy.updates + 1
    mean = 0.9 * policy.mean + 0.1 * gradient
    square = 0.999 * policy.square + 0.001 * gradient**2
    scale = np.sqrt(square / (1 - 0.999**updates)) + EPSILON
    alpha = policy.alpha + RATE * mean / (1 - 0.9**updates) / scale
    return Policy(alpha, mean, square, float(baseline), updates)


def entropy_gradient(probability: np.ndarray) -> np.ndarray:
    """Derivative of each choice's entropy by its parameters; 0 for dropped options."""
    surprise = -np.log(np.maximum(probability, EPSILON))
    entropy = (probability * surprise).sum(axis=1, keepdims=True)
    return np.asarray(probability * (surprise - entropy))


def without_unlikely(policy: Policy) -> Policy:
    """The policy without options of less probability than `UNLIKELY`; the likeliest one stays."""
    probability = policy.probability
    dropped = probability < np.minimum(UNLIKELY, probability.max(axis=1, keepdims=True))
    return replace(policy, alpha=np.where(dropped, -np.inf, policy.alpha))
