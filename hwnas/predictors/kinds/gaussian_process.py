"""The mean of a Gaussian process, written as a sum of bells."""

from __future__ import annotations

import warnings

from hwnas.predictors.fit import Subnets, centre_and_scale
from hwnas.predictors.trees_and_kernels import Expansion


def fit(data: Subnets) -> Expansion:
    """Mean of a Gaussian process with a squared exponential kernel and noise (Rasmussen and
    Williams 2006), its settings those of the largest likelihood.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    kernel = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.RBF(3.0, (0.3, 100.0))
    kernel += kernels.WhiteKernel(0.1, (1e-6, 10.0))
    centre, scale = centre_and_scale(data.error)
    model = GaussianProcessRegressor(kernel, random_state=data.seed)
    with warnings.catch_warnings():  # a setting at its bound is no reason to stop
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(data.features, (data.error - centre) / scale)
    bells = model.kernel_.k1
    return Expansion(
        data.features,
        scale * bells.k1.constant_value * model.alpha_,
        float(0.5 / bells.k2.length_scale**2),
        centre,
    )
