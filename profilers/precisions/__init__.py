"""Precisions by name: one file each, defining `PRECISION` and `rewritten(model_path, recipe)`.

A graph is emitted in fp32. Engines that take the precision from the graph load what `rewritten`
makes of it, on the device; a file that already computes in the precision is loaded as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, Tuple

from profilers.plugins import load_part, names_in

Range = Tuple[float, float]  # least and largest value of an activation


class Precision(NamedTuple):
    """What a precision says of itself as `PRECISION`.

    Attributes:
        tolerance: largest difference of the outputs of one file in two engines, as a share of the
            largest output.
        loss: the same of a file and the fp32 network that it was made of.
        weight_bytes, activation_bytes: of one number.
        calibrated: whether packages need the ranges of activations, from training images.
    """

    tolerance: float
    loss: float
    weight_bytes: int
    activation_bytes: int
    calibrated: bool = False


class Part(Protocol):
    """What a precision's file defines. Where it is written in more than one way, `recipe(facts)`
    beside it returns the name of that for a processor.
    """

    PRECISION: Precision

    def rewritten(self, model_path: Path, recipe: str) -> Optional[bytes]:
        """The file computing in the precision, weights inside or where they are; None where it does
        so already.

        Args:
            recipe: of `recipe`; empty where there is none.

        Raises:
            ConfigError: it cannot be read, or holds an op that cannot be rewritten.
        """

    # ---- where PRECISION.calibrated ------------------------------------------------------------

    RECIPES: Mapping[str, Any]

    def ranged(self, model: bytes) -> List[str]:
        """Names of the activations whose ranges decide how a file is written."""

    def calibrated(self, model: bytes, recipe: str, ranges: Mapping[str, Range]) -> bytes:
        """As `rewritten`, with given ranges of activations; weights are inside."""

    def is_written(self, model: bytes) -> bool:
        """Whether a file computes in the precision already."""

    def unrounded(self, model: bytes) -> bytes:
        """A written file with its activations in float: what an engine computes that ignores the
        precision.
        """

    def in_float(self, model: bytes, recipe: str = "") -> Dict[str, int]:
        """How many nodes of each op of a file stay in float; without a recipe, whatever it is."""


def names() -> List[str]:
    """The precisions."""
    return names_in(__path__)


def load(name: str) -> Part:
    """The precision of a name.

    Raises:
        ConfigError: no such precision; the message holds the nearest name.
    """
    found: Part = load_part(name, __name__, __path__, "precision")
    return found


def recipe(name: str, facts: Mapping[str, Any], own: str = "") -> str:
    """How a precision is written for a device; empty where there is one way only.

    Args:
        name: of the precision.
        facts: `machine` and `cpu_features`, as in an environment.
        own: the recipe of an engine that takes one only.
    """
    choose = getattr(load(name), "recipe", None)
    return (own or choose(facts)) if choose else ""
