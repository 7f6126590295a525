"""Latency-table YAML of once-for-all to a table of one of its MobileNet spaces.

One file for each resolution, `<px>_lookup_table.yaml`: `{key: {count, mean, std}}`, times in ms;
older files hold `var` for `std`, and a file of another name is for the one input size in its keys.
A key names an op by its shapes (height x width x channels). No file says on what or how it was
measured: the target's name has to. Nothing is fitted and nothing can be validated: there are no
whole networks; times in another unit than ms are refused where no device is as slow or as fast.
Files for Proxyless hold pooling and classifier as one entry, which the two share by the numbers
that each reads.

Source: ofa/tutorial/latency_table.py and ofa/nas/efficiency_predictor/latency_lookup_table.py of
    github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.measuring import coverage
from hwnas.networks.counts import exact_costs
from hwnas.networks.families.mbv3 import MbV3
from hwnas.networks.space import PlacedOp, SearchSpace
from hwnas.ofa.dictionaries import load_like
from hwnas.ofa.families import is_resnet
from hwnas.settings.config_file import read_yaml
from hwnas.tables.imported import Costs, check_plausible, hashes, imported_table
from hwnas.tables.table import CostTable, network_latency
from profilers.errors import ConfigError, FileFormatError, MissingOpError, TableError
from profilers.schema import Target

NAMES = {  # of the ops that every network has, by slot
    "stem": "Conv",
    "expand": "Conv_1",
    "pool": "AvgPool2D",
    "mix": "Conv_2",
    "classifier": "Logits",
}
POOLING = ""  # what a file for Proxyless calls it: nothing
SHOWN = 3  # missing keys that a message names

Row = dict[str, Any]


def import_tables(paths: Sequence[Path], space_name: str, target: Target) -> CostTable:
    """The table that look-up files of one device make.

    Args:
        paths: files, each of another resolution.
        space_name: of once-for-all's MobileNets, or a user's own `module:NAME`.
        target: what the files were measured on.

    Returns:
        a table marked `imported`, with verdict `unvalidated` and intercept 0. An op that occurs at
        several resolutions costs the mean of what the files say.

    Raises:
        ConfigError: a file is missing, cannot be read, or has no resolution of the space.
        TableError: a file is of another space, width or resolution.
        MissingOpError: a file lacks ops of the space.
    """
    space = load_like(space_name)
    if is_resnet(space):
        raise ConfigError(f"space {space_name}: once-for-all has look-up files of MobileNets only")
    space = space.restricted(space.every_resolution)
    files = _by_resolution(paths, space)
    found: dict[str, list[Row]] = {}
    for size, path in files.items():
        for key, row in _rows(path, space.restricted([size])).items():
            found.setdefault(key, []).append(row)
    costs = Costs(
        {key: _merged(rows) for key, rows in found.items()},
        {
            "estimator": "once-for-all look-up table",
            "intercept_ms": {str(size): 0.0 for size in files},
        },
        {"statistic": "mean, as the imported files give it"},
    )
    space = space.restricted(files)
    made = imported_table(space, target, costs, hashes(*files.values()))
    for size, path in files.items():
        check_plausible(str(path), made, space.largest_at(size))
    return made


def max_network(table: CostTable, space: SearchSpace) -> str:
    """What the max network of an imported table takes, in words: nothing else tells its unit."""
    size = table.resolutions[-1]
    largest = space.largest_at(size)
    total_ms = network_latency(table, largest)
    macs = exact_costs(largest)["macs"] * int(table.target["batch"])
    rate = macs / total_ms / 1e6
    return f"the max network takes {total_ms:.4g} ms at {size} px ({rate:.4g} GMAC/s)"


def key_of(placed: PlacedOp, by_ratio: bool = False) -> str:
    """What a file calls an op.

    Args:
        placed: of a space of MobileNets.
        by_ratio: the older form of blocks, whose `expand` is the ratio and not the mid channels,
            and which tells neither squeeze-excite nor activation.
    """
    slot, made = placed.slot, placed.op
    taken, given = _shape(made.inputs[0]), _shape(made.shape)
    if slot == "classifier":
        given = str(made.shape[0])
    if slot in NAMES:
        return f"{NAMES[slot]}-input:{taken}-output:{given}"
    expand = made["mid"] // made.inputs[0][0] if by_ratio else made["mid"]
    key = (
        f"expanded_conv-input:{taken}-output:{given}-expand:{expand}-kernel:{made['kernel']}-"
        f"stride:{made['stride']}-idskip:{int(made['residual'])}"
    )
    rest = f"-se:{int(made['se'] > 0)}-hs:{int(made['act'] == 'h_swish')}"
    return key if by_ratio else key + rest


def keys_of(space: SearchSpace, by_ratio: bool = False) -> dict[str, str]:
    """What a file calls each op of a space, by op key; POOLING for an op without an entry.

    Args:
        space: of MobileNets, restricted to one resolution.
        by_ratio: as for `key_of`; files for Proxyless always are.
    """
    ops = list(coverage.distinct_ops(space).values())
    if _has_mix(space):
        return {placed.op.key: key_of(placed, by_ratio) for placed in ops}
    keys = {placed.op.key: key_of(placed, by_ratio=True) for placed in ops}
    last = {placed.slot: placed.op for placed in ops}
    pool, classifier = last["pool"], last["classifier"]
    taken = _shape(pool.inputs[0])
    keys[classifier.key] = f"Logits-input:{taken}-output:{classifier.shape[0]}"
    keys[pool.key] = POOLING
    return keys


def _shape(shape: tuple[int, ...]) -> str:
    """Height, width and channels of an op's end."""
    channels, height, width = (*shape, 1, 1)[:3]
    return f"{height}x{width}x{channels}"


