"""Energy windows of a kit's networks on a target, within a budget of their own.

About 15 whole networks, small to large, three windows each, one window of every network before the
second of any. They go into the measurements of the campaign, so that the same call goes on where it
stopped. Protocol: docs/formats.md, "Measurements".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import client, connections
from hwnas.measuring.client import RemoteWorker
from hwnas.measuring.records import Log
from hwnas.measuring.retry import Retry
from hwnas.measuring.rounds import Say
from hwnas.measuring.windows import session_of, summary
from hwnas.networks.ops import parse_key
from hwnas.settings.config import ProfileConfig
from profilers.errors import MeterError
from profilers.schema import Target, canonical_json, sha256_text

NETWORKS, FEWEST = 15, 8  # networks; fewest, however small the budget is
WINDOWS = 3  # of each network
PERIODS = 50.0  # of the sensor, that a window takes at least
HELDOUT_EVERY = 3  # one network in so many only says how good the energies are
NO_CLUSTER = "energy is not measured through a cluster; leave out `cluster` to measure it"
TRIES = 2  # of a window whose energy stays unknown
REST = 2.4  # device time of a window over the window itself: rest, settling

Connect = Callable[[Target, str], AbstractContextManager[RemoteWorker]]


class EnergyResult(NamedTuple):
    """How the windows ended: how many there are, of how many networks, about how many seconds were
    spent now, and why there are not more; empty if all are there.
    """

    windows: int
    networks: int
    device_s: float
    reason: str


def run_energy(
    target: Target,
    kit: Mapping[str, Any],
    files: Mapping[str, Path],
    log: Log,
    settings: ProfileConfig,
    say: Say,
    connect: Connect = client.connect,
) -> EnergyResult:
    """Measure the energy of some networks of a kit, or go on where an earlier run stopped.

    Args:
        target: with a meter.
        kit: content of `kit.json`.
        files: model file of each sha256.
        log: of the campaign; windows are appended.
        settings: energy_budget_s, energy_window_s, seed.
        say: as of `campaign.run_campaign`.
        connect: starts a worker for a target and a purpose.

    Raises:
        DeviceError: the worker could not be started, or ended; the same call resumes.
    """
    names = [name for name in metered(kit) if name not in log.failed]
    session = session_of(target)
    before_s, told = _cost_s(log, session), 0.0

    def tell(text: str, share: float) -> None:
        nonlocal told
        told = share
        say(text, share)

    def work(worker: RemoteWorker) -> str:
        worker.send_kit(kit, files)
        return _measure_all(worker, log, target, names, settings, tell)

    reason = ""
    if not connections.drives(target):
        reason = NO_CLUSTER
    elif next_window(log, session, names[: affordable(log, session, settings)], settings):
        retry = Retry(target, settings, lambda text: say(text, told))
        purpose = f"energy of {kit.get('space', 'models')}"
        start = retry.connecting(connect)
        reason = retry.through(start, target, purpose, work, lambda: len(log.records))
    found = _windows(log, session)
    networks = len({record["id"][3] for record in found})
    return EnergyResult(len(found), networks, _cost_s(log, session) - before_s, reason)


def _measure_all(
    worker: RemoteWorker,
    log: Log,
    target: Target,
    names: Sequence[str],
    settings: ProfileConfig,
    say: Say,
) -> str:
    """Measure the due windows; why it stopped early, or ""."""
    session = session_of(target)
    while True:
        wanted = names[: affordable(log, session, settings)]
        due = next_window(log, session, wanted, settings)
        if due is None:
            return ""
        done = len(_windows(log, session))
        left_s = max(settings.energy_budget_s - _cost_s(log, session), 0.0)
        share = min(done / (WINDOWS * len(wanted)), 1.0)
        say(f"energy, {done} windows, {left_s:.0f} s of the budget left", share)
        if left_s <= 0 and done >= len(wanted):
            return f"the energy budget of {settings.energy_budget_s:g} s is spent"
        reason = _measure(worker, log, target, due, settings)
        if reason:
            return reason


def _measure(
    worker: RemoteWorker,
    log: Log,
    target: Target,
    due: tuple[int, str],
    settings: ProfileConfig,
) -> str:
    """One window into the log, tried again where the meter made no sense of it; why its energy
    stays unknown, or empty.
    """
    number, item = due
    window = {"least_s": float(settings.energy_window_s), "periods": PERIODS}
    reason = ""
    for _ in range(TRIES):
        try:
            found, _ = worker.energy([item], window)
        except MeterError as error:
            reason = str(error)
            continue
        told = [{**record, "meter": target.meter} for record in found]
        log.append(session_of(target), number, told)
        return ""
    return reason


def metered(kit: Mapping[str, Any]) -> list[str]:
    """Names of networks to meter, so that any first few of them are small to large, and one in
    three is held out.
    """
    held = _spread([item for item in kit["items"] if item["role"] == "heldout"])
    fitted = _spread([item for item in kit["items"] if item["role"] == "calibration"])
    fitted = fitted or _spread([item for item in kit["items"] if item["role"] == "covering"])
    out: list[str] = []
    while held or fitted:
        turn = held if (len(out) % HELDOUT_EVERY == HELDOUT_EVERY - 1 and held) else fitted or held
        out.append(turn.pop(0))
    return out[:NETWORKS]


def _spread(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names by MACs: the ends first, then the middle, then the quarters, and so on."""
    by_macs = sorted(items, key=_macs)
    places = [0, len(by_macs) - 1] if by_macs else []
    step = float(len(by_macs) - 1)
    while len(set(places)) < len(by_macs):
        step /= 2
        odd = np.arange(step, len(by_macs) - 1, 2 * step)
        places += [round(float(place)) for place in odd]
    return [by_macs[place]["name"] for place in dict.fromkeys(places)]


