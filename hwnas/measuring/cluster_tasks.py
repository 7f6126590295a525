"""What a Dask worker does for one target: the functions of `measuring.remote`, on plain values.

A task gets everything it needs by value and keeps nothing: what it measures is told round by round
to the process that asked, whose file is the only master copy. Runs where hwnas is installed and the
device is within reach; how it is reached is said in its target file, as seen from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import here
from hwnas.measuring.scratch import scratch
from hwnas.settings import versions
from hwnas.settings.config import ProfileConfig
from profilers.errors import ConfigError
from profilers.schema import Target, target_from_json

Tell = Callable[[Mapping[str, Any]], None]


def by_equal_code(code: str, task: Callable[..., Any], *arguments: Any) -> Any:
    """What a task gives here, where hwnas is that of the process that asks: another one may count
    rounds or images in another way, and nothing would show it.

    Args:
        code: `versions.code()` there.

    Raises:
        ConfigError: it is another one here.
    """
    from distributed import get_worker

    if versions.code() != code:
        raise ConfigError(
            f"worker {get_worker().name} of the cluster has hwnas {versions.code()}, the process "
            f"that asks has {code}; install there what is installed here and start it again"
        )
    return task(*arguments)


def progress_to(topic: str) -> Tell:
    """Where a task reports its progress: the scheduler, which passes it on."""
    from distributed import get_worker

    worker = get_worker()
    return lambda message: worker.log_event(topic, dict(message))


def probe(target: Mapping[str, Any]) -> dict[str, Any]:
    """As `here.probe`."""
    return here.probe(_target(target))


def campaign(
    topic: str,
    target: Mapping[str, Any],
    kit: Mapping[str, bytes],
    settings: Mapping[str, Any],
    known: bytes,
) -> dict[str, Any]:
    """As `here.run_campaign`, continuing from what is known; sends new lines of measurements.

    Args:
        topic: of what is told: `lines` (bytes of the file from `offset` on), `text`, `share`.
        target: of a target file.
        kit: content of each file of the kit.
        settings: of the profile.
        known: the measurements file so far.

    Returns:
        fields of a CampaignResult.
    """
    tell = progress_to(topic)
    with scratch("queue") as folder:
        path = folder / "measurements.jsonl"
        for name, content in kit.items():
            (folder / name).write_bytes(content)
        path.write_bytes(known)
        news = _News(path, known, tell)
        try:
            found = here.run_campaign(
                _target(target), folder, path, ProfileConfig(**settings), news.say
            )
        finally:
            news.say("", -1.0)
        return {**dataclasses.asdict(found), "path": ""}


class _News:
    """What was appended to a file since the last report."""

    def __init__(self, path: Path, known: bytes, tell: Tell) -> None:
        self._path, self._tell = path, tell
        self._first, self._offset = known.partition(b"\n")[0], len(known)

    def say(self, text: str, share: float) -> None:
        """Send new lines, and progress (none if share is negative)."""
        content = self._path.read_bytes()
        first = content.partition(b"\n")[0]
        if first != self._first:  # measured on something else: a new file was begun
            self._first, self._offset = first, 0
        lines, offset = content[self._offset :], self._offset
        self._offset = len(content)
        self._tell({"lines": lines, "offset": offset, "text": text, "share": share})


def models(
    topic: str,
    target: Mapping[str, Any],
    contents: Sequence[bytes],
    settings: Mapping[str, Any],
    ops: Sequence[Any],
) -> list[dict[str, Any]]:
    """As `here.measure_models`, of the contents of files."""
    tell = progress_to(topic)
    with scratch("queue") as folder:
        paths = _written(folder, contents)
        return here.measure_models(
            _target(target),
            paths,
            ProfileConfig(**settings),
            lambda text, share: tell({"lines": b"", "offset": 0, "text": text, "share": share}),
            ops,
        )


def outputs(target: Mapping[str, Any], content: bytes, inputs: np.ndarray) -> np.ndarray:
    """As `here.run_model`, of the content of a file."""
    with scratch("queue") as folder:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return here.run_model(_target(target), path, inputs)


def built(
    target: Mapping[str, Any], contents: Sequence[bytes], ops: Sequence[Any]
) -> list[list[bytes]]:
    """As `here.built_files`, of the contents of files."""
    with scratch("queue") as folder:
        return here.built_files(_target(target), _written(folder, contents), ops)


def _written(folder: Path, contents: Sequence[bytes]) -> list[Path]:
    paths = [folder / f"{number}.onnx" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def _target(value: Mapping[str, Any]) -> Target:
    return target_from_json(dict(value))
