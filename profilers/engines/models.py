"""What an engine loads of an ONNX file so that it computes in its target's precision."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Optional, Tuple

from profilers import precisions
from profilers.devices import host
from profilers.memory import give_back
from profilers.schema import Target


def in_precision(model_path: Path, target: Target, own: str = "") -> Optional[bytes]:
    """The file written in the target's precision, for this machine; None where it is so already.

    Args:
        model_path: weights inside, or in a file beside it.
        target: its precision is used.
        own: the recipe of an engine that takes one only.

    Raises:
        ConfigError: it cannot be read or written so.
    """
    if target.precision == "fp32":
        return None
    recipe = precisions.recipe(target.precision, host.hardware(), own)
    try:
        return precisions.load(target.precision).rewritten(model_path, recipe)
    except OSError:
        return None  # the engine says what is wrong with the file


def timed(model_path: Path, target: Target) -> Tuple[Optional[bytes], float]:
    """`in_precision`, and the seconds that it took: they, and the memory that it needed meanwhile,
    are not the engine's.
    """
    begin_s = perf_counter()
    found = in_precision(model_path, target)
    if target.precision != "fp32":
        give_back()
    return found, perf_counter() - begin_s
