"""What a search has evaluated: no network twice, and the front of all of them.

The result of a search is the non-dominated part of everything it evaluated, not its last
generation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.pricing import pareto
from hwnas.pricing.places import places
from hwnas.search.problem import Problem, check_feasible, infeasible_text
from profilers.errors import InfeasibleError


@dataclass(frozen=True, eq=False)
class Population:
    """Evaluated networks.

    Attributes:
        genome: (n, n_choices) option indices.
        costs: (n, m) objectives, all minimised.
        violation: (n,) relative, 0 = feasible.
    """

    genome: np.ndarray
    costs: np.ndarray
    violation: np.ndarray

    def __len__(self) -> int:
        return len(self.genome)

    def take(self, rows: np.ndarray) -> Population:
        """The candidates of given rows (indices or a mask)."""
        return Population(self.genome[rows], self.costs[rows], self.violation[rows])

    def joined(self, other: Population) -> Population:
        """These candidates, then the others."""
        return Population(
            np.concatenate((self.genome, other.genome)),
            np.concatenate((self.costs, other.costs)),
            np.concatenate((self.violation, other.violation)),
        )


@dataclass(frozen=True, eq=False)
class Generation:
    """One round of a search.

    Attributes:
        generation: from 0.
        population: the candidates that live on.
        front: feasible and non-dominated among everything evaluated so far, ascending by the
            second objective.
        evaluations: networks evaluated so far.
    """

    generation: int
    population: Population
    front: Population
    evaluations: int


class Archive:
    """Evaluates candidates of a problem, each network once, and keeps the front.

    Attributes:
        front: feasible and non-dominated among everything evaluated, ascending by the second
            objective.
        fresh_share: of the networks that were looked at lately, those that were new.
    """

    def __init__(self, problem: Problem, limit: int) -> None:
        """limit: most networks that are evaluated."""
        self.problem = problem
        self.limit = limit
        self._seen: set[bytes] = set()
        self.front = self._price(np.zeros((0, len(problem.space.choices)), dtype=np.uint8))
        self._nearest = self.front
        self.fresh_share = 1.0

    @property
    def evaluations(self) -> int:
        """Networks evaluated so far."""
        return len(self._seen)

    @property
    def full(self) -> bool:
        """Whether the limit is reached, or every network of the space was evaluated."""
        return self.evaluations >= min(self.limit, self.problem.space.size)

    def add(self, genome: np.ndarray, most: int | None = None) -> Population:
        """Evaluate the networks that were not evaluated before, each once.

        Args:
            genome: (n, n_choices) option indices.
            most: only so many, the first ones; None: as many as the limit leaves.
        """
        return self.evaluate(self.reserve(genome, most))

    def reserve(self, genome: np.ndarray, most: int | None = None) -> np.ndarray:
        """(k, n_choices) the networks that were not evaluated before, each once; they count as
        evaluated from now on, so `evaluate` must follow.

        Args:
            genome, most: as of `add`.
        """
        room = self.limit - self.evaluations
        most = room if most is None else min(most, room)
        fresh: list[int] = []
        looked = 0
        for row, name in enumerate(places(self.problem.space).identity(genome)):
            if len(fresh) >= most:
                break
            looked = row + 1
            if name not in self._seen:
                self._seen.add(name)
                fresh.append(row)
        if looked:
            self.fresh_share = (self.fresh_share + len(fresh) / looked) / 2
        return np.asarray(genome[fresh])

    def evaluate(self, reserved: np.ndarray) -> Population:
        """Networks of `reserve`, priced at once."""
        added = self._price(reserved)
        self._learn(added)
        return added

    def _price(self, genome: np.ndarray) -> Population:
        compact = genome.astype(np.uint8 if self.problem.space.n_options.max() < 256 else np.int64)
        return Population(compact, self.problem.evaluate(compact), self.problem.violation(compact))

    def _learn(self, added: Population) -> None:
        feasible = added.violation == 0
        if feasible.any():
            both = self.front.joined(added.take(feasible & self._unbeaten(added.costs)))
            if len(both) == len(self.front):
                return
            rows = np.flatnonzero(pareto.non_dominated(both.costs))
            self.front = both.take(rows[np.lexsort((both.costs[rows, 0], both.costs[rows, 1]))])
        elif len(added) and not len(self.front):
            both = self._nearest.joined(added)
            self._nearest = both.take(np.argsort(both.violation, kind="stable")[:1])

    def _unbeaten(self, costs: np.ndarray) -> np.ndarray:
        """(n,) whether no network of the front is as good in both objectives; of more than two
        objectives that is not told.
        """
        front = self.front.costs
        if costs.shape[1] != 2 or not len(front):
            return np.ones(len(costs), dtype=bool)
        at = np.searchsorted(front[:, 1], costs[:, 1], side="right") - 1  # least first cost so far
        return np.asarray((at < 0) | (costs[:, 0] < front[at, 0]))

    def state(self, generation: int, population: Population) -> Generation:
        """The generation to yield."""
        return Generation(generation, population, self.front, self.evaluations)

    def check(self) -> None:
        """Refuse to end without a feasible network.

        Raises:
            InfeasibleError: none was found; names the network nearest to the budgets.
        """
        if not len(self.front):
            check_feasible(self.problem)
            raise InfeasibleError(infeasible_text(self.problem, self._nearest.genome))
