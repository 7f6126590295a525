"""What a network learns to say of an input, one file for each task: `TASK`, its losses and metric.

A metric is a function of what every image adds to it, so it takes one pass over the images. Error
is 1 - metric. Torch is imported where it is used: the words of a task are read without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Task:
    """A task; logits are (n, n_classes) or (n, n_classes, height, width). Its functions have names
    in a module, so that processes can be sent a task.

    Attributes:
        metric: its name.
        label_axes: of the labels of one image: 0: its class; 2: that of each pixel.
        label_loss: (logits, labels, smoothing of the labels), nats; a mean.
        taught_loss: (logits of the teacher, logits, smoothing of the former), nats; a mean.
        counts: (logits, labels) to (n, k) integers: what each image adds to the metric.
        value: (counts, n images) to the metric in [0, 1]; counts of images may be summed before.
        interval: of the metric, 95 %, by counts of each image.
    """

    metric: str
    label_axes: int
    label_loss: Callable[[Tensor, Tensor, float], Tensor]
    taught_loss: Callable[[Tensor, Tensor, float], Tensor]
    counts: Callable[[Tensor, Tensor], np.ndarray]
    value: Callable[[np.ndarray, int], float]
    interval: Callable[[np.ndarray], tuple[float, float]]
