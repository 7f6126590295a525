"""Campaigns on disk: measurements with the kit that they are of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.networks.space import SearchSpace
    from hwnas.tables.fit import Campaign
    from profilers.schema import Target


def read_campaign(path: Path, kits: Sequence[Path]) -> Campaign:
    """A measurements file with the one of some kits that it is of."""
    from hwnas.measuring.kit import load_kit
    from hwnas.measuring.records import read_log
    from hwnas.tables.fit import Campaign
    from profilers.errors import TableError

    header, records, broken = read_log(path)
    if broken:
        lines = ", ".join(map(str, broken[:5]))
        print(f"warning: {path}: {len(broken)} broken lines: {lines}", file=sys.stderr)
    known = {info.hash: info.kit for info in map(load_kit, kits)}
    if header.get("kit") not in known:
        held = ", ".join(name[:12] for name in known)
        raise TableError(
            f"measurements are of kit {str(header.get('kit'))[:12]}, wanted: {held}; name the "
            f"folder of the kit of {path} with --kit"
        )
    return Campaign(known[header["kit"]], header, records)


def measured_in(folder: Path, on: Target, space: SearchSpace) -> tuple[Campaign, SearchSpace]:
    """The measurements of a target in a run folder, and the space for that run's data.

    Raises:
        TableError: there are none, or those of another space.
    """
    from hwnas.measuring.kit import load_kit, space_of
    from hwnas.run.folder import RunFolder
    from profilers.errors import TableError

    run = RunFolder(folder)
    path = run.measurements(on.name)
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.jsonl")))
        others = f"only of {there}" if there else "nor of another target"
        raise TableError(
            f"--with {folder} holds no measurements of {on.name}, {others}; name a run folder that "
            "does: latencies of another device, engine, precision or batch are not fitted together"
        )
    kit = load_kit(run.kit(on.batch)).kit
    if kit["space"] != space.name:
        raise TableError(
            f"--with {folder} holds measurements of space {kit['space']}, --space is {space.name}"
        )
    made = space_of(kit, str(run.space) if run.space.is_file() else "")
    campaign = read_campaign(path, [run.kit(on.batch)])
    told = campaign.header["target"]["name"]
    if told != on.name:
        raise TableError(f"{path} holds measurements of {told}, --target is {on.name}")
    return campaign, space.for_data(made.in_channels, made.n_classes)
