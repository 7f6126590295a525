"""Predictor files as arrays: `.npz` without pickles, small, every checksum looked at first.

What the arrays mean is the business of the kinds of predictors. History: `hwnas-predictor-1` holds
sums over choices; `hwnas-predictor-2` names its `model`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from profilers.errors import FileFormatError
from profilers.schema import write_atomic

MAX_BYTES = 64 << 20  # of a file; a predictor has at most some 100,000 numbers
FORMATS = {"hwnas-predictor-1": "additive", "hwnas-predictor-2": ""}  # "": the file says which


def read_arrays(path: Path) -> tuple[dict[str, Any], str]:
    """The arrays of a predictor file, and the name of its kind of model.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
    """
    try:
        data = _arrays(path.read_bytes())
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; `hwnas evaluate` writes it") from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(
            f"{path} cannot be read as an accuracy predictor ({error}); it is truncated or edited"
        ) from error
    given = str(data.get("format"))
    if given not in FORMATS:
        known = " or ".join(map(repr, FORMATS))
        raise FileFormatError(f"{path} has format {data.get('format')}, expected {known}")
    return data, FORMATS[given] or str(data.get("model"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays atomically; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_atomic(Path(path), buffer.getvalue())


def wrong_kind(data: Mapping[str, Any], dimensions: Mapping[str, tuple[str, int]]) -> str:
    """What is wrong with the kinds of arrays; empty if nothing is.

    Args:
        data: arrays by name.
        dimensions: of each array that must be there: its numpy kind ("f", "U") and dimensions.
    """
    for name, (kind, n) in dimensions.items():
        if name not in data:
            return f"it lacks {name}"
        if data[name].dtype.kind != kind:
            return f"{name} holds {data[name].dtype}"
        if kind == "f" and not np.isfinite(data[name]).all():
            return f"{name} is not finite"
        if data[name].ndim != n:
            return f"{name} has shape {data[name].shape}"
    return ""


def _arrays(content: bytes) -> dict[str, Any]:
    """The arrays of an .npz file.

    Sizes and checksums come first: the reader of arrays trusts what it is given.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
            raise ValueError("it holds more than 64 MiB")
        broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
