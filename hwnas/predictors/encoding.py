"""How predictors see an architecture: one column for each option that is chosen and live."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from hwnas.networks.space import SearchSpace
from profilers.errors import TableError

ENCODING = "masked-one-hot"
RESOLUTION = "resolution="
DRAWN = 100  # random networks that a predictor is tried on when it is read


def feature_names(space: SearchSpace) -> tuple[str, ...]:
    """Columns of the encoding: each option of each choice, but the expand ratio 0 (no block)."""
    return tuple(
        f"{choice.name}={option}" for choice in space.choices for option in choice.options if option
    )


def encode(space: SearchSpace, genome: np.ndarray, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    """(n, F) masked one-hot of (n, n_choices) genomes: 1 where the option is chosen and live.

    Dead choices are all zeros, because their canonical value is 0 and no feature is an option 0.
    """
    columns, options = _pairs(space)
    chosen = space.by_choice(genome).take(columns, axis=0) == options[:, None]
    return np.ascontiguousarray(chosen.astype(dtype).T)


@functools.lru_cache(maxsize=32)
def _pairs(space: SearchSpace) -> tuple[np.ndarray, np.ndarray]:
    """(F,) choice and (F,) option of each feature."""
    pairs = [(i, o) for i, choice in enumerate(space.choices) for o in choice.options if o]
    columns, options = np.array(pairs).T
    return columns, options


def check_geometry(space: SearchSpace, name: str, geometry: str) -> None:
    """Refuse a space of another geometry than the one a predictor was fitted for.

    Raises:
        TableError: another geometry.
    """
    if geometry != space.geometry:
        raise TableError(
            f"accuracy predictor was fitted for space {name} of geometry {geometry[:12]}, not for "
            f"{space.name} of geometry {space.geometry[:12]}; run `hwnas evaluate` for this space, "
            "or, without images, set data.channels and data.classes"
        )


def check_features(space: SearchSpace, features: Collection[str]) -> None:
    """Refuse a space with options that a predictor was not fitted with.

    Raises:
        TableError: an option without a feature.
    """
    missing = sorted(set(feature_names(space)) - set(features))
    if not missing:
        return
    remedy = "measure subnets of this space: `hwnas evaluate`"
    if all(name.startswith(RESOLUTION) for name in missing):
        sizes = [name.removeprefix(RESOLUTION) for name in features if name.startswith(RESOLUTION)]
        remedy = f"name others in space.resolutions: it knows {', '.join(sizes)} px"
    raise TableError(
        f"accuracy predictor was fitted without {missing[0]} ({len(missing)} options lack); "
        f"{remedy}"
    )


def check_errors(
    predict: Callable[[np.ndarray], np.ndarray], space: SearchSpace, may_be_equal: bool = True
) -> str:
    """What is wrong with a predictor's errors of random networks; empty if nothing is.

    A fit may leave [0, 1] a little, where it is cut; one in percent, or of something else, has few
    networks in it.

    Args:
        predict: (n,) errors, not yet cut, of (n, n_choices) genomes of the space.
        space: which the predictor knows.
        may_be_equal: accuracies that are all noise may be fitted by a constant.
    """
    errors = predict(space.sample(DRAWN, np.random.default_rng(0)))
    if not np.isfinite(errors).all():
        return "errors of random networks are not finite"
    middle = float(np.median(errors))
    if not 0 <= middle <= 1:
        return f"half of {DRAWN} random networks have errors of {middle:g}"
    return "" if np.ptp(errors) or may_be_equal else f"{DRAWN} random networks have equal errors"
