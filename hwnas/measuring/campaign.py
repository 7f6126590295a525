"""A measuring campaign: a kit in two sessions on one target, within one budget of device time.

    session a   every item of the kit
    session b   in workers of its own, in other orders: the held-out networks and the anchor again

Both get the same number of rounds, as many as are wanted or as the budget allows, and take turns,
each in a fresh worker: a machine that drifts over tens of seconds (a virtual one with neighbours
did by 15 %) would otherwise make the two sessions differ by its drift and not by their noise.
Protocol and statistics: docs/formats.md, "Measurements".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.config import ProfileConfig
from hwnas.measuring import client, rounds
from hwnas.measuring.client import RemoteWorker
from hwnas.measuring.records import Log, open_log
from hwnas.measuring.rounds import Budget, Course, Runner, Say
from profilers import stats
from profilers.errors import ConfigError
from profilers.schema import KIT_FORMAT, Target, canonical_json, read_json, sha256_text

TURNS = 4  # of each session; every one opens all models anew
MIN_ROUNDS = 10  # undisturbed rounds of each session below which a campaign is unstable
MARGIN = 1.1  # of time, for what the samples themselves do not hold

Connect = Callable[[Target, str], AbstractContextManager[RemoteWorker]]


@dataclass(frozen=True)
class CampaignResult:
    """How a campaign ended.

    Attributes:
        path: the measurements.
        environment: what they were taken on.
        stable: enough undisturbed rounds of both sessions were seen.
        reason: in words, how many there were and why it ended.
        good, bad: rounds of each session that count, and that were disturbed.
        drift: how much slower the anchor was in session b than in a, a share; None until both
            were measured. It is part of the noise floor, and the machine's, not the networks'.
        device_s: device time spent now, without what an earlier run spent.
        broken_lines: of the file as it was found, numbers from 1; they were skipped.
    """

    path: Path
    environment: dict[str, Any]
    stable: bool
    reason: str
    good: dict[str, int]
    bad: dict[str, int]
    drift: float | None
    device_s: float
    broken_lines: tuple[int, ...]


def run_campaign(
    target: Target,
    kit_dir: Path,
    out: Path,
    settings: ProfileConfig,
    say: Say,
    connect: Connect = client.connect,
) -> CampaignResult:
    """Measure a kit on a target, or go on where an earlier run stopped.

    Args:
        target: what to measure on.
        kit_dir: folder of the kit.
        out: measurements, JSON Lines; appended round by round. A file of another kit, target or
            environment is kept beside it as `<name>.<n>.old`.
        settings: budget in seconds of device time for each resolution of the kit; rounds; seed.
        say: called with a line of progress and about what share of the campaign is done, 0 to 1.
        connect: starts a worker for a target and a purpose.

    Raises:
        ConfigError: the kit or the target cannot be used.
        DeviceError: the worker could not be started, or ended; the same call resumes.
    """
    kit = read_kit(kit_dir)
    first, again = courses(kit, settings.seed)
    need = min(MIN_ROUNDS, settings.rounds)
    budget = Budget(settings.budget_s * len({item["resolution"] for item in kit["items"]}))
    with connect(target, f"profiling of {kit['space']}") as worker:
        environment = worker.probe()
    log = open_log(out, target, environment, sha256_text(canonical_json(kit)))
    plan = _Plan(log, (first, again), budget, settings.rounds)
    for turn in range(1, TURNS + 1):
        for course in plan.both:
            if not plan.due(course, turn):
                continue
            with connect(target, f"profiling of {kit['space']}") as worker:
                _send(worker, kit, kit_dir)
                runner = Runner(worker, log, course, budget, plan.progress(course, turn, say))
                while not runner.done(plan.goal(course, turn)) and plan.due(course, turn):
                    runner.round(plan.goal(course, turn))
    return _result(log, environment, (first, again), need, budget)


def read_kit(folder: Path) -> dict[str, Any]:
    """The kit.json of a folder.

    Raises:
        FileFormatError: it is missing, truncated or of another format.
        ConfigError: it holds no anchor.
    """
    kit: dict[str, Any] = read_json(folder / "kit.json", KIT_FORMAT)
    if not any(item["role"] == "anchor" for item in kit["items"]):
        raise ConfigError(f"kit {folder} has no item with role anchor")
    return kit


def _send(worker: RemoteWorker, kit: Mapping[str, Any], folder: Path) -> None:
    worker.send_kit(kit, {item["sha256"]: folder / item["file"] for item in kit["items"]})


def courses(kit: Mapping[str, Any], seed: int) -> tuple[Course, Course]:
    """Sessions a and b of a kit."""
    roles = {item["name"]: item["role"] for item in kit["items"]}
    anchor = next(name for name, role in roles.items() if role == "anchor")
    others = tuple(name for name in roles if name != anchor)
    covering = frozenset(name for name in others if roles[name] == "covering")
    heldout = tuple(name for name in others if roles[name] == "heldout")
    return (
        Course("a", anchor, others, covering, seed),
        Course("b", anchor, heldout, frozenset(), seed),
    )


@dataclass(frozen=True)
class _Plan:
    """How many rounds each session should have, from what was measured and what time is left."""

    log: Log
    both: tuple[Course, Course]
    budget: Budget
    most: int

    def goal(self, course: Course, turn: int) -> int:
        """Undisturbed rounds that a session should have when a turn ends.

        Session a goes ahead by an equal share of all rounds that time allows; b catches up.
        """
        first, again = self.both
        if course is again:
            return rounds.good_rounds(self.log.records, first)
        to_open = (TURNS - turn) * (len(first.items) + len(again.items)) + len(again.items)
        left_s = self.budget.left_s - self.budget.to_open_s(to_open)
        fits = affordable(self.log.records, self.both, left_s)
        return math.ceil(min(max(fits, MIN_ROUNDS), self.most) * turn / TURNS)

    def due(self, course: Course, turn: int) -> bool:
        """Whether a session is behind its goal and there is time: a leaves b what it needs."""
        again = self.both[1]
        goal, records = self.goal(course, turn), self.log.records
        if rounds.good_rounds(records, course) >= goal:
            return False
        if course is again:
            return self.budget.left_s > 0
        behind = goal - rounds.good_rounds(records, again)
        catch_up_s = MARGIN * behind * rounds.round_cost(again, rounds.sample_costs(records))
        return self.budget.left_s > catch_up_s + self.budget.to_open_s(len(again.items))

    def progress(self, course: Course, turn: int, say: Say) -> Say:
        """Where a turn's progress goes: its share of the turn becomes one of the campaign."""
        items = [len(each.items) for each in self.both]
        before = turn - 1 + (items[0] / sum(items) if course is self.both[1] else 0.0)
        part = items[self.both.index(course)] / sum(items)
        return lambda text, share: say(text, (before + part * share) / TURNS)


