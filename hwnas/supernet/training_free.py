"""Untrained networks ranked by their activation score, beside MACs and parameters.

Networks are compared within one resolution only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hwnas.images import tensors
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors.encoding import encode
from hwnas.predictors.fit import fit_ridge
from hwnas.supernet.activation_score import (
    ActivationScore,
    fresh,
    naswot,
    score,
    summed_ranks,
    train_shortly,
)

IMAGES = 64  # of a score
BATCH = 64  # images of one step of the short training

Scores = Mapping[Architecture, ActivationScore]
Progress = Callable[[float, str], None]


def score_all(
    archs: Sequence[Architecture],
    dataset: tensors.Dataset,
    seed: int,
    steps: int = 0,
    progress: Progress = lambda share, text: None,
) -> dict[Architecture, ActivationScore]:
    """The score of every architecture as a fresh network: equal weights where shapes are equal,
    equal images, equal steps.

    Args:
        archs: the networks.
        dataset: training images are drawn from it; labels are used where there are steps.
        seed: of weights and images.
        steps: of SGD before the score; 0: none.
        progress: told the share done.
    """
    rng = np.random.default_rng([seed, 3])
    n_images = len(dataset.train)
    chosen = rng.permutation(n_images)[: min(IMAGES, n_images)]
    batches = [rng.integers(0, n_images, BATCH) for _ in range(steps)]
    out = {}
    for n, arch in enumerate(archs, start=1):
        px, network = arch.resolution, fresh(arch, seed)
        shown = (_batch(dataset, index, px) for index in batches)
        train_shortly(network, shown, dataset.task.label_loss)
        out[arch] = score(network, _batch(dataset, chosen, px)[0])
        progress(n / len(archs), f"{n} of {len(archs)} networks")
    return out


def _batch(dataset: tensors.Dataset, index: np.ndarray, px: int) -> tuple[Tensor, Tensor]:
    """Network input and labels of some training images."""
    part = dataset.train.subset(torch.from_numpy(index))
    return tensors.prepare(part.pixels(0, len(part), px), px, dataset), part.labels


def rank_scores(scores: Scores) -> dict[Architecture, float]:
    """Rank score of each network among those of its resolution, in [0, 1]; 1 is the best."""
    out: dict[Architecture, float] = {}
    for px in sorted({arch.resolution for arch in scores}):
        group = [arch for arch in scores if arch.resolution == px]
        values = summed_ranks([scores[arch] for arch in group])
        place = (values[:, None] > values).sum(axis=1) + (
            (values[:, None] == values).sum(1) - 1
        ) / 2
        out |= dict(zip(group, (place / max(len(group) - 1, 1)).tolist(), strict=True))
    return out


def option_scores(space: SearchSpace, scores: Scores) -> np.ndarray:
    """(F,) what each feature of the encoding adds to the standardised D / B + ln N, by ridge; the
    resolution adds nothing, because scores of different ones are not comparable.
    """
    archs = list(scores)
    value = naswot([scores[arch] for arch in archs])
    for px in {arch.resolution for arch in archs}:
        rows = np.array([arch.resolution == px for arch in archs])
        value[rows] -= value[rows].mean()
    features = encode(space, space.genome(archs))
    n_resolutions = len(space.resolutions)
    features[:, :n_resolutions] = 0
    return fit_ridge(features, value / (float(value.std()) or 1.0)).weights
