"""A metric of the user's own in place of a task's: a function of answers and labels.

It is called once with all images of a measurement. The user's code runs only where something is
measured; what it raises is told with its file and line.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.tasks import Task
from profilers.errors import ConfigError
from profilers.plugins import code_of_others, import_object
from profilers.schema import sha256_file

WHAT = "task.metric"


def with_metric(task: Task, name: str, base: Path) -> Task:
    """The task with the metric 1 - what a function returns; nothing is imported yet.

    Args:
        task: whose losses stay.
        name: `module:function` of the user.
        base: folder of hwnas.yaml; modules there are found.
    """
    file = base / (name.partition(":")[0].replace(".", "/") + ".py")
    return replace(
        task,
        metric=f"1 - {name}",
        counts=functools.partial(_counts, task.answers),  # of what a worker can be sent
        value=functools.partial(_value, name, base),
        interval=_unknown,
        adds_up=False,
        version=f"{name} {sha256_file(file)[:12] if file.is_file() else ''}".strip(),
    )


def _counts(answers: Callable[[Any, Any], np.ndarray], logits: Any, labels: Any) -> np.ndarray:
    """(n,) answer and label of each image."""
    given, truth = answers(logits, labels), labels.numpy()
    kinds = [("answer", given.dtype, given.shape[1:]), ("label", truth.dtype, truth.shape[1:])]
    found = np.empty(len(truth), kinds)
    found["answer"], found["label"] = given, truth
    return found


def _value(name: str, base: Path, found: np.ndarray, n: int) -> float:
    with code_of_others(name, WHAT):
        error: Any = function(name, base)(found["answer"], found["label"])
    with suppress(TypeError, ValueError):
        if 0 <= float(error) <= 1:
            return 1 - float(error)
    raise ConfigError(f"{WHAT} {name} returned {error!r:.80}, expected an error from 0 to 1")


def _unknown(found: np.ndarray) -> None:
    """No interval."""


@functools.lru_cache(maxsize=1)
def function(name: str, base: Path) -> Callable[[np.ndarray, np.ndarray], Any]:
    """The user's function.

    Raises:
        ConfigError: it is not there, or is none.
    """
    sys.path.insert(0, str(base))
    try:
        found = import_object(name, WHAT)
    finally:
        with suppress(ValueError):  # the user's code changed the path itself
            sys.path.remove(str(base))
    if not callable(found):
        raise ConfigError(
            f"{WHAT} {name} is a {type(found).__name__}, expected a function of answers and labels "
            "that returns the error"
        )
    return found  # type: ignore[no-any-return]
