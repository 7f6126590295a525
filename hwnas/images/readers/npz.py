"""Reader of an .npz file of plain arrays; pickles in it are refused."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hwnas.images.arrays import NAMES, from_arrays
from hwnas.images.raw import RawData, existing
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError


def read(config: DataConfig) -> RawData:
    """An .npz file of the arrays of `from_arrays`; object arrays (pickles) are refused."""
    path = existing(config.root, "npz")
    try:
        # np.load leaves the file open when it is not an archive: close it here.
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            # One of another name is refused by `from_arrays`; what it holds is never read.
            arrays = {name: file[name] if name in NAMES else None for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError,
            TypeError) as error:  # fmt: skip
        raise ConfigError(
            f"{path} cannot be read as .npz of plain arrays: {_reason(error)}"
        ) from error
    return from_arrays(arrays, str(path))


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The file, and its folder."""
    file = existing(config.root, "npz")
    return file.parent, [file]


def _reason(error: Exception) -> str:
    """What numpy found, but never its advice to load pickles: they may run any code."""
    text = " ".join(str(error).split())
    if "pickle" not in text:
        return text
    return (
        "it is not an archive of arrays, or one holds Python objects; write numbers and text "
        "with numpy.savez"
    )
