"""Runs whose supernet or predictor was imported: what is skipped, and what the files stand in for.

An imported supernet is not trained. Where there are no images at all (`data.kind: none`) it says
what networks must know of them, and packages are made with its own BatchNorm statistics only if
that is asked for by name (`export.statistics: imported`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwnas.supernet.header import read_header
from profilers.errors import ConfigError

if TYPE_CHECKING:
    from hwnas.run.context import Context

NO_IMAGES = "none"  # data.kind
_NEXT = "`hwnas import-ofa CHECKPOINT --space SPACE --out"


def imported(context: Context) -> dict[str, Any] | None:
    """The metadata of the run's supernet if it was imported, else None.

    Raises:
        FileFormatError: the file cannot be read.
    """
    path = context.run.supernet
    about = read_header(path) if path.exists() else {}
    return about if about.get("imported") else None


def has_images(context: Context) -> bool:
    """Whether the settings name images."""
    return context.config.data.kind != NO_IMAGES


def describe(context: Context) -> dict[str, Any]:
    """The data's description, as an imported supernet gives it where there are no images.

    Raises:
        ConfigError: there is no imported supernet.
    """
    about = imported(context)
    if about is None:
        raise ConfigError(
            f"data.kind is none and {context.run.supernet} is no imported supernet; "
            f"{_NEXT} {context.run.supernet}` writes one"
        )
    return described(about)


def described(about: dict[str, Any]) -> dict[str, Any]:
    """A description of data as the metadata of an imported supernet give it, without images."""
    keys = {"channels": "in_channels", "classes": "classes", "mean": "mean", "std": "std"}
    known = {ours: about[key] for ours, key in keys.items()}
    return {"size": 0, "preparation": "imagenet", "fingerprint": "", **known}


def skips_training(context: Context) -> bool:
    """Whether the run's supernet was imported, so that there is nothing to train.

    Raises:
        ConfigError: it was imported for other images: another space, channels or classes.
    """
    about = imported(context)
    if about is None:
        return False
    space, path = context.space, context.run.supernet
    if about.get("space") != space.name:
        raise ConfigError(
            f"{path} is a supernet of {about.get('space')}, space.name is {space.name}; "
            "change one of them"
        )
    if about.get("geometry") != space.geometry:
        raise ConfigError(
            f"{path} was imported for {about.get('n_classes')} classes of "
            f"{about.get('in_channels')} channels, the images have {space.n_classes} and "
            f"{space.in_channels}; `hwnas finetune` gives it a classifier for them"
        )
    given = [context.data[key] for key in ("mean", "std")]
    if given != [about.get(key) for key in ("mean", "std")]:
        context.report.warn(
            "the imported supernet takes images normalised as ImageNet's are, these are not; set "
            "data.normalise: imagenet"
        )
    context.report.note(f"{path} was imported: training is skipped; delete the file to train")
    return True


def need_images(context: Context, what: str) -> None:
    """Refuse work on images where there are none.

    Args:
        context: the run.
        what: cannot be done, and how to go on.

    Raises:
        ConfigError: data.kind is none.
    """
    if not has_images(context):
        raise ConfigError(f"data.kind is none: {what}")


def check_statistics(context: Context) -> None:
    """Refuse packages whose BatchNorm would be calibrated on nothing, or on statistics that no
    imported supernet holds.

    Raises:
        ConfigError: neither images nor the imported statistics may be used.
    """
    if context.config.export.statistics == "calibrated":
        need_images(
            context,
            "BatchNorm of a subnet must be calibrated on your images before it is exported; name "
            "images in hwnas.yaml, or ask for the checkpoint's own statistics by `hwnas export "
            "--imported-statistics`: they are those of its max network, accuracy is unknown then",
        )
    elif imported(context) is None:
        raise ConfigError(
            "export.statistics is imported, but this run's supernet was trained here; leave it out"
        )
