"""Stage `data`: what networks must know of the images. Loads torch only where they are read."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.images.listing import SUFFIXES, left_out, readable
from hwnas.images.sources import fingerprint_source
from hwnas.run import imported, versions
from hwnas.run.context import DATA_FORMAT, Context
from hwnas.run.folder import Work, is_current, is_first_process, mark_current
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError
from profilers.schema import write_json

if TYPE_CHECKING:
    from hwnas.images.tensors import Dataset

DATA_VERSION = 2


@functools.lru_cache(maxsize=1)
def dataset(config: DataConfig, index: Path) -> Dataset:
    """The images; kept, because every stage of a run reads the same ones."""
    from hwnas.images import tensors  # imports torch

    return tensors.load(config, index)


def checked_dataset(context: Context) -> Dataset:
    """The images that the supernet of this run was trained on.

    Raises:
        ConfigError: they changed since.
    """
    images = dataset(context.data_config, context.run.contents)
    if images.fingerprint != context.data["fingerprint"]:
        raise ConfigError(
            f"the data changed since {context.run.data} was written; delete that file and "
            "run `hwnas train`, or restore the data"
        )
    return images


def describe_data(context: Context) -> bool:
    """Write what networks must know of the data. Returns whether anything was to do.

    Of processes that train together the first writes; the others wait for it.
    """
    done = is_first_process() and _describe_data(context)
    return agreed(done)


def data_work(context: Context) -> Work:
    """What `data` describes; the source is looked at, not decoded.

    Raises:
        ConfigError: the source does not exist.
    """
    config, run = context.data_config, context.run
    if config.kind == "factory":
        dataset.cache_clear()
        source = dataset(config, run.contents).fingerprint
    else:
        source = fingerprint_source(config)
    # Paths as given: a folder may move.
    inputs = {"data": context.config.data.model_dump(mode="json"), "source": source}
    return Work("data", DATA_VERSION, inputs, (run.data,), versions.of("pillow"))


def _describe_data(context: Context) -> bool:
    run = context.run
    if not imported.has_images(context.config):
        return False
    config = context.data_config
    work = data_work(context)
    if is_current(run, work, context.report.note):
        return False
    if config.kind != "factory":  # that was just read
        dataset.cache_clear()  # a session may run this again, and the images may be others by then
    if config.stream and not run.contents.exists():
        context.report.note("data: every file is read once, to know it again when it changes")
    images = dataset(config, run.contents)
    description = {
        "format": DATA_FORMAT,
        "channels": images.in_channels,
        "size": images.size,
        "preparation": images.preparation,
        "classes": list(images.class_names),
        "mean": list(images.mean),
        "std": list(images.std),
        "fingerprint": images.fingerprint,
        "images": {"train": len(images.train), "val": len(images.val), "test": len(images.test)},
    }
    if config.series_length:
        description["series_length"] = config.series_length
    if config.kind == "image_folder":
        description["left_out"] = _left_out(context)
    write_json(run.data, description)
    mark_current(run, work)
    return True


def _left_out(context: Context) -> dict[str, Any]:
    """Files of the folder that are not read; says so if there are any."""
    found = left_out(Path(context.data_config.root))
    if found.n:
        context.report.warn(
            f"{found.n} file(s) below {readable(context.data_config.root)} are left out, for "
            f"example {', '.join(found.examples[:3])}; images of a class are in its folder and end "
            f"in {', '.join(SUFFIXES)}"
        )
    return {"files": found.n, "examples": list(found.examples)}


def agreed(flag: bool) -> bool:
    """Whether the flag is true in any of the processes that train together."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return flag
    from hwnas.supernet import processes  # imports torch

    return processes.agreed(flag)
