"""What a network learns to say of an input, one file for each task: `TASK`, its losses and metric.

A metric is a function of what every image adds to it, so it takes one pass over the images. Error
is 1 - metric. Torch is imported where it is used: the words of a task are read without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from profilers.plugins import names_in, select

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = 255  # label of pixels that count nowhere


@dataclass(frozen=True)
class Task:
    """A task; logits are (n, n_classes) or (n, n_classes, height, width). Its functions have names
    in a module, so that processes can be sent a task.

    Attributes:
        metric: its name.
        label_axes: of the labels of one image: 0: its class; 2: that of each pixel.
        label_loss: (logits, labels, smoothing of the labels), nats; a mean.
        taught_loss: (logits of the teacher, logits, smoothing of the former), nats; a mean.
        answers: (logits, labels) to what a metric of the user's own is given of n images.
        counts: (logits, labels) to (n, k) integers: what each image adds to the metric.
        value: (counts, n images) to the metric in [0, 1].
        interval: of the metric, 95 %, by counts of each image; None: unknown.
        told: what `example.py` says of an answer; its text goes there, so it runs with Python 3.8,
            numpy and Pillow: (path, logits of one image, names of the classes, px of the image as
            it is stored, how many classes to name).
        adds_up: whether counts of several images may be summed, as one row.
        version: of a metric of the user's own.
    """

    metric: str
    label_axes: int
    label_loss: Callable[[Tensor, Tensor, float], Tensor]
    taught_loss: Callable[[Tensor, Tensor, float], Tensor]
    answers: Callable[[Tensor, Tensor], np.ndarray]
    counts: Callable[[Tensor, Tensor], np.ndarray]
    value: Callable[[np.ndarray, int], float]
    interval: Callable[[np.ndarray], tuple[float, float] | None]
    told: Callable[[str, Any, Any, int, int], str]
    adds_up: bool = True
    version: str = ""


def load(name: str) -> Task:
    """The task of a name.

    Raises:
        ConfigError: there is none; the message holds the nearest name.
    """
    module: Any = importlib.import_module(f"{__name__}.{select(name, names_in(__path__), 'task')}")
    task: Task = module.TASK
    return task
