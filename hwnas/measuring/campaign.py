"""A measuring campaign: a kit in two sessions on one target, within one budget of device time.

    session a   every item of the kit
    session b   in engine sessions of its own, in other orders: held-out networks and anchor again

Both keep the same pace, a round of the one after a round of the other, as many as are wanted or as
the budget allows: a machine that drifts over tens of seconds (a virtual one with neighbours did by
15 %) would otherwise make the two differ by its drift and not by their noise. Half of the rounds
come from a second worker, which opens every model anew, because where a model comes to lie in
memory changes its time. Models that do not fit in memory together are measured in groups, each
visited by every worker for a few rounds. Protocol and statistics: docs/formats.md, "Measurements".
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.measuring import client, rounds
from hwnas.measuring.client import RemoteWorker
from hwnas.measuring.cpus import check_threads
from hwnas.measuring.kit_file import read_kit_file
from hwnas.measuring.records import Log, failures, is_lasting, open_log
from hwnas.measuring.retry import Retry
from hwnas.measuring.rounds import Budget, Runner, Say, SessionPlan
from hwnas.settings.config import ProfileConfig
from profilers import stats
from profilers.errors import ConfigError, DeviceFaultError, EngineCrashError, LostDeviceError
from profilers.schema import Target, canonical_json, sha256_text

TURNS = 2  # workers, each of which opens all models anew; more for groups, if there is time
MIN_ROUNDS = 8  # undisturbed rounds of each session below which a campaign is unstable ...
# ... and where they are measured in groups: opening them takes as long as four rounds of them, and
# with 6 rounds error and noise are 6 and 3 % larger than with 8 (ofa-mbv3-w10, 224 px).
MIN_GROUP_ROUNDS = 6
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
        failed: items that the engine cannot run, an op by its key, each with the reason.
        passing: items that could not be measured for want of memory, or because the device failed;
            the same campaign tries them again.
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
    failed: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


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
    first, again = session_plans(kit, settings.seed, settings.memory_mb * 1_000_000)
    budget = Budget(settings.budget_s * len({item["resolution"] for item in kit["items"]}))
    said = 0.0

    def tell(text: str, share: float) -> None:
        nonlocal said
        said = share
        say(text, share)

    retry = Retry(target, settings, lambda text: say(text, said))
    connect = retry.connecting(connect)
    purpose = f"profiling of {kit['space']}"
    environment = retry.through(connect, target, purpose, lambda worker: worker.probe())
    check_threads(target, environment)
    log = open_log(out, target, environment, sha256_text(canonical_json(kit)))
    campaign = _Campaign(log, (first, again), budget, settings.rounds)

    @contextlib.contextmanager
    def start() -> Iterator[RemoteWorker]:
        with connect(target, purpose) as worker:
            _send(worker, kit, kit_dir)
            yield worker

    turn, spent_s = 0, 0.0
    while turn < TURNS or campaign.affords(budget.spent_s - spent_s):
        turn, spent_s = turn + 1, budget.spent_s
        campaign = _take_turn(campaign, turn, start, tell, retry)
    found = _result(log, environment, campaign)
    failed, passing = (_named_failures(kit, log, lasting) for lasting in (True, False))
    return replace(found, failed=failed, passing=passing)


def _take_turn(
    campaign: _Campaign,
    turn: int,
    start: Callable[[], AbstractContextManager[RemoteWorker]],
    say: Say,
    retry: Retry,
) -> _Campaign:
    """Rounds of both sessions in a fresh worker, until the turn's goal or the budget's end; in
    another one without the model that the engine crashed on. Returns the campaign without the items
    that cannot be measured.

    Args:
        campaign: of the campaign.
        turn: from 1.
        start: a worker that has the kit.
        say: where progress goes.
        retry: waits for a lost board; gives up where worker after worker crashes on no known model.
    """
    while True:
        campaign = campaign.working()
        goal = campaign.goal(turn, sum(len(each.items) for each in campaign.both))
        plan = campaign.next(goal)
        if plan is None:
            return campaign
        try:
            with start() as worker:
                tell = campaign.progress(turn, say)
                runners = {
                    each.name: Runner(worker, campaign.log, each, campaign.budget, tell)
                    for each in campaign.both
                }
                while plan is not None and not runners[plan.name].done(goal):
                    runner = runners[plan.name]
                    runner.round(goal, campaign.grouped)
                    campaign = campaign.working()
                    goal = campaign.goal(turn, sum(each.unseen for each in runners.values()))
                    stays = campaign.grouped and runner.within_group(goal)
                    if not (stays and campaign.budget.left_s > 0):
                        plan = campaign.next(goal)
            return campaign
        except LostDeviceError as error:
            retry.lost(error, len(campaign.log.records))
        except EngineCrashError as error:
            if error.item:
                campaign.log.crashed(plan.name if plan else "", error)
            else:  # as where the device failed: another worker may do
                retry.lost(DeviceFaultError(str(error)), len(campaign.log.records))


def _named_failures(kit: Mapping[str, Any], log: Log, lasting: bool) -> tuple[str, ...]:
    """Each item that could not be measured, for good or this time, an op by its key, and why."""
    ops = {item["name"]: item["ops"] for item in kit["items"] if item["role"] == "micro"}
    return tuple(
        f"{ops[name][0]['key'] if name in ops else name}: {told['text']}"
        for name, told in log.failed.items()
        if is_lasting(told) == lasting
    )


def read_kit(folder: Path) -> dict[str, Any]:
    """The kit.json of a folder.

    Raises:
        FileFormatError: it is missing, truncated or of another format.
        ConfigError: it holds no anchor.
    """
    kit = read_kit_file(folder)
    if not any(item["role"] == "anchor" for item in kit["items"]):
        raise ConfigError(f"kit {folder} has no item with role anchor")
    return kit


def _send(worker: RemoteWorker, kit: Mapping[str, Any], folder: Path) -> None:
    worker.send_kit(kit, {item["sha256"]: folder / item["file"] for item in kit["items"]})


def session_plans(
    kit: Mapping[str, Any], seed: int, memory_bytes: int = 0
) -> tuple[SessionPlan, SessionPlan]:
    """Sessions a and b of a kit.

    Args:
        kit: content of `kit.json`.
        seed: of the orders.
        memory_bytes: of the models that are open at a time; 0: half of what is free.
    """
    roles = {item["name"]: item["role"] for item in kit["items"]}
    anchor = next(name for name, role in roles.items() if role == "anchor")
    others = tuple(name for name in roles if name != anchor)
    covering = frozenset(name for name in others if roles[name] == "covering")
    heldout = tuple(name for name in others if roles[name] == "heldout")
    return (
        SessionPlan("a", anchor, _mixed(others, roles), covering, seed, memory_bytes),
        SessionPlan("b", anchor, heldout, frozenset(), seed, memory_bytes),
    )


def _mixed(names: Sequence[str], roles: Mapping[str, str]) -> tuple[str, ...]:
    """The items with every role spread evenly, each in its order: a group that is measured at one
    time then holds some of all, and the held-out networks of both sessions meet.
    """
    place: dict[str, float] = {}
    for role in set(roles.values()):
        mine = [name for name in names if roles[name] == role]
        place |= {name: (i + 0.5) / len(mine) for i, name in enumerate(mine)}
    return tuple(sorted(names, key=lambda name: place[name]))


def unsettled(
    kit: Mapping[str, Any], records: Sequence[Mapping[str, Any]], wanted: int = MIN_ROUNDS
) -> str:
    """Why a kit's measurements are unstable; empty where they are not.

    Args:
        kit: content of `kit.json`.
        records: of one measurements file.
        wanted: undisturbed rounds of each session that were wanted; no more are needed.
    """
    both = [plan.without(failures(records)) for plan in session_plans(kit, seed=0)]
    good = {plan.name: rounds.good_rounds(records, plan) for plan in both}
    need = min(_enough(records, both), wanted)
    if min(good.values()) >= need:
        return ""
    seen = ", ".join(f"session {name}: {n} undisturbed rounds" for name, n in good.items())
    return f"{seen}; {need} of each are needed"


def _enough(records: Sequence[Mapping[str, Any]], both: Sequence[SessionPlan]) -> int:
    """Undisturbed rounds of each session that make a campaign stable."""
    grouped = any(rounds.is_grouped(records, plan) for plan in both)
    return MIN_GROUP_ROUNDS if grouped else MIN_ROUNDS


@dataclass(frozen=True)
class _Campaign:
    """How many rounds each session should have, from what was measured and what time is left."""

    log: Log
    both: tuple[SessionPlan, SessionPlan]
    budget: Budget
    most: int

    def working(self) -> _Campaign:
        """The campaign without the items that the engine cannot run.

        Raises:
            HwnasError: the anchor is one of them.
        """
        first, again = (plan.without(self.log.failed) for plan in self.both)
        return self if (first, again) == self.both else replace(self, both=(first, again))

    @property
    def grouped(self) -> bool:
        """Whether the items of a session do not fit in memory together."""
        return any(rounds.is_grouped(self.log.records, each) for each in self.both)

    @property
    def enough(self) -> int:
        """Undisturbed rounds of each session that make the campaign stable."""
        return min(_enough(self.log.records, self.both), self.most)

    def goal(self, turn: int, unopened: int) -> int:
        """Undisturbed rounds that each session should have when a turn ends: an equal share of
        all that time allows. Groups that are measured one after the other get as many in every
        turn, because the first group cannot know what the others cost.

        Args:
            turn: from 1.
            unopened: models that this turn has not opened yet.
        """
        if self.grouped:
            return min(math.ceil(self.enough * turn / TURNS), self.most)
        to_open = unopened + (TURNS - turn) * sum(len(plan.items) for plan in self.both)
        left_s = self.budget.left_s - self.budget.to_open_s(to_open)
        fits = affordable(self.log.records, self.both, left_s)
        return math.ceil(min(max(fits, self.enough), self.most) * turn / TURNS)

    def affords(self, turn_s: float) -> bool:
        """Whether groups may be measured in one more turn that takes as long as the last one."""
        counts = [rounds.good_rounds(self.log.records, plan) for plan in self.both]
        wanted = self.grouped and min(counts) < self.most
        return wanted and 0 < MARGIN * turn_s < self.budget.left_s

    def next(self, goal: int) -> SessionPlan | None:
        """The session whose round is next: b as soon as it is behind, else a; None at the end.

        No round of a begins that would leave b no time to follow.

        Args:
            goal: rounds that each session should have.
        """
        if self.budget.left_s <= 0:
            return None
        first, again = self.both
        done, followed = (self._samples(plan, goal) for plan in self.both)
        if followed * len(first.items) < done * len(again.items):
            return again
        if done >= goal * len(first.items):
            return None
        pair_s = MARGIN * rounds.rounds_cost(self.both, self.log.records)
        return first if self.grouped or self.budget.left_s > pair_s or not done else None

    def _samples(self, plan: SessionPlan, goal: int) -> int:
        """Samples of a session that count towards its goal."""
        counts = rounds.good_samples(self.log.records, plan.name)
        return sum(min(counts[name], goal) for name in plan.items)

    def progress(self, turn: int, say: Say) -> Say:
        """Where a turn's progress goes: its share of the turn becomes one of the campaign."""
        return lambda text, share: say(text, min((turn - 1 + share) / TURNS, 1.0))


