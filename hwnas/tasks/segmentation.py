"""Segmentation: the class of each pixel; the metric is the mean IoU of the classes.

Logits are resized to the mask, bilinearly, so networks of any size are compared on the same pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.images.network_input import network_input
from hwnas.tasks import IGNORED, Task, classification

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 1000  # of images, for an interval


def _fitted(logits: Tensor, size: Any) -> Tensor:
    """Logits at the height and width of what they are compared with."""
    from torch.nn import functional as F

    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of each pixel with its smoothed label, a mean over those that count."""
    from torch.nn import functional as F

    summed = F.cross_entropy(
        _fitted(logits, labels.shape[1:]),
        labels.long(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return summed / (labels != IGNORED).sum().clamp_min(1)


def taught_loss(answers: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of each pixel's answer with the one that it learns, a mean."""
    return classification.taught_loss(answers, _fitted(logits, answers.shape[2:]), smoothing)


def classes_of(logits: Tensor, labels: Tensor) -> np.ndarray:
    """(n, height, width) the class that each pixel of the masks is given, uint8."""
    return np.asarray(_fitted(logits.cpu(), labels.shape[1:]).argmax(1).numpy().astype(np.uint8))


def counts(logits: Tensor, labels: Tensor) -> np.ndarray:
    """(n, 2 n_classes) pixels of each image that a class is rightly given to; and those that have
    it, are given it, or both.
    """
    n, n_classes, truth = len(labels), logits.shape[1], labels.numpy()
    counted = truth != IGNORED
    image = np.broadcast_to(np.arange(n)[:, None, None], truth.shape)[counted] * n_classes
    true, given = truth[counted], classes_of(logits, labels)[counted]

    def pixels(of: np.ndarray) -> np.ndarray:
        return np.bincount(of, minlength=n * n_classes).reshape(n, n_classes)

    both = pixels((image + true)[true == given])
    return np.concatenate([both, pixels(image + true) + pixels(image + given) - both], 1)


def value(found: np.ndarray, n: int) -> float:
    """Mean IoU of the classes that masks or answers have, over all images together.

    Source: Everingham et al. 2015, "The Pascal Visual Object Classes Challenge: A Retrospective",
        section 3.
    """
    both, either = found.sum(0).reshape(2, -1)
    there = either > 0
    return float((both[there] / either[there]).mean()) if there.any() else 0.0


def interval(found: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean IoU: the bootstrap over images, always the same draws."""
    n, rng = len(found), np.random.default_rng(0)
    draws = [value(found[rng.integers(n, size=n)], n) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def told(path: str, logits: Any, classes: Any, size: int, top: int) -> str:
    """Writes the class of each pixel as a PNG beside the reader; the classes of most pixels."""
    import pathlib

    from PIL import Image

    mask = network_input(logits, np.zeros(len(logits)), np.ones(len(logits)), size).argmax(0)
    name = pathlib.Path(path).stem + ".mask.png"
    Image.fromarray(mask.astype(np.uint8)).save(name)
    shares = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
    best = np.argsort(-shares, kind="stable")[:top]
    return f"{name}: " + ", ".join(f"{classes[k]} ({shares[k]:.1%})" for k in best)


TASK = Task(
    metric="mean IoU",
    label_axes=2,
    label_loss=label_loss,
    taught_loss=taught_loss,
    answers=classes_of,
    counts=counts,
    value=value,
    interval=interval,
    told=told,
)
