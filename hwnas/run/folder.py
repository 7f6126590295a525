"""The folder that holds everything a run made: its paths, its lock, and which stages are current.

A stage reads files and writes files. It is current when its inputs (settings, input files, its own
version) and the versions of the software that decides its outputs equal those in its stamp, and its
outputs are the files it wrote. Why something is made again is said in one line. An output that was
changed by hand is never used and never overwritten silently.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from profilers.errors import ConfigError, FileFormatError
from profilers.locking import hold
from profilers.protocol import MANY, SHA256
from profilers.schema import (
    canonical_json,
    read_json,
    sha256_file,
    sha256_text,
    write_error,
    write_json,
)
from profilers.shape import map_of

STAMP_FORMAT = "hwnas-stamp-1"
LOCK, STAMPS = ".lock", "stamps"  # what tells a run folder from others
NEVER = "not made yet"


@dataclass(frozen=True)
class RunFolder:
    """Paths below one run folder."""

    root: Path

    @property
    def data(self) -> Path:
        """What networks must know of the data: channels, classes, normalisation, fingerprint."""
        return self.root / "data.json"

    @property
    def contents(self) -> Path:
        """What the files of streamed images hold, by hash."""
        return self.root / "contents.npy"

    @property
    def space(self) -> Path:
        """The space of a torch model of the user's own."""
        return self.root / "space.json"

    @property
    def start(self) -> Path:
        """The supernet before it was trained on: an imported one, or that of the user's model."""
        return self.root / "supernet.start.safetensors"

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

    def accuracies_in(self, written: str) -> Path:
        """File of accuracies of networks as written for some devices, such as `int8-u8s8`."""
        return self.root / f"accuracy.{written}.jsonl"

    def predictor_in(self, written: str) -> Path:
        """File of the accuracy predictor of networks as written for some devices."""
        return self.root / f"predictor.{written}.npz"

    @property
    def report(self) -> Path:
        """HTML report."""
        return self.root / "report.html"

    @property
    def config(self) -> Path:
        """Resolved settings of the last run."""
        return self.root / "config.json"

    @property
    def durations(self) -> Path:
        """How long each stage took the last time, seconds."""
        return self.root / "durations.json"

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

    def results(self, target: str) -> Path:
        """What was measured of a target's packages, by content."""
        return self.root / "results" / f"{target}.json"

    def aside(self, target: str) -> Path:
        """Packages of a target that others replaced, or that settings no longer ask for."""
        return self.root / "aside" / target

    def stamp(self, work: str) -> Path:
        """What a piece of work was made from, by its name."""
        return self.root / STAMPS / f"{work}.json"

    def finetuned(self, network: str) -> Path:
        """Fine-tuned weights of a subnet, by its id."""
        return self.root / "finetuned" / network / "subnet.safetensors"


