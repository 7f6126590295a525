"""Rounds of a campaign: what is due, in which order, what it costs, and how one is measured.

What is still to do follows from the records alone: an item is due while it has fewer samples in
undisturbed rounds than wanted. So a disturbed round repeats itself, and a campaign that was cut
goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring.client import Memory, RemoteWorker, Round
from hwnas.measuring.records import Log
from hwnas.measuring.replies import error_from_fields
from profilers import stats

PROFILE_ROUNDS = 1  # profiles of each item whose node times are wanted; each opens a session
MOST_ROUNDS = 5  # times the rounds wanted, after which a disturbed session is given up ...
LEAST_TRIED = 0.5  # ... when so much of the budget is spent; other groups need theirs
OPEN_SHARE = 0.5  # of a budget that opening models may take; the rest of it does not count
ANCHORS = (2, 5)  # fewest and most samples of the anchor in one round ...
GROUP_ANCHORS = (1, 2)  # ... of a group, whose rounds are short, ...
ANCHOR_EVERY = 8  # ... one for so many items in between

Say = Callable[[str, float], None]


class SessionPlan(NamedTuple):
    """One session of a campaign.

    Attributes:
        name: one letter.
        anchor: item that is in every round.
        items: the others.
        profiled: those whose node times are wanted.
        seed: of the orders.
        memory_bytes: what open models may take; 0: half of what is free.
    """

    name: str
    anchor: str
    items: tuple[str, ...]
    profiled: frozenset[str]
    seed: int
    memory_bytes: int = 0

    def without(self, failed: Mapping[str, Mapping[str, str]]) -> SessionPlan:
        """The plan without items that the engine cannot run.

        Args:
            failed: `code` and `text` of each one's error.

        Raises:
            HwnasError: one of them is the anchor, in the class that the worker told.
        """
        if self.anchor in failed:
            raise error_from_fields(failed[self.anchor])
        return self._replace(items=tuple(name for name in self.items if name not in failed))


@dataclass
class Budget:
    """Device time of a campaign: what there is and where it went, seconds.

    Opening models counts up to OPEN_SHARE of it: an engine that compiles for seconds at each
    opening would otherwise leave no time for samples. Each worker opens a model once, so what does
    not count has an end.
    """

    total_s: float
    run_s: float = 0.0
    open_s: float = 0.0
    opened: int = 0

    @property
    def device_s(self) -> float:
        """All that the device was busy for."""
        return self.run_s + self.open_s

    @property
    def spent_s(self) -> float:
        """What counts."""
        return self.run_s + min(self.open_s, OPEN_SHARE * self.total_s)

    @property
    def left_s(self) -> float:
        """What is left; negative once it is overdrawn."""
        return self.total_s - self.spent_s

    def __str__(self) -> str:
        """What was spent, in words."""
        return (
            f"{self.spent_s:.0f} of {self.total_s:.0f} s were spent (the engine opened models for "
            f"{self.open_s:.0f} s, which counts up to {OPEN_SHARE:.0%} of the budget)"
        )

    def spend(self, done: Round, opened: int) -> None:
        """Count a round, and the models opened for it."""
        self.run_s += done.sample_s + done.profile_s
        self.open_s += done.open_s
        self.opened += opened

    def to_open_s(self, count: int) -> float:
        """What opening n more models will count; 0 while unknown."""
        expected_s = count * self.open_s / max(self.opened, 1)
        return max(min(expected_s, OPEN_SHARE * self.total_s - self.open_s), 0.0)


class Runner:
    """One worker in one session: rounds into the log, time from the budget."""

    def __init__(
        self, worker: RemoteWorker, log: Log, plan: SessionPlan, budget: Budget, say: Say
    ) -> None:
        self._worker, self._log, self._plan = worker, log, plan
        self._budget, self._say = budget, say
        self._open: set[str] = set()
        self._seen: set[str] = set()
        self._profiles = True
        self._rounds, self._groups, self._grouped = 0, 0, False

    @property
    def unseen(self) -> int:
        """How many items this worker has not opened yet."""
        return len(set(self._plan.items) - self._seen)

    def done(self, wanted: int) -> bool:
        """Whether every item has the rounds wanted, or too many rounds were disturbed."""
        return self._given_up(wanted) or good_rounds(self._log.records, self._plan) >= wanted

    def _given_up(self, wanted: int) -> bool:
        many = self._rounds >= MOST_ROUNDS * wanted * max(self._groups, 1)
        tried = self._budget.spent_s >= LEAST_TRIED * self._budget.total_s
        return many and (tried or self._grouped)

    def within_group(self, wanted: int) -> bool:
        """Whether the group that is open has items that are due."""
        if self._given_up(wanted):
            return False
        counts = good_samples(self._log.records, self._plan.name)
        return any(counts[name] < wanted for name in self._open - {self._plan.anchor})

    def round(self, wanted: int, grouped: bool) -> None:
        """Measure the items that are due: of those that are open, as long as one of them is.

        Args:
            wanted: undisturbed rounds that each item should have.
            grouped: whether not all fit in memory. Then a group is what fits of those that are due,
                in the order of the plan, so that both sessions measure the same networks at about
                the same time; and only one session has models open.
        """
        plan = self._plan = self._plan.without(self._log.failed)
        self._grouped = grouped
        records = self._log.records
        counts = good_samples(records, plan.name)
        due = [name for name in plan.items if counts[name] < wanted]
        items = [name for name in due if name in self._open]
        if not items:
            items, self._groups = due, self._groups + 1
        number = self._log.next_round(plan.name)
        rng = np.random.default_rng([plan.seed, ord(plan.name), number])
        tell = self._progress(wanted, counts)
        tell("")
        order = shuffled(items, plan.anchor, rng, GROUP_ANCHORS if grouped else ANCHORS)
        profile = unprofiled(records, plan, items) if self._profiles else []
        memory = Memory(plan.memory_bytes, grouped, (plan.anchor, *items))
        found = self._worker.measure(plan.name, order, self._log.loops(), profile, tell, memory)
        self._log.append(plan.name, number, _with_left(found.records, len(found.left)))
        self._log.fail(plan.name, number, found.failed)
        self._plan = plan.without(found.failed)
        measured = set(order) - set(found.left) - set(found.failed)
        self._budget.spend(found, len(measured - self._open))
        self._open, self._seen = measured, self._seen | measured
        self._profiles = not profile or any("profile" in record for record in found.records)
        self._rounds += 1

    def _progress(self, wanted: int, counts: Counter[str]) -> Callable[[str], None]:
        items = self._plan.items
        samples = sum(min(counts[name], wanted) for name in items)
        share = samples / max(wanted * len(items), 1)
        good = min((counts[name] for name in items), default=0)
        title = f"session {self._plan.name}: {good} of {wanted} rounds"
        left_s = f"{max(self._budget.left_s, 0):.0f} s of the budget left"

        def tell(text: str) -> None:
            self._say(f"{title}, {text or left_s}", min(share, 1.0))

        return tell


def shuffled(
    items: Sequence[str], anchor: str, rng: np.random.Generator, anchors: tuple[int, int] = ANCHORS
) -> list[str]:
    """The items in random order, the anchor first, last and evenly between; between the fewest and
    the most times, by how many items there are.
    """
    order = [items[i] for i in rng.permutation(len(items))]
    fewest, most = anchors
    n_anchors = min(max(fewest, 1 + len(items) // ANCHOR_EVERY), most)
    places = np.linspace(0, len(order), n_anchors).round().astype(int)
    for place in places[::-1]:
        order.insert(int(place), anchor)
    return order


def _with_left(records: Sequence[Mapping[str, Any]], left: int) -> list[Mapping[str, Any]]:
    """A round's records; the first one counts the items that found no room, if any."""
    return [{**r, "left": left} if left and not i else r for i, r in enumerate(records)]


