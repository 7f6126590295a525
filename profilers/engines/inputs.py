"""What a model is fed while it is timed: values that are valid for any model, the same each time.

Floats are of order one, as normalised images are; integers are zero, which every table has a row
for; booleans are true, so that a mask hides nothing.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, NamedTuple, Sequence, Tuple

import numpy as np

from profilers.errors import ConfigError, ModelError

SEED = 0


class Input(NamedTuple):
    """An input of a model; dtype as numpy has it."""

    name: str
    shape: Tuple[int, ...]
    dtype: Any

    @classmethod
    def static(cls, name: str, shape: Sequence[Any], dtype: Any) -> Input:
        """An input of an engine's own words.

        Raises:
            ModelError: a size is not fixed.
        """
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise ModelError(
                f"model input {name!r} has shape {list(shape)}; only static shapes can be timed "
                "(`hwnas measure --input-shape` fixes them, or export the model with them)"
            )
        return cls(name, tuple(shape), dtype)


def values(inputs: Iterable[Input]) -> Dict[str, np.ndarray]:
    """A value of each input, by name."""
    rng = np.random.default_rng(SEED)
    return {each.name: _value(rng, each) for each in inputs}


def _value(rng: np.random.Generator, each: Input) -> np.ndarray:
    kind = np.dtype(each.dtype).kind
    if kind == "f":
        return rng.standard_normal(each.shape).astype(each.dtype)
    return np.full(each.shape, kind == "b", dtype=each.dtype)


def check_shape(wanted: Sequence[Sequence[int]], given: Sequence[int]) -> None:
    """Refuse inputs that a model does not take.

    Args:
        wanted: shape of each input of the model.
        given: shape of the one there is.

    Raises:
        ConfigError: the model has other inputs, or one of another shape.
    """
    if len(wanted) != 1:
        raise ConfigError(f"the model has {len(wanted)} inputs; outputs are compared of one")
    if list(wanted[0]) != list(given):
        raise ConfigError(f"inputs have shape {list(given)}, the model takes {list(wanted[0])}")