@dataclass(frozen=True)
class Work:
    """One unit of work of a stage: what it is made from and what it writes.

    Attributes:
        name: `<stage>` or `<stage>.<target>`.
        version: raised when the stage's code changes what it writes.
        inputs: everything that decides the outputs; JSON values.
        outputs: the files that it writes.
        versions: of the software that decides the outputs, by name.
        costly: other versions of the software give a note, and are no reason to do the work again.
    """

    name: str
    version: int
    inputs: Mapping[str, Any]
    outputs: tuple[Path, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    costly: bool = False

    @property
    def inputs_hash(self) -> str:
        """Hash of version and inputs."""
        return sha256_text(canonical_json({"version": self.version, "inputs": self.inputs}))


class State(NamedTuple):
    """Whether work is done; why it is not, or a note on it, or empty."""

    current: bool
    words: str


def state(run: RunFolder, work: Work) -> State:
    """Whether the outputs are there and were made from these very inputs by this software.

    Raises:
        FileFormatError: an output was changed since it was written.
    """
    stamp = _read_stamp(run.stamp(work.name))
    if not stamp:
        return State(False, NEVER)
    versions = differences(stamp["versions"], work.versions, "{} was {}, is {}")
    reasons = differences(stamp["inputs"], work.inputs, "{} changed")
    if stamp.get("version") != work.version:
        reasons.append("hwnas makes it differently now")
    gone = [path for path in work.outputs if not path.exists()]
    reasons += [f"{_relative(run, path)} is gone" for path in gone[:1]]
    if not reasons and any(_relative(run, path) not in stamp["outputs"] for path in work.outputs):
        reasons.append("it makes other files")
    if reasons or (versions and not work.costly):
        return State(False, ", ".join(versions + reasons))
    for output in work.outputs:
        if sha256_file(output) != stamp["outputs"][_relative(run, output)]:
            raise FileFormatError(
                f"{output} was changed since hwnas wrote it; delete it to make it again, "
                "or restore it"
            )
    remedy = f"; delete {work.outputs[0]} to make it again" if versions else ""
    return State(True, ", ".join(versions) + remedy)


def is_current(run: RunFolder, work: Work, say: Callable[[str], None]) -> bool:
    """Whether work is done, by `state`.

    Args:
        run: the run folder.
        work: what is to be made.
        say: gets the line that says why it is made again, or what software made it; nothing for
            work that was never done.

    Raises:
        FileFormatError: as `state`.
    """
    found = state(run, work)
    if found.words not in ("", NEVER):
        say(f"{work.name}: {'kept' if found.current else 'redone'}, {found.words}")
    return found.current


def differences(then: Mapping[str, Any], now: Mapping[str, Any], words: str) -> list[str]:
    """A text for each value that differs; of settings, for each one."""
    found = []
    for name in sorted({*then, *now}):
        old, new = then.get(name), now.get(name)
        if canonical_json(old) == canonical_json(new):
            continue
        if isinstance(old, dict) and isinstance(new, Mapping):
            found += [f"{name}.{text}" for text in differences(old, new, words)]
        else:
            found.append(words.format(name, old, new))
    return found


def begin(run: RunFolder, *works: Work) -> None:
    """Forget that work was done, right before its outputs are written: if that is cut short, no
    stamp vouches for them, and the work is done again.
    """
    for stamp in [run.stamp(work.name) for work in works]:
        try:
            stamp.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(stamp, error) from error


def mark_current(run: RunFolder, work: Work) -> None:
    """Remember that the outputs were just made from the inputs."""
    outputs = {_relative(run, output): sha256_file(output) for output in work.outputs}
    made = {"version": work.version, "inputs": work.inputs, "versions": work.versions}
    write_json(run.stamp(work.name), {"format": STAMP_FORMAT, **made, "outputs": outputs})


def _read_stamp(path: Path) -> dict[str, Any]:
    """What a stamp says; empty where there is none or it is damaged: its stage runs again."""
    try:
        stamp = read_json(path, STAMP_FORMAT)
    except FileFormatError:
        return {}
    whole = all(isinstance(stamp.get(key), dict) for key in ("inputs", "versions", "outputs"))
    return dict(stamp) if whole and not map_of(SHA256, MANY)(stamp["outputs"]) else {}


def _relative(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.root).as_posix()


def is_first_process() -> bool:
    """Whether this process writes the files: alone, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[RunFolder]:
    """The run folder, locked for this process and those that train with it.

    Under torchrun, rank 0 takes the lock; the other ranks write nothing.

    Raises:
        ConfigError: another process holds it, it cannot be written, or what is there is not ours.
    """
    if not is_first_process():
        yield RunFolder(root)
        return
    path = root / LOCK
    _refuse_others(root)
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


def _is_ours(path: Path) -> bool:
    """Whether a file is JSON of a format of ours."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["format"]).startswith("hwnas-")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_others(root: Path) -> None:
    """Refuse a folder that holds other people's files under our names, such as a project's; files
    that were copied from a run say so themselves.
    """
    run = RunFolder(root)
    taken = [path.name for path in (run.config, run.data, run.report) if path.exists()]
    marks = any((root / mark).exists() for mark in (LOCK, STAMPS))
    if taken and not marks and not _is_ours(run.data):
        raise ConfigError(
            f"{root} holds a {taken[0]} that is not of a run; set another `run:` folder"
        )


def _owner(text: str) -> str:
    try:
        return str(json.loads(text)["pid"])
    except (ValueError, KeyError, TypeError):
        return "(unknown)"
