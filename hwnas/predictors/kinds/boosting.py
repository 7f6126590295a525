"""Gradient boosting, written as its trees."""

from __future__ import annotations

import numpy as np

from hwnas.predictors.fit import Subnets
from hwnas.predictors.trees_and_kernels import Trees


def fit(data: Subnets) -> Trees:
    """Gradient boosting (Friedman 2001): small trees, each fitted to what the others leave."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=300, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=data.seed
    ).fit(data.features, data.error)
    trees = [stage[0].tree_ for stage in model.estimators_]
    starts = np.concatenate(([0], np.cumsum([tree.node_count for tree in trees])))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(tree, name).reshape(-1) for tree in trees])

    shift = np.repeat(starts[:-1], [tree.node_count for tree in trees])
    leaf = joined("children_left") < 0
    return Trees(
        starts[:-1].astype(np.int32),
        np.where(leaf, -1, joined("feature")).astype(np.int32),
        np.where(leaf, 0.0, joined("threshold")),
        np.where(leaf, -1, joined("children_left") + shift).astype(np.int32),
        np.where(leaf, -1, joined("children_right") + shift).astype(np.int32),
        model.learning_rate * joined("value"),
        float(model.init_.constant_[0, 0]),
    )