def is_grouped(records: Iterable[Mapping[str, Any]], plan: SessionPlan) -> bool:
    """Whether the items of a plan do not fit in memory together: some of those that a round asked
    for found no room. (That records lack some says nothing: a round may have been cut.)
    """
    return any(record["id"][1] == plan.name and "left" in record for record in records)


def unprofiled(
    records: Iterable[Mapping[str, Any]], plan: SessionPlan, items: Iterable[str]
) -> list[str]:
    """Items whose node times are wanted and have been taken too seldom."""
    taken = Counter(record["id"][3] for record in records if "profile" in record)
    return [name for name in items if name in plan.profiled and taken[name] < PROFILE_ROUNDS]


def good_samples(records: Sequence[Mapping[str, Any]], session: str) -> Counter[str]:
    """In how many undisturbed rounds of a session each item was sampled."""
    mine = [record for record in records if record["id"][1] == session and "ms" in record]
    disturbed = stats.disturbed_rounds(mine)
    seen = {(record["id"][2], record["id"][3]) for record in mine}
    return Counter(item for number, item in seen if (session, number) not in disturbed)


def good_rounds(records: Sequence[Mapping[str, Any]], plan: SessionPlan) -> int:
    """Undisturbed rounds that every item of a plan has."""
    counts = good_samples(records, plan.name)
    return min((counts[name] for name in plan.items), default=0)


def bad_rounds(records: Sequence[Mapping[str, Any]], plan: SessionPlan) -> int:
    """Disturbed rounds of a plan."""
    return sum(session == plan.name for session, _ in stats.disturbed_rounds(records))


def anchor_ms(records: Iterable[Mapping[str, Any]], plan: SessionPlan) -> list[float]:
    """Every sample of a plan's anchor, ms."""
    name = (plan.name, plan.anchor)
    return [r["ms"] for r in records if (r["id"][1], r["id"][3]) == name and "ms" in r]


def sample_costs(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds that one sample of each item takes, with the runs before it."""
    found: dict[str, list[float]] = {}
    for record in records:
        if "ms" in record:
            runs = record["loops"] + record.get("warm", 0)
            found.setdefault(record["id"][3], []).append(record["ms"] * runs / 1000)
    return {name: float(np.median(values)) for name, values in found.items()}


def rounds_cost(plans: Iterable[SessionPlan], records: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of one round of all items of plans, the anchor's part as large as it was so far; 0
    while nothing was measured. Items not measured yet count as the mean of the others.
    """
    costs = sample_costs(records)
    if not costs:
        return 0.0
    typical = float(np.mean(list(costs.values())))
    items_s = sum(costs.get(name, typical) for plan in plans for name in plan.items)
    return items_s * anchor_overhead(records)


def anchor_overhead(records: Iterable[Mapping[str, Any]]) -> float:
    """Time of all samples over that of samples besides the anchor's; at least 1."""
    spent = {True: 0.0, False: 0.0}
    for record in records:
        if "ms" in record:
            runs = record["loops"] + record.get("warm", 0)
            spent[record["role"] == "anchor"] += record["ms"] * runs
    return 1 + spent[True] / spent[False] if spent[False] else 1.0
