"""Devices: the targets of one device and batch compete, and its front is the union of theirs.

A device is named after its targets' device and batch, `pi5.b1`. Targets of another batch do not
compete: the latency of 8 images at once answers another question. Reads tables, predictor
and fronts of the run folder; needs neither torch nor sklearn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.predictors import predictor
from hwnas.run.context import Context, need
from hwnas.run.search import load_front, usable_table, warn_of_changes
from hwnas.search.front import Front
from hwnas.search.front import to_json as front_fields
from hwnas.search.union import union
from hwnas.tables.difference import IDENTITY
from hwnas.tables.table import CostTable, check_serves, load_table
from profilers.errors import ConfigError, HwnasError, TableError
from profilers.plugins import select
from profilers.schema import Target

FORMAT = "hwnas-device-front-1"


@dataclass(frozen=True)
class DeviceFront:
    """The front of a device, and what it was made of.

    Attributes:
        union: whose points name their targets.
        fronts: of each target that has networks in it, in the order of the settings.
        trust: of each of them: `verdict` of its table; `latency_share`, by which a predicted
            latency is uncertain; `error`, the standard deviation of a predicted error, a fraction.
        left_out: why each of the other targets has none.
    """

    union: Front
    fronts: dict[str, Front]
    trust: dict[str, dict[str, Any]]
    left_out: dict[str, HwnasError]

    @property
    def name(self) -> str:
        """Of the device and the batch."""
        return self.union.target

    def points_of(self, target: str) -> int:
        """How many points of the front are of a target."""
        return sum(point.target == target for point in self.union.points)


def device_name(target: str) -> str:
    """The device and batch of a target's name, `pi5.b1`; a device's own name holds no dot."""
    match = re.fullmatch(r"([^.]+)\..*\.(b\d+)\.t\d+(?:\.o[a-z]+)?(?:\.spin)?", target)
    return f"{match[1]}.{match[2]}" if match else target


def devices(targets: Iterable[str]) -> dict[str, list[str]]:
    """Targets by the device that they compete for, in their order."""
    found: dict[str, list[str]] = {}
    for name in targets:
        found.setdefault(device_name(name), []).append(name)
    return found


def is_named(name: str, word: str) -> bool:
    """Whether a word means a device: its name with the batch, or without it for every batch."""
    return word in (name, name.partition(".")[0])


def named(context: Context, wanted: Sequence[str]) -> dict[str, list[str]]:
    """The targets of devices by name; `pi5` means every batch of it, nothing every device.

    Raises:
        ConfigError: no target of the settings is of that device.
    """
    known = devices(context.config.targets)
    if not wanted:
        return known
    found: dict[str, list[str]] = {}
    for word in wanted:
        mine = {name: targets for name, targets in known.items() if is_named(name, word)}
        if not mine:
            raise _unknown(context, word, known)
        found |= mine
    return found


def _unknown(context: Context, word: str, known: Iterable[str]) -> ConfigError:
    """What to say of a device that the settings have no target of."""
    device = word.partition(".")[0]
    files = sorted((context.base / "targets").glob(f"{device}.*.yaml"))
    if files and device not in {name.partition(".")[0] for name in known}:
        return ConfigError(
            f"the settings name no target of device {device!r}; add one to targets, for example "
            f"{files[0].stem}"
        )
    try:
        select(word, {*known, *(name.partition(".")[0] for name in known)}, "device")
    except ConfigError as error:
        return error
    raise AssertionError(f"{word} is known")


def siblings(context: Context, target: str) -> list[str]:
    """The other targets of a target's device, where packages are made for devices; else none."""
    if context.config.export.per == "target":
        return []
    known = devices(dict.fromkeys((*context.config.targets, target)))
    return [name for name in known[device_name(target)] if name != target]


# ---- the front of one device --------------------------------------------------------------------


