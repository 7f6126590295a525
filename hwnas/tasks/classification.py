"""Classification: one class for each input; the metric is top-1 accuracy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

Z = 1.96  # of a normal distribution, 95 % within


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of a network's answers with the smoothed labels."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def taught_loss(answers: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of a network's answers with those that it learns."""
    target = answers.softmax(1)
    if smoothing:
        target = (1 - smoothing) * target + smoothing / target.shape[1]
    return -(target * logits.log_softmax(1)).sum(1).mean()


def answers(logits: Tensor, labels: Tensor) -> np.ndarray:
    """The logits (n, n_classes)."""
    return np.asarray(logits.float().cpu().numpy())


def counts(logits: Tensor, labels: Tensor) -> np.ndarray:
    """(n, 1) whether each image's class is right."""
    return np.asarray((logits.argmax(1).cpu() == labels).numpy()[:, None])


def value(right: np.ndarray, n: int) -> float:
    """Share of the images whose class is right."""
    return float(right.sum() / n)


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """95 % interval of an accuracy measured on n images, shares.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference";
        it keeps its coverage near 100 % and for few images.
    """
    centre = (accuracy + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(accuracy * (1 - accuracy) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def counted_interval(right: np.ndarray) -> tuple[float, float]:
    """`interval` of the accuracy on images of which each (n, 1) is right or not."""
    return interval(float(right.mean()), len(right))


def told(path: str, logits: Any, classes: Any, size: int, top: int) -> str:
    """The most likely classes, with their probabilities."""
    odds = np.exp(logits - logits.max())
    odds = odds / odds.sum()
    best = np.argsort(-odds, kind="stable")[:top]
    return ", ".join(f"{classes[k]} ({odds[k]:.1%})" for k in best)


TASK = Task(
    metric="top-1 accuracy",
    label_axes=0,
    label_loss=label_loss,
    taught_loss=taught_loss,
    answers=answers,
    counts=counts,
    value=value,
    interval=counted_interval,
    told=told,
)
