"""What measured networks say of others: expected error and how uncertain it is.

A Gaussian process on the masked one-hot of log errors (Rasmussen and Williams 2006): networks that
are alike make mistakes on the same images, so a neighbour's residual is informative, and
uncertainty grows with the distance to measured networks. On `tiny` it missed a third of the
hypervolume that a ridge with one spread for all networks missed. Uses scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors.encoding import encode

LEAST_ERROR = 1e-3  # smaller measured errors count as this: they have no logarithm to speak of


class Belief(NamedTuple):
    """(n,) expected error of networks and standard deviation of a measurement of it, fractions."""

    mean: np.ndarray
    spread: np.ndarray


def believe(
    space: SearchSpace, measured: Mapping[Architecture, float], genome: np.ndarray
) -> Belief:
    """What measured networks say of others.

    Args:
        space: the search space.
        measured: top-1 of networks, fractions.
        genome: (n, n_choices) the others.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    error = 1 - np.array(list(measured.values()))
    target = np.log(np.maximum(error, LEAST_ERROR))
    centre, scale = float(target.mean()), float(target.std()) or 1.0
    kernel = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.RBF(3.0, (0.3, 100.0))
    kernel += kernels.WhiteKernel(0.1, (1e-6, 10.0))
    model = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():  # a setting at its bound is no reason to stop
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(encode(space, space.genome(measured)), (target - centre) / scale)
    found, doubt = model.predict(encode(space, genome), return_std=True)
    mean = np.exp(centre + scale * found)
    return Belief(np.minimum(mean, 1.0), mean * scale * doubt)