def device_front(context: Context, name: str, targets: Sequence[str]) -> DeviceFront:
    """The front of a device; targets without a usable one are left out.

    Args:
        context: of the run.
        name: of the device and batch.
        targets: its targets, at least one.

    Raises:
        HwnasError: none of them has a usable front; as of the first of those of least exit code.
    """
    fronts: dict[str, Front] = {}
    left_out: dict[str, HwnasError] = {}
    tables: dict[str, CostTable] = {}
    for target in targets:
        try:
            found, table = _usable(context, target)
            if table is not None:
                check_hardware(name, tables, table)
                tables[target] = table
            fronts[target] = found
        except HwnasError as error:
            left_out[target] = error
    if not fronts:
        first = min(left_out, key=lambda target: left_out[target].exit_code)
        of = f"device {name}: none of its {len(targets)} targets has a front that can be used"
        raise type(left_out[first])(f"{of}; {first}: {left_out[first]}")
    trust = {t: _trust(context, f, tables.get(t)) for t, f in fronts.items()}
    return DeviceFront(union(name, list(fronts.values())), fronts, trust, left_out)


def front_of(context: Context, target: str) -> DeviceFront:
    """The front of the device that a target is of, over the targets of the settings and this one.

    Raises:
        HwnasError: as `device_front`.
    """
    name = device_name(target)
    known = devices(dict.fromkeys((*context.config.targets, target)))
    return device_front(context, name, known[name])


def _usable(context: Context, target: str) -> tuple[Front, CostTable | None]:
    """The front of a target, if its table may be used, and that table where it is there.

    Raises:
        HwnasError: the target failed in this run, has no front, or its table is not good enough or
            not accepted.
    """
    if target in context.lost:
        raise context.lost[target]
    if not context.run.front(target).exists():
        usable_table(context, target)  # or says why it was not searched
        need(context.run.front(target), f"search --target {target}")
    found, path = load_front(context, target), context.table(target)
    if not path.exists():
        return found, None
    table = load_table(path)
    check_serves(table, context.space, context.accept | set(found.accepted))
    warn_of_changes(context, found)
    return found, table


def check_hardware(name: str, tables: Mapping[str, CostTable], table: CostTable) -> None:
    """Refuse a table that was measured on other hardware than the device's first one.

    Raises:
        TableError: what is best among tables of several machines is best on none.
    """
    for target, other in tables.items():
        for key in IDENTITY:
            its, here = other.environment.get(key), table.environment.get(key)
            if its and here and its != here:
                raise TableError(
                    f"its table was measured on other hardware ({key} {here}) than that of "
                    f"{target} ({its}), though both are of device {name}; profile it there, or "
                    "give each machine a device name of its own"
                )


def _trust(context: Context, found: Front, table: CostTable | None) -> dict[str, Any]:
    """How far predictions of a target may be off; what nobody knows is left out."""
    told: dict[str, Any] = {}
    if table is not None:
        told = {"verdict": table.verdict, "latency_share": table.calibration.get("uncertainty")}
    path = context.predictor(found.target)
    if "error" in found.objectives and path.exists():
        told["error"] = getattr(predictor.load(path, context.space), "residual_spread", None)
    return {name: value for name, value in told.items() if value is not None}


# ---- for programs -------------------------------------------------------------------------------


def target_fields(target: Target) -> dict[str, Any]:
    """How a target drives its device."""
    names = ("runtime", "precision", "threads", "optimisation", "spinning")
    return {"target": target.name, **{name: getattr(target, name) for name in names}}


def to_json(context: Context, found: DeviceFront) -> dict[str, Any]:
    """What `hwnas front --device --json` prints: docs/formats.md, "Front of a device"."""
    made = front_fields(found.union)
    kept = ("space", "geometry", "objectives", "reference_point", "hypervolume", "max_network")
    return {
        "format": FORMAT,
        "device": found.name,
        "batch": context.target(next(iter(found.fronts))).batch,
        **{name: made[name] for name in kept},
        "targets": [
            {
                **target_fields(context.target(name)),
                "networks": found.points_of(name),
                "algorithm": front.settings.get("algorithm"),
                "front": front.identity,
                "uncertainty": found.trust[name],
            }
            for name, front in found.fronts.items()
        ],
        "points": made["points"],
        "left_out": left_out_fields(found),
    }


def left_out_fields(found: DeviceFront) -> list[dict[str, Any]]:
    """Targets without networks in the front of their device, and why."""
    return [
        {"target": name, "exit_code": error.exit_code, "error": str(error)}
        for name, error in found.left_out.items()
    ]