def affordable(
    records: Sequence[Mapping[str, Any]], both: tuple[Course, Course], left_s: float
) -> int:
    """Rounds of each session that what is left pays for, those that are done included; 0 while
    nothing was measured.
    """
    costs = rounds.sample_costs(records)
    round_s = sum(rounds.round_cost(course, costs) for course in both)
    if not round_s:
        return 0
    done_s = 0.0
    for course in both:
        counts = rounds.good_samples(records, course.session)
        done_s += sum(counts[name] * costs.get(name, 0.0) for name in course.items)
    return int((max(left_s, 0.0) / MARGIN + done_s) / round_s)


def _result(
    log: Log, environment: dict[str, Any], both: tuple[Course, Course], need: int, budget: Budget
) -> CampaignResult:
    good = {course.session: rounds.good_rounds(log.records, course) for course in both}
    bad = {course.session: rounds.bad_rounds(log.records, course) for course in both}
    drift = _drift(log.records, both)
    reason = ", ".join(
        f"session {name}: {good[name]} undisturbed and {bad[name]} disturbed rounds"
        for name in good
    )
    stable = min(good.values()) >= need
    if drift is not None:
        reason += f", anchor {drift:+.1%} in the second"
    if not stable:
        spent = f"{budget.spent_s:.0f} of {budget.total_s:.0f} s were spent"
        reason += f" when {spent}; {need} undisturbed ones of each are needed"
    return CampaignResult(
        log.path or Path(),
        environment,
        stable,
        reason,
        good,
        bad,
        drift,
        budget.spent_s,
        log.broken,
    )


def _drift(records: Sequence[Mapping[str, Any]], both: tuple[Course, Course]) -> float | None:
    """Low quantile of the anchor in session b over that in a, minus 1."""
    found = [rounds.anchor_ms(records, course) for course in both]
    if not all(found):
        return None
    first_ms, again_ms = (stats.low_quantile(values) for values in found)
    return again_ms / first_ms - 1
