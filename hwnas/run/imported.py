"""Runs of imported files: which stages they skip, and what the files replace.

An imported supernet is not trained, an imported table not measured. Where there are no images at
all (`data.kind: none`) files or settings say what networks must know of them: tables, predictors
and accuracies are enough for a front. Packages need a supernet; they take its own BatchNorm
statistics only if the settings ask for that (`export.statistics: imported`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hwnas.networks.ops import parse_key
from hwnas.networks.space import SearchSpace
from hwnas.run import own
from hwnas.run.folder import RunFolder
from hwnas.settings.config import Config
from hwnas.supernet.header import read_header
from hwnas.tables.table import CostTable, load_table
from profilers.errors import ConfigError, FileFormatError

NO_IMAGES = "none"  # data.kind
UNMEASURED = (
    "networks cannot be measured; name images, or a CSV of measured networks as accuracy.results, "
    "or put an imported predictor into the run folder (`hwnas import predictor`)"
)


def imported(run: RunFolder) -> dict[str, Any] | None:
    """The metadata of the run's supernet if it was imported, else None.

    Raises:
        FileFormatError: the file cannot be read.
    """
    path = run.supernet
    about = read_header(path) if path.exists() else {}
    return about if about.get("imported") else None


def has_images(config: Config) -> bool:
    """Whether the settings name images."""
    return config.data.kind != NO_IMAGES


def describe(config: Config, run: RunFolder) -> dict[str, Any]:
    """The data's description where there are no images, as files or settings give it: channels and
    classes of the settings, of an imported supernet, of the targets' tables, or of the space.

    Raises:
        ConfigError: there is no such space.
        FileFormatError, TableFormatError: a file cannot be read.
    """
    space, about = own.load_space(config.space, run), imported(run)
    paths = [path for path in map(run.table, config.targets) if path.exists()]
    channels, classes = for_tables(space, map(load_table, paths))
    names = about["classes"] if about else list(map(str, range(config.data.classes or classes)))
    return {
        "size": 0,
        "preparation": "series" if space.unit == "steps" else "imagenet",
        "fingerprint": "",
        "channels": about["in_channels"] if about else config.data.channels or channels,
        "classes": names,
        **{name: about[name] if about else None for name in ("mean", "std")},
    }


def for_tables(space: SearchSpace, tables: Iterable[CostTable]) -> tuple[int, int]:
    """Channels and classes that the first table of a space is for; the space's own without one."""
    for table in tables:
        ops = [parse_key(key) for key in table.rows]
        first = {op.inputs[0][0] for op in ops if op.inputs[0][-1] in table.resolutions}
        last = {op.shape[0] for op in ops if len(op.shape) == 1}
        for channels, classes in itertools.product(sorted(first), sorted(last)):
            if space.for_data(channels, classes).geometry == table.geometry:
                return channels, classes
    return space.in_channels, space.n_classes


def keeps_table(run: RunFolder, target: str) -> bool:
    """Whether the table of a target was imported, so that nothing is measured for it. False for a
    file that cannot be read: the stage that made it reports that.
    """
    path = run.table(target)
    try:
        return path.exists() and "imported" in load_table(path).marks
    except FileFormatError:
        return False


def has_weights(config: Config, run: RunFolder) -> bool:
    """Whether there is a supernet, or there are images to train one on."""
    return has_images(config) or run.supernet.exists()


def need_weights(run: RunFolder) -> Path:
    """The file of the run's supernet.

    Raises:
        ConfigError: there is none.
    """
    if not run.supernet.exists():
        raise ConfigError(
            f"{run.supernet} does not exist: networks are searched without weights, but measured "
            "and exported with those of a supernet; run `hwnas train` first (it needs images)"
            + in_place_of_training(run)
        )
    return run.supernet


def in_place_of_training(run: RunFolder) -> str:
    """What else gives a run its supernet, in words; empty for a model of the user's own, which
    nobody else has trained.
    """
    make = f", or `hwnas import supernet CHECKPOINT --space SPACE --out {run.supernet}`"
    return "" if run.space.exists() else make


def need_images(config: Config, what: str) -> None:
    """Refuse work on images where there are none.

    Args:
        config: the settings.
        what: cannot be done, and how to go on.

    Raises:
        ConfigError: data.kind is none.
    """
    if not has_images(config):
        raise ConfigError(f"data.kind is none: {what}")


def check_statistics(config: Config, run: RunFolder) -> None:
    """Refuse packages whose BatchNorm would be calibrated on nothing, or on statistics that no
    imported supernet holds.

    Raises:
        ConfigError: neither images nor the imported statistics may be used.
    """
    if config.export.statistics == "calibrated":
        need_images(
            config,
            "BatchNorm of a subnet must be calibrated on your images before it is exported; name "
            "images in hwnas.yaml, or ask for the checkpoint's own statistics by `hwnas export "
            "--imported-statistics`: they are those of its max network, accuracy is unknown then",
        )
    elif imported(run) is None:
        raise ConfigError(
            "export.statistics is imported, but this run's supernet was trained here; leave it out"
        )