def _macs(item: Mapping[str, Any]) -> int:
    return sum(parse_key(op["key"]).macs for op in item["ops"])


def affordable(log: Log, session: str, settings: ProfileConfig) -> int:
    """Networks that the budget pays three windows of; as many as wanted while nothing is known."""
    windows = _windows(log, session)
    if not windows:
        return NETWORKS
    each_s = WINDOWS * _cost_s(log, session) / len(windows)
    return min(NETWORKS, max(FEWEST, int(settings.energy_budget_s / each_s)))


def next_window(
    log: Log, session: str, names: Sequence[str], settings: ProfileConfig
) -> tuple[int, str] | None:
    """Round and item of the window that is due; every round has an order of its own."""
    done = {(record["id"][2], record["id"][3]) for record in _windows(log, session)}
    for number in range(WINDOWS):
        rng = np.random.default_rng([settings.seed, number])
        for place in rng.permutation(len(names)):
            if (number, names[place]) not in done:
                return number, names[place]
    return None


def _windows(log: Log, session: str) -> list[dict[str, Any]]:
    return [r for r in log.records if "energy_mj" in r and r["id"][1] == session]


def _cost_s(log: Log, session: str) -> float:
    """Device time of the windows there are, about."""
    return REST * float(sum(record["window_s"] for record in _windows(log, session)))


def measure_energy(
    target: Target,
    kit: Mapping[str, Any],
    files: Mapping[str, Path],
    names: Sequence[str],
    settings: ProfileConfig,
    connect: Connect = client.connect,
) -> dict[str, dict[str, Any]]:
    """Energy of some items of a kit: `summary` of each. Measures at least one window, and more
    while the budget lasts.

    Args:
        target: with a meter.
        kit: content of `kit.json`.
        files: model file of each sha256.
        names: items.
        settings: energy_budget_s, energy_window_s, seed.
        connect: starts a worker for a target and a purpose.

    Raises:
        MeterError: the energy of one stays unknown; says why.
        DeviceError: the worker could not be started, or ended.
    """
    if not connections.drives(target):
        raise MeterError(NO_CLUSTER)
    log, session = Log(sha256_text(canonical_json(kit))), session_of(target)

    def work(worker: RemoteWorker) -> None:
        worker.send_kit(kit, files)
        while (due := next_window(log, session, names, settings)) is not None:
            if due[0] > 0 and _cost_s(log, session) >= settings.energy_budget_s:
                return
            reason = _measure(worker, log, target, due, settings)
            if reason:
                raise MeterError(reason)

    retry = Retry(target, settings)
    start = retry.connecting(connect)
    retry.through(start, target, "energy of models", work, lambda: len(log.records))
    found = _windows(log, session)
    return {name: summary([w for w in found if w["id"][3] == name]) for name in names}
