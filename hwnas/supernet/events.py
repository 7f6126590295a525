"""What a training run tells of its steps: events.jsonl and, where settings ask, TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwnas.supernet.job import Job
from profilers.errors import ConfigError
from profilers.schema import append_lines

NO_CURVE = ("step", "epoch", "threads", "split_gradients")


class Events:
    """Writes the events of one run, as a context manager.

    Args:
        first: step that the run begins with; curves of steps behind it are those of a run that was
            cut after its last checkpoint, and TensorBoard drops them.
        writes: of several processes one does.

    Raises:
        ConfigError: `tensorboard: true` without the package.
    """

    def __init__(self, job: Job, first: int, writes: bool) -> None:
        self._path = job.folder / "events.jsonl" if writes else None
        self._board = _board(job, first) if writes and job.config.tensorboard else None

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *error: object) -> None:
        if self._board:
            self._board.close()

    def write(self, event: Mapping[str, Any]) -> None:
        """Add an event; its `step` counts from 1."""
        if self._path:
            append_lines(self._path, [dict(event)])
        if self._board:
            for name, value in _curves(event):
                self._board.add_scalar(name, value, event["step"])
            self._board.flush()


def _board(job: Job, first: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError(
            "tensorboard: true needs the package tensorboardX; pip install 'hwnas[tensorboard]', "
            "or leave the setting out"
        ) from None
    return SummaryWriter(str(job.folder / "tensorboard"), purge_step=first + 1)


def _curves(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of the curves that an event adds a point to."""
    for name, value in event.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{part}", right) for part, right in value.items())
        elif isinstance(value, (int, float)) and name not in NO_CURVE:
            yield name, value
