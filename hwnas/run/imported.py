"""Runs whose supernet or predictor was imported: what is skipped, and what the files stand in for.

An imported supernet is not trained. Where there are no images at all (`data.kind: none`) it says
what networks must know of them, and packages are made with its own BatchNorm statistics only if
that is asked for by name (`export.statistics: imported`).
"""

from __future__ import annotations

from typing import Any

from hwnas.run.folder import RunFolder
from hwnas.settings.config import Config
from hwnas.supernet.header import read_header
from profilers.errors import ConfigError

NO_IMAGES = "none"  # data.kind
_NEXT = "`hwnas import supernet CHECKPOINT --space SPACE --out"


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


def describe(run: RunFolder) -> dict[str, Any]:
    """The data's description, as an imported supernet gives it where there are no images.

    Raises:
        ConfigError: there is no imported supernet.
    """
    about = imported(run)
    if about is None:
        raise ConfigError(
            f"data.kind is none and {run.supernet} is no imported supernet; "
            f"{_NEXT} {run.supernet}` writes one"
        )
    return described(about)


def described(about: dict[str, Any]) -> dict[str, Any]:
    """A description of data as the metadata of an imported supernet give it, without images."""
    keys = {"channels": "in_channels", "classes": "classes", "mean": "mean", "std": "std"}
    known = {ours: about[key] for ours, key in keys.items()}
    return {"size": 0, "preparation": "imagenet", "fingerprint": "", **known}


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
