"""Predictor files as arrays: `.npz` without pickles, small, every checksum looked at first.

What every kind has is here; what the other arrays mean is the business of the kinds.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.predictors.encoding import ENCODING
from profilers.errors import FileFormatError
from profilers.schema import check_format, write_atomic

MAX_BYTES = 64 << 20  # of a file; a predictor has at most some 100,000 numbers
FORMAT = "hwnas-predictor-1"
SCORES = {"score_names": ("U", 1), "score_values": ("f", 1), "residual_spread": ("f", 0)}
_EVERY = {
    **dict.fromkeys(("model", "encoding", "space", "geometry", "supernet_sha256"), ("U", 0)),
    "features": ("U", 1),
}


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
    check_format(path, {name: str(data[name]) for name in ("format",) if name in data}, FORMAT)
    return data, str(data.get("model"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays atomically; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_atomic(Path(path), buffer.getvalue())


def heading(model: str, predictor: Any) -> dict[str, np.ndarray]:
    """The arrays that every kind's file has."""
    texts = {
        "format": FORMAT,
        "model": model,
        "encoding": ENCODING,
        "space": predictor.space.name,
        "geometry": predictor.space.geometry,
        "supernet_sha256": predictor.supernet_sha256,
    }
    arrays = {name: np.array(text) for name, text in texts.items()}
    return arrays | {"features": np.array(predictor.features)}


def scores_arrays(predictor: Any) -> dict[str, np.ndarray]:
    """The arrays of SCORES."""
    names = sorted(predictor.scores)
    return {
        "residual_spread": np.array(predictor.residual_spread),
        "score_names": np.array(names),
        "score_values": np.array([predictor.scores[name] for name in names]),
    }


def scores_of(data: Mapping[str, Any]) -> dict[str, float]:
    """Scores by name, of checked arrays."""
    return dict(zip(data["score_names"].tolist(), data["score_values"].tolist(), strict=True))


def wrong_in(data: Mapping[str, Any], dimensions: Mapping[str, tuple[str, int]]) -> str:
    """What is wrong with a predictor's arrays, those of every kind and of its own; empty if
    nothing.

    Args:
        data: arrays by name.
        dimensions: of the kind's own, as for `wrong_kind`; with SCORES or without.
    """
    wrong = wrong_kind(data, {**_EVERY, **dimensions})
    if wrong:
        return wrong
    if str(data["encoding"]) != ENCODING:
        return f"its encoding is {data['encoding']}, known is {ENCODING}"
    if "score_names" in dimensions and len(data["score_names"]) != len(data["score_values"]):
        return "score names and values differ in number"
    if "residual_spread" in dimensions and data["residual_spread"] < 0:
        return "residual_spread is negative"
    return ""


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
