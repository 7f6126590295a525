"""Latency of a model when the device is hot: run without rest, told over time.

Small boards and fanless ones are fast for a minute and then throttle; the latency of a campaign,
which is the undisturbed one, does not show that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import client, verdict
from hwnas.measuring.here import models_kit
from hwnas.measuring.rounds import Say
from hwnas.networks.space import PlacedOp
from profilers import stats
from profilers.errors import DeviceError
from profilers.schema import Target

SESSION = "s"
ROUND_S = 1.0  # of running between two answers of the worker
MOST_SAMPLES = 2000  # of one round
WINDOWS = 20  # equal parts of the time that the rate is told for
ENDS = 0.1  # share of the time that counts as the first, and as the last


def sustained(
    target: Target, path: Path, duration_s: float, say: Say, ops: Sequence[PlacedOp] = ()
) -> dict[str, Any]:
    """What an ONNX file takes while it runs without rest.

    Args:
        target: what to run it on.
        path: file with its weights inside and static shapes.
        duration_s: how long.
        say: called with a line of progress and the share done.
        ops: what it is made of, where known; only the runtime `fake` looks at it.

    Returns:
        of `over_time`, and temperature_c: before and after, None where the device does not tell.

    Raises:
        ConfigError: the file cannot be loaded.
        DeviceError: the worker could not be started, ended, or its clock stands still.
    """
    kit = models_kit([path], [ops])
    item = kit["items"][1]
    records: list[Mapping[str, Any]] = []
    count, passed_s = 1, 0.0
    with client.connect(target, "a sustained run") as worker:
        worker.send_kit(kit, {item["sha256"]: path})
        for _ in range(10 + math.ceil(4 * duration_s / ROUND_S)):
            say(f"{passed_s:.0f} of {duration_s:.0f} s at full speed", passed_s / duration_s)
            loops = {item["name"]: records[0]["loops"]} if records else {}
            records += worker.measure(SESSION, [item["name"]] * count, loops).records
            passed_s = records[-1]["t_s"] - records[0]["t_s"]
            if passed_s >= duration_s:
                return {**over_time(records, target.batch), **_temperatures(records)}
            cost_s = records[-1]["ms"] * (records[-1]["loops"] + records[-1]["warm"]) / 1000
            count = min(max(1, math.ceil(ROUND_S / cost_s)), MOST_SAMPLES)
    raise DeviceError(
        f"{path} ran for {passed_s:.1f} of {duration_s:g} s by the clock of {target.name} and "
        "no end came; check the device's clock"
    )


def over_time(records: Sequence[Mapping[str, Any]], batch: int) -> dict[str, Any]:
    """First against last latency, and the rate over time.

    Args:
        records: samples of one model, in order.
        batch: images of one run.

    Returns:
        duration_s; first_ms, last_ms: medians over the first and the last tenth of the time;
        slowdown: last over first, minus 1; rate: [seconds since the start, images per second] of
        equal parts of the time; verdict, reason.
    """
    t_s = np.array([record["t_s"] for record in records]) - records[0]["t_s"]
    ms = np.array([record["ms"] for record in records])
    length_s = float(t_s[-1])
    first = stats.median(ms[t_s <= ENDS * length_s])
    last = stats.median(ms[t_s >= (1 - ENDS) * length_s])
    part = np.minimum((WINDOWS * t_s / length_s).astype(int), WINDOWS - 1) if length_s else t_s
    found = [(t_s[part == n], ms[part == n]) for n in range(WINDOWS) if (part == n).any()]
    rate = [
        [round(float(times.mean()), 3), 1000 * batch / stats.median(each)] for times, each in found
    ]
    return {
        "duration_s": length_s,
        "first_ms": first,
        "last_ms": last,
        "slowdown": last / first - 1,
        "rate": rate,
        **verdict.sustained(records, [each for _, each in found]),
    }


def _temperatures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the device told of its temperature first and last."""
    told = [record["probe"].get("temperature_c") for record in records if "probe" in record]
    return {"temperature_c": [told[0], told[-1]] if told else None}