def affordable(
    records: Sequence[Mapping[str, Any]], both: tuple[SessionPlan, SessionPlan], left_s: float
) -> int:
    """Rounds of each session that the remaining time allows, including those done; 0 before the
    first.
    """
    round_s = rounds.rounds_cost(both, records)
    if not round_s:
        return 0
    costs, done_s = rounds.sample_costs(records), 0.0
    for plan in both:
        counts = rounds.good_samples(records, plan.name)
        done_s += sum(counts[name] * costs.get(name, 0.0) for name in plan.items)
    done_s *= rounds.anchor_overhead(records)
    return int((max(left_s, 0.0) / MARGIN + done_s) / round_s)


def _result(log: Log, environment: dict[str, Any], campaign: _Campaign) -> CampaignResult:
    both, budget, need = campaign.both, campaign.budget, campaign.enough
    good = {plan.name: rounds.good_rounds(log.records, plan) for plan in both}
    bad = {plan.name: rounds.bad_rounds(log.records, plan) for plan in both}
    drift = _drift(log.records, both)
    reason = ", ".join(
        f"session {name}: {good[name]} undisturbed and {bad[name]} disturbed rounds"
        for name in good
    )
    stable = min(good.values()) >= need
    if drift is not None:
        reason += f", anchor {drift:+.1%} in the second"
    if not stable:
        reason += f" when {budget}; {need} undisturbed ones of each are needed"
    return CampaignResult(
        log.path or Path(),
        environment,
        stable,
        reason,
        good,
        bad,
        drift,
        budget.device_s,
        log.broken,
    )


def _drift(
    records: Sequence[Mapping[str, Any]], both: tuple[SessionPlan, SessionPlan]
) -> float | None:
    """Low quantile of the anchor in session b over that in a, minus 1."""
    found = [rounds.anchor_ms(records, plan) for plan in both]
    if not all(found):
        return None
    first_ms, again_ms = (stats.low_quantile(values) for values in found)
    return again_ms / first_ms - 1