def _has_mix(space: SearchSpace) -> bool:
    """Whether the space has MobileNetV3's last hidden layer; Proxyless has none."""
    return isinstance(space.family, MbV3) and space.family.head.width > 0


def _by_resolution(paths: Sequence[Path], space: SearchSpace) -> dict[int, Path]:
    """The files by resolution, ascending."""
    found: dict[int, Path] = {}
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path} does not exist")
        match = re.fullmatch(r"(\d{1,5})_lookup_table\.ya?ml", path.name)
        size = int(match.group(1)) if match else _size_inside(path)
        if size not in space.resolutions:
            raise ConfigError(
                f"{path}: expected a name like 224_lookup_table.yaml, or keys of one input size, "
                f"with a resolution of {space.name}: {space.resolutions[0]} to "
                f"{space.resolutions[-1]} px in steps of 4"
            )
        if size in found:
            raise ConfigError(f"{path} and {found[size]} are both for {size} px; give one of them")
        found[size] = path
    return dict(sorted(found.items()))


def _size_inside(path: Path) -> int:
    """The one input size of the first convolutions in a file, px; 0 where there is not one."""
    found = {re.match(r"Conv-input:(\d{1,5})x", str(key)) for key in read_yaml(path)}
    sizes = {int(match.group(1)) for match in found if match}
    return sizes.pop() if len(sizes) == 1 else 0


def _rows(path: Path, space: SearchSpace) -> dict[str, Row]:
    """The rows of one file, by op key.

    Args:
        path: of the file.
        space: restricted to its resolution.
    """
    entries = read_yaml(path)
    by_ratio = not any("-se:" in str(key) for key in entries)
    keys = keys_of(space, by_ratio)
    _refuse_other_space(path, entries, keys.values(), space)
    missing = [key for key in keys.values() if key != POOLING and key not in entries]
    if missing:
        few = ", ".join(missing[:SHOWN])
        raise MissingOpError(
            f"{path} lacks {len(missing)} of {len(keys)} keys of {space.name} at "
            f"{space.resolutions[0]} px: {few}{', ...' if len(missing) > SHOWN else ''}"
        )
    rows = {op: _row(path, key, entries[key]) for op, key in keys.items() if key != POOLING}
    return rows if _has_mix(space) else _with_pooling(rows, space)


def _with_pooling(rows: dict[str, Row], space: SearchSpace) -> dict[str, Row]:
    """The rows of a file for Proxyless, its last entry shared by pooling and classifier."""
    last = {placed.slot: placed.op for placed in space.largest.ops}
    pool, classifier = last["pool"], last["classifier"]
    reads = math.prod(pool.inputs[0])
    share = reads / (reads + classifier.params)
    both = rows[classifier.key]
    return {
        **rows,
        pool.key: {**both, "latency_ms": share * both["latency_ms"]},
        classifier.key: {**both, "latency_ms": (1 - share) * both["latency_ms"]},
    }


def _refuse_other_space(
    path: Path, entries: Mapping[Any, Any], wanted: Iterable[str], space: SearchSpace
) -> None:
    """A file that has an op which every network has, but with other shapes, is of another space."""
    for key in wanted:
        start, _, shapes = key.partition(":")
        others = [str(other) for other in entries if str(other).startswith(f"{start}:")]
        fixed = start.removesuffix("-input") in NAMES.values()
        if shapes and fixed and others and key not in others:
            raise TableError(
                f"{path} is not of {space.name} at {space.resolutions[0]} px but of another "
                f"space, width or resolution: it holds {others[0]}, wanted: {key}"
            )


def _row(path: Path, key: str, value: Any) -> Row:
    given = value if isinstance(value, dict) else {}
    mean, std, var = (_number(given.get(name)) for name in ("mean", "std", "var"))
    if not mean:
        text = str(given.get("mean", value))[:40]
        raise FileFormatError(f"{path}: mean of {key} is {text!r}, expected ms, more than 0")
    for name, number in (("std", std), ("var", var)):
        if name in given and number is None:
            text = str(given[name])[:40]
            raise FileFormatError(f"{path}: {name} of {key} is {text!r}, expected 0 or more")
    spread = math.sqrt(var) if std is None and var is not None else std
    return {"latency_ms": mean, "spread_ms": spread, "seen": 0}


def _number(value: Any) -> float | None:
    """A finite number of 0 or more; None for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= sys.float_info.max else None


def _merged(rows: Sequence[Row]) -> Row:
    """One row of an op that several files hold: mean latency, largest spread."""
    spreads = [row["spread_ms"] for row in rows if row["spread_ms"] is not None]
    mean_ms = math.fsum(row["latency_ms"] for row in rows) / len(rows)
    return {**rows[0], "latency_ms": mean_ms, "spread_ms": max(spreads, default=None)}
