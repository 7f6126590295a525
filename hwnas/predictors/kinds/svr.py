"""Support vector regression, written as a sum of bells."""

from __future__ import annotations

import numpy as np

from hwnas.predictors.fit import Subnets, centre_and_scale
from hwnas.predictors.trees_and_kernels import Expansion


def fit(data: Subnets) -> Expansion:
    """Support vector regression with a Gaussian kernel, its strength chosen by 5 folds as in
    DyNAS-T (Cummings et al. 2022).
    """
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVR

    centre, scale = centre_and_scale(data.error)
    spread = float(data.features.var()) * data.features.shape[1]
    folds = min(5, len(data.error))
    search = GridSearchCV(
        SVR(epsilon=0.05),
        {"C": [0.3, 1, 3, 10, 30], "gamma": [0.1 / spread, 0.3 / spread, 1 / spread]},
        scoring="neg_mean_squared_error",
        cv=folds,
    )
    model = search.fit(data.features, (data.error - centre) / scale).best_estimator_
    return Expansion(
        np.asarray(model.support_vectors_),
        scale * model.dual_coef_[0],
        float(model.gamma),
        float(centre + scale * model.intercept_[0]),
    )
