"""Requests through a worker that is driven from here: environment, latency, energy and outputs.

Every request starts a worker of its own, also on this machine, and ends it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import client, energy, replies, rounds, verdict
from hwnas.measuring.campaign import MIN_ROUNDS
from hwnas.measuring.campaign import run_campaign as run_campaign  # asked for like the rest
from hwnas.measuring.client import RemoteWorker
from hwnas.measuring.cpus import check_threads
from hwnas.measuring.records import Log
from hwnas.measuring.retry import Retry, persistently
from hwnas.measuring.rounds import Budget, Runner, Say, SessionPlan
from hwnas.networks.space import PlacedOp
from hwnas.settings.config import ProfileConfig
from profilers import runtimes
from profilers.errors import (
    ConfigError,
    MemoryShortError,
    MeterError,
    UnstableMeasurementError,
)
from profilers.schema import KIT_FORMAT, Target, canonical_json, sha256_file, sha256_text

SESSIONS = ("m", "n")  # of models, each in a worker of its own: what they differ by is told ...
MORE = ("o", "p")  # ... and these too, as long as no two of them agree


def probe(target: Target, settings: ProfileConfig | None = None) -> dict[str, Any]:
    """The environment that numbers of a target would be taken on, with its `fingerprint`.

    Args:
        target: what to ask.
        settings: how long it is waited for; the defaults if None.

    Raises:
        ConfigError: the device or runtime is unknown, or has fewer CPUs than the target threads.
        DeviceError: the device cannot be reached, or lacks the engine.
    """
    retry = Retry(target, settings or ProfileConfig())
    start = retry.connecting(_shared)
    found = retry.through(start, target, "probe", lambda worker: worker.probe())
    check_threads(target, found)
    return found


def measure_models(
    target: Target,
    paths: Sequence[Path],
    settings: ProfileConfig,
    say: Say = lambda text, share: None,
    ops: Sequence[Sequence[PlacedOp]] = (),
) -> list[dict[str, Any]]:
    """Latency of ONNX files under the protocol and statistics of campaigns, interleaved.

    Args:
        target: what to measure on.
        paths: files with their weights inside and static shapes; the first is the anchor as well.
        settings: budget in seconds of device time, rounds, seed.
        say: as of `run_campaign`.
        ops: what each model is made of, where known; only the runtime `fake` looks at it.

    Returns:
        for each file: latency_ms, median_ms, p95_ms, spread (a share), rounds, disturbed (rounds
        left out), loops (runs of a sample), verdict and reason.

    Raises:
        ConfigError: a file is missing or cannot be loaded.
        UnstableMeasurementError: the budget ended before enough undisturbed rounds were seen.
        DeviceError: the worker could not be started, or ended.
    """
    kit = models_kit(paths, ops)
    names = [item["name"] for item in kit["items"]]
    files = {item["sha256"]: paths[max(i - 1, 0)] for i, item in enumerate(kit["items"])}
    try:
        found = measure_items(target, kit, files, names, settings, say)
    except (ConfigError, MemoryShortError) as error:
        text = str(error)
        for item, path in zip(kit["items"], [paths[0], *paths], strict=True):
            text = text.replace(item["file"], str(path))
        raise type(error)(text) from None
    return [found[name] for name in names[1:]]


def measure_items(
    target: Target,
    kit: Mapping[str, Any],
    files: Mapping[str, Path],
    names: Sequence[str],
    settings: ProfileConfig,
    say: Say = lambda text, share: None,
) -> dict[str, dict[str, Any]]:
    """Latency of some items of a kit, interleaved, half of the rounds in each of two workers, and
    as many in a third and a fourth, where the budget allows and those before do not agree.

    Args:
        target: what to measure on.
        kit: content of `kit.json`.
        files: model file of each sha256.
        names: items; the first is the anchor.
        settings: budget in seconds of device time, rounds, seed.
        say: as of `run_campaign`.

    Returns:
        what `measure_models` returns for each name.

    Raises:
        UnstableMeasurementError, DeviceError, ConfigError: as `measure_models`.
    """
    log = Log(sha256_text(canonical_json(kit)))
    good, spent_s, took_s = 0, 0.0, 0.0

    def measure(
        plan: SessionPlan, budget: Budget, wanted: int, turn: int, worker: RemoteWorker
    ) -> None:
        worker.send_kit(kit, files)
        tell: Say = lambda text, share: say(text, (turn + share) / len(SESSIONS))  # noqa: E731
        runner = Runner(worker, log, plan, budget, tell)
        while not runner.done(wanted) and budget.left_s > 0:
            runner.round(wanted, rounds.is_grouped(log.records, plan))
            for told in log.failed.values():
                raise replies.error_from_fields(told)

    for number, session in enumerate(SESSIONS + MORE):
        turn = min(number, len(SESSIONS) - 1)
        budget = Budget((settings.budget_s - spent_s) / (len(SESSIONS) - turn))
        if number > turn and (
            budget.total_s < took_s or verdict.is_confirmed(log.records, names[1:])
        ):
            break
        plan = SessionPlan(session, names[0], tuple(names[1:]), frozenset(), settings.seed)
        wanted = (settings.rounds + len(SESSIONS) - 1 - turn) // len(SESSIONS)
        work = functools.partial(measure, plan, budget, wanted, turn)
        persistently(target, "timing of models", work, settings, lambda: len(log.records))
        took_s = budget.spent_s
        good, spent_s = good + rounds.good_rounds(log.records, plan), spent_s + took_s
    need = min(MIN_ROUNDS, settings.rounds)
    if good < need:
        raise UnstableMeasurementError(
            f"{good} undisturbed rounds in {spent_s:.0f} s, {need} are needed; stop other "
            "work on the device or raise profile.budget_s"
        )
    return {name: verdict.latency(log.records, name) for name in names}


def measure_energies(
    target: Target,
    paths: Sequence[Path],
    settings: ProfileConfig,
    ops: Sequence[Sequence[PlacedOp]] = (),
) -> list[dict[str, Any]]:
    """Energy of ONNX files by the target's meter, in windows of each in turn.

    Args:
        target: with a meter.
        paths: files with their weights inside and static shapes.
        settings: energy_budget_s, energy_window_s, seed.
        ops: what each model is made of, where known; only the runtime `fake` looks at it.

    Returns:
        for each file: what `windows.summary` returns.

    Raises:
        MeterError: the meter cannot be read, or makes no sense.
        ConfigError, DeviceError: as `measure_models`.
    """
    kit = models_kit(paths, ops)
    names = [item["name"] for item in kit["items"]]
    files = {item["sha256"]: paths[max(i - 1, 0)] for i, item in enumerate(kit["items"])}
    found = energy.measure_energy(target, kit, files, names[1:], settings)
    return [found[name] for name in names[1:]]


def energy_fields(
    target: Target,
    paths: Sequence[Path],
    settings: ProfileConfig,
    ops: Sequence[Sequence[PlacedOp]] = (),
) -> list[dict[str, Any]]:
    """Energy of ONNX files as documents tell it; arguments as `measure_energies`.

    Returns:
        for each file: energy_mj (None where it is unknown) and `energy` (the rest, or the reason);
        nothing where the target has no meter or the budget is 0.
    """
    if target.meter == "none" or not settings.energy_budget_s:
        return [{} for _ in paths]
    try:
        found = measure_energies(target, paths, settings, ops)
    except MeterError as error:
        return [{"energy_mj": None, "energy": {"reason": str(error)}} for _ in paths]
    return [
        {"energy_mj": each.pop("energy_mj"), "energy": {**each, **verdict.energy(each)}}
        for each in found
    ]


def cold_start(target: Target, path: Path, name: str = "") -> dict[str, Any]:
    """What an ONNX file costs before its first answer, and the memory it needs, in a fresh worker.

    Args:
        target: what to load it on.
        path: file with its weights inside and static shapes, for the target's batch size.
        name: of the model in errors; its path if empty.

    Returns:
        load_ms (creation of the session), first_run_ms; engine_bytes, resident_bytes: memory of
        the worker with the engine only, and with the model loaded and run; input_shape, None if
        not known; cold_start: verdict and reason.

    Raises:
        ConfigError: the file is missing, cannot be loaded, or has another batch size.
        DeviceError: the worker could not be started, or ended.
    """
    kit, name = models_kit([path], ()), name or str(path)
    item = kit["items"][1]

    def load(worker: RemoteWorker) -> dict[str, Any]:
        worker.send_kit(kit, {item["sha256"]: path})
        return worker.cold(item["name"])

    try:
        found = persistently(target, "timing of a cold start", load)
    except (ConfigError, MemoryShortError) as error:
        raise type(error)(f"{name}: {str(error).replace(item['file'], 'it')}") from None
    shape = found["input_shape"]
    if shape and shape[0] != target.batch:
        raise ConfigError(
            f"{name}: takes batches of {shape[0]}, target {target.name} is for batches of "
            f"{target.batch}; name a target with b{shape[0]}, or export the model again"
        )
    return {**found, "cold_start": verdict.cold_start(found)}


def run_model(target: Target, path: Path, inputs: np.ndarray) -> np.ndarray:
    """Outputs of an ONNX file, computed by the engine of a target.

    Args:
        target: where and with what.
        path: file with its weights inside; its batch is static, the last one is filled up.
        inputs: (n, channels, height, width), any n of at least 1.

    Returns:
        (n, ...) float32, the first output.

    Raises:
        ConfigError: the file cannot be loaded, or inputs of another shape are expected.
        DeviceError: the worker could not be started, ended, or its engine failed.
    """
    model = _existing(path).read_bytes()
    return persistently(target, "running a model", lambda worker: worker.run(model, inputs))


def built_files(
    target: Target, paths: Sequence[Path], ops: Sequence[Sequence[PlacedOp]] = ()
) -> list[list[bytes]]:
    """The files that a target's engine has made of each ONNX file, as it was measured; built now
    where the device keeps them no more.

    Args:
        target: its engine makes files.
        paths, ops: as `measure_models` was given them.
    """
    kit = models_kit(paths, ops)
    items, count = kit["items"][1:], len(runtimes.engine(target.runtime).built)

    def take(worker: RemoteWorker) -> list[list[bytes]]:
        files = dict(zip((item["sha256"] for item in items), paths, strict=True))
        worker.send_kit(kit, files)
        return [worker.built(item["name"], count) for item in items]

    return persistently(target, "fetching what was built", take)


def clean(target: Target) -> tuple[str, int]:
    """Remove everything that workers keep on a device; the folder there, and bytes freed.

    Raises:
        DeviceBusyError: a campaign is running there.
        DeviceError: the device cannot be reached.
    """
    return persistently(target, "cleaning", lambda worker: worker.clean())


def _shared(target: Target, purpose: str) -> AbstractContextManager[RemoteWorker]:
    """A worker that does not keep others off."""
    return client.connect(target, purpose, exclusive=False)


def models_kit(paths: Sequence[Path], ops: Sequence[Sequence[PlacedOp]]) -> dict[str, Any]:
    """A kit of models with their weights inside: the anchor (the first one again), then each.

    Raises:
        ConfigError: a file does not exist.
    """
    if not paths:
        raise ConfigError("no model was given to measure")
    made_of = [[{"slot": at.slot, "key": at.op.key} for at in network] for network in ops]
    made_of = made_of or [[] for _ in paths]
    items = [_item(f"model-{i:03d}", path, made_of[i]) for i, path in enumerate(paths)]
    anchor = {**items[0], "name": "anchor", "file": "anchor.onnx", "role": "anchor"}
    return {
        "format": KIT_FORMAT,
        "seed": 0,
        "items": [anchor, *items],
        "weights": {"bytes": 0, "sha256": "", "tensors": {}},
    }


def _item(name: str, path: Path, ops: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "name": name,
        "file": f"{name}.onnx",
        "sha256": sha256_file(_existing(path)),
        "role": "model",
        "ops": ops,
        "inputs": {},
    }


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    return path
