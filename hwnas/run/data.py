"""Stage `data`: what networks must know of the images. Loads torch only where they are read."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.images.listing import left_out
from hwnas.images.normalisation import LEAST
from hwnas.images.raw import images_of_each
from hwnas.images.sources import fingerprint_source
from hwnas.run import imported, summary
from hwnas.run.context import DATA_FORMAT, Context
from hwnas.run.folder import Work, begin, is_current, is_first_process, mark_current
from hwnas.run.own_metric import function
from hwnas.settings import versions
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError
from profilers.schema import write_json

if TYPE_CHECKING:
    from hwnas.images.tensors import Dataset

DATA_VERSION = 3


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
    if context.config.task.metric:  # that it is missing is told before any work
        function(context.config.task.metric, context.base)
    images = replace(dataset(context.data_config, context.run.contents), task=context.task)
    if images.fingerprint != context.data["fingerprint"]:
        raise ConfigError(
            f"the data changed since {context.run.data} was written; delete that file and "
            "run `hwnas train`, or restore the data"
        )
    return images


def describe_data(context: Context) -> bool:
    """Write what networks must know of the data. Returns whether there was anything to do.

    Rank 0 writes; the other ranks wait.
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
        dataset.cache_clear()  # a process may run this again, after the images changed
    if config.stream and not run.contents.exists():
        context.report.note("data: every file is read once, to know it again when it changes")
    images = dataset(config, run.contents)
    if config.stream:
        _check_files(context, images)
    _refuse_unfit(context, images)
    splits = {"train": images.train, "val": images.val, "test": images.test}
    by_class = {
        name: images_of_each(split.labels.numpy(), images.n_classes).tolist()
        for name, split in splits.items()
    }
    description = {
        "format": DATA_FORMAT,
        "channels": images.in_channels,
        "size": images.size,
        "preparation": images.preparation,
        "classes": list(images.class_names),
        "mean": list(images.mean),
        "std": list(images.std),
        "fingerprint": images.fingerprint,
        "images": {name: len(split) for name, split in splits.items()},
        "images_by_class": by_class,
    }
    if config.series_length:
        description["series_length"] = config.series_length
    if config.kind == "image_folder":
        description["left_out"] = left_out(Path(config.root))._asdict()
    if images.seen:
        sizes = images.seen.sizes
        description |= {
            "sizes": [[w, h, sizes[w, h]] for w, h in sorted(sizes)],
            "grey": images.seen.grey,
            "skipped": images.seen.skipped,
        }
    for line in summary.lines(description):
        context.report.note(line)
    for line in summary.warnings(description):
        context.report.warn(line)
    begin(run, work)
    write_json(run.data, description)
    mark_current(run, work)
    return True


def _refuse_unfit(context: Context, images: Dataset) -> None:
    """Refuse data of another task, and images that show nothing.

    Raises:
        ConfigError: they are; names the setting to change.
    """
    config = context.data_config
    if images.train.labels.ndim - 1 != context.task.label_axes:
        have, other = (
            ("classes", "classification") if context.task.label_axes else ("masks", "segmentation")
        )
        raise ConfigError(
            f"{config.root or config.kind}: the data have {have}, task.name is "
            f"{context.config.task.name}; set task: {{name: {other}}}, or name other data"
        )
    if images.size and max(images.std) <= LEAST:
        raise ConfigError(
            f"{config.root or config.kind}: all training images are of one colour, so nothing can "
            "be learned from them; look at the files"
        )


def _check_files(context: Context, images: Dataset) -> None:
    """Decode all streamed images once, so that none that is damaged ends the training later.

    Raises:
        ConfigError: some cannot be read; names them all.
    """
    from hwnas.images import image_files

    context.report.note("data: every image is decoded once, to find those that cannot be read")
    parts: list[Any] = [images.train, images.val, images.test]
    paths = [path for part in parts for path in part.paths.tolist()]
    image_files.check(Path(context.data_config.root), paths)


def agreed(flag: bool) -> bool:
    """Whether the flag is true in any of the processes that train together."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return flag
    from hwnas.supernet import processes  # imports torch

    return processes.agreed(flag)
