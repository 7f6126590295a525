"""The folder that holds everything a run made: its paths, its lock, and which stages are current.

A stage reads files and writes files. It is current when the hash of its inputs (settings, input
files, its own version) equals the one in its stamp and its outputs are the files it wrote. An
output that was changed by hand is never used and never overwritten silently.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilers.errors import ConfigError, FileFormatError
from profilers.schema import (
    canonical_json,
    hold,
    read_json,
    sha256_file,
    sha256_text,
    write_error,
    write_json,
)

STAMP_FORMAT = "hwnas-stamp-1"


@dataclass(frozen=True)
class RunFolder:
    """Paths below one run folder."""

    root: Path

    @property
    def data(self) -> Path:
        """What networks must know of the data: channels, classes, normalisation, fingerprint."""
        return self.root / "data.json"

    @property
    def supernet(self) -> Path:
        """Trained supernet."""
        return self.root / "supernet.safetensors"

    @property
    def accuracies(self) -> Path:
        """Measured accuracies, JSON Lines."""
        return self.root / "accuracy.jsonl"

    @property
    def predictor(self) -> Path:
        """Accuracy predictor."""
        return self.root / "predictor.npz"

    @property
    def report(self) -> Path:
        """HTML report."""
        return self.root / "report.html"

    @property
    def config(self) -> Path:
        """Resolved settings of the last run."""
        return self.root / "config.json"

    def kit(self, batch: int) -> Path:
        """Kit for targets of one batch size."""
        return self.root / "kits" / f"b{batch}"

    def measurements(self, target: str) -> Path:
        """Raw measurements of a target, JSON Lines."""
        return self.root / "measurements" / f"{target}.jsonl"

    def table(self, target: str) -> Path:
        """Latency table of a target."""
        return self.root / "tables" / f"{target}.json"

    def front(self, target: str) -> Path:
        """Searched front of a target."""
        return self.root / "fronts" / f"{target}.json"

    def packages(self, target: str) -> Path:
        """Folder of a target's packages."""
        return self.root / "packages" / target


@dataclass(frozen=True)
class Work:
    """One unit of work of a stage: what it is made from and what it writes.

    Attributes:
        name: `<stage>` or `<stage>.<target>`.
        version: raised when the stage's code changes what it writes.
        inputs: everything that decides the outputs; JSON values.
        outputs: the files that it writes.
    """

    name: str
    version: int
    inputs: Mapping[str, Any]
    outputs: tuple[Path, ...]

    @property
    def inputs_hash(self) -> str:
        """Hash of version and inputs."""
        return sha256_text(canonical_json({"version": self.version, "inputs": self.inputs}))


def is_current(run: RunFolder, work: Work) -> bool:
    """Whether the outputs are there and were made from these very inputs.

    Raises:
        FileFormatError: an output was changed since it was written.
    """
    stamp = _read_stamp(_stamp(run, work))
    if stamp.get("inputs") != work.inputs_hash:
        return False
    hashes = stamp["outputs"]
    if any(not path.exists() or _relative(run, path) not in hashes for path in work.outputs):
        return False
    for output in work.outputs:
        if sha256_file(output) != hashes[_relative(run, output)]:
            raise FileFormatError(
                f"{output} was changed since hwnas wrote it; delete it to make it again, "
                "or restore it"
            )
    return True


def mark_current(run: RunFolder, work: Work) -> None:
    """Remember that the outputs were just made from the inputs."""
    outputs = {_relative(run, output): sha256_file(output) for output in work.outputs}
    write_json(
        _stamp(run, work), {"format": STAMP_FORMAT, "inputs": work.inputs_hash, "outputs": outputs}
    )


def _read_stamp(path: Path) -> dict[str, Any]:
    """What a stamp says; empty where there is none or it is damaged: its stage runs again."""
    try:
        stamp = read_json(path, STAMP_FORMAT)
    except FileFormatError:
        return {}
    return dict(stamp) if isinstance(stamp.get("outputs"), dict) else {}


def _stamp(run: RunFolder, work: Work) -> Path:
    return run.root / "stamps" / f"{work.name}.json"


def _relative(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.root).as_posix()


def is_first_process() -> bool:
    """Whether this process writes the files: alone, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[RunFolder]:
    """The run folder, held by this process, and by those that train with it, alone.

    Of processes that torchrun started the first takes the lock; the others write nothing.

    Raises:
        ConfigError: another process holds it, or it cannot be written.
    """
    if not is_first_process():
        yield RunFolder(root)
        return
    path = root / ".lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle, words = hold(path, json.dumps({"pid": os.getpid()}))
    except OSError as error:
        raise write_error(path, error) from error
    if handle is None:
        raise ConfigError(
            f"{root} is in use by process {_owner(words)}; wait for it, or set another `run:` "
            "folder"
        )
    with handle:
        yield RunFolder(root)


def _owner(text: str) -> str:
    try:
        return str(json.loads(text)["pid"])
    except (ValueError, KeyError, TypeError):
        return "(unknown)"
