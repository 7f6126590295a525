"""The metric of subnets: taken out of the supernet, BatchNorm calibrated, run on held-out images.

Which split is read is always an argument: search sees the validation images only, the test images
are for what is exported. Networks run on the GPU where there is one, in half precision, else on the
CPU, by torch or, for many images, by ONNX Runtime; images come from memory or from their files.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.images import tensors
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.settings.config import AccuracyConfig
from hwnas.supernet.exported import exported
from hwnas.supernet.network import Subnet, Supernet, calibrate, channels_last, extract
from profilers.errors import ConfigError
from profilers.schema import append_lines, canonical_json, read_lines, write_atomic

BATCH = 256  # images of one forward pass
MANY = 1000  # images that are worth loading a network into another engine
TALLY_S = 20.0  # seconds between notes of a long measurement

Say = Callable[[int, int], None]  # told (images done, images in all) now and then


class Measured(Protocol):
    """What is measured of a network: the subnet, or what it is exported as."""

    arch: Architecture

    def parameters(self) -> Iterator[nn.Parameter]:
        """They are where inputs are wanted."""

    def __call__(self, x: Tensor) -> Tensor:
        """(n, n_classes) logits."""


def _quiet(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Evaluator:
    """A trained supernet and the images that its subnets are calibrated and measured on.

    Attributes:
        made: what is measured of a subnet, in place of itself.
        how: that is, in records.
        chosen: whether the data hold only the images that are used, in their order.
    """

    supernet: Supernet
    dataset: tensors.Dataset
    config: AccuracyConfig
    supernet_sha256: str
    made: Callable[[Subnet], Measured] | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = False

    def subnet(self, arch: Architecture) -> Subnet:
        """The plain network of an architecture, its BatchNorm calibrated on training images; on the
        CPU.
        """
        return self.calibrated(extract(self.supernet, arch)).cpu()

    def calibrated(self, subnet: Subnet) -> Subnet:
        """The subnet itself, calibrated on training images, where networks run."""
        channels_last(subnet).to(tensors.compute_device())
        calibrate(subnet, self._calibration(subnet.arch.resolution))
        return subnet

    def measure(self, arch: Architecture, tally: Tally | None = None) -> float:
        """The task's metric of a subnet on the validation images that all subnets are measured on.

        Args:
            tally: where a long measurement is noted down, and goes on from; None: nowhere.
        """
        subnet, split = self.calibrated(extract(self.supernet, arch)), self.validation
        faster = tensors.compute_device().type == "cpu" and len(split) >= MANY
        made = self.made or (exported if faster else None)
        return metric_of(made(subnet) if made else subnet, self.dataset, split, tally)

    @property
    def validation(self) -> tensors.AnySplit:
        """The first `config.images` validation images in a fixed random order, or all."""
        split = self.dataset.val
        if self.config.images == "all" or self.config.images >= len(split):
            return split
        chosen = np.random.default_rng(self.config.seed).permutation(len(split))
        index = torch.from_numpy(chosen[: self.config.images])
        return split.subset(index)

    @property
    def calibration(self) -> tensors.AnySplit:
        """The training images that BatchNorm is calibrated on, in a fixed random order."""
        split = self.dataset.train
        if self.chosen:
            return split
        order = np.random.default_rng([self.config.seed, 1]).permutation(len(split))
        return split.subset(torch.from_numpy(order[: self.config.bn_images]))

    def packed(self) -> bytes:
        """The evaluator with the images that it uses and no others, for `unpacked`."""
        val, nothing = self.validation, torch.arange(0)
        images = replace(
            self.dataset,
            train=self.calibration,
            val=val.subset(torch.arange(len(val))),  # a view would take what it is a view of along
            test=self.dataset.test.subset(nothing),
            seen=None,
        )
        data = io.BytesIO()
        torch.save(replace(self, dataset=images, chosen=True), data)
        return data.getvalue()

    def _calibration(self, resolution: int) -> Iterator[Tensor]:
        for images, _ in tensors.batches(self.calibration, resolution, BATCH):
            if len(images) == 1:
                continue  # one image alone has no spread behind a global pool
            yield tensors.prepare(images.to(tensors.compute_device()), resolution, self.dataset)


def unpacked(source: Path | io.BytesIO) -> Evaluator:
    """The evaluator that `packed` gave; of a file the weights and images are mapped, so that
    processes share them.
    """
    found = torch.load(source, weights_only=False, mmap=isinstance(source, Path))
    assert isinstance(found, Evaluator)
    return found


@dataclass(frozen=True)
class Tally:
    """A measurement that is under way, in a file, so that a cut one goes on where it stopped.

    Attributes:
        path: of the file.
        key: what is measured, and under which conditions.
        say: told (images done, images in all) now and then.
    """

    path: Path
    key: str
    say: Say = _quiet

    def read(self) -> tuple[int, list[int]]:
        """Images done, and the sum of their counts (see `Task`); (0, []) if the file is of another
        measurement.
        """
        records, _ = read_lines(self.path) if self.path.exists() else ([], [])
        for record in records:
            done, counts = record.get("done"), record.get("counts")
            if record.get("key") == self.key and type(done) is int and isinstance(counts, list):
                return done, counts
        return 0, []

    def write(self, done: int, counts: Sequence[int]) -> None:
        """Note down how far the measurement is."""
        line = canonical_json({"key": self.key, "done": done, "counts": list(counts)})
        write_atomic(self.path, f"{line}\n".encode())


@torch.no_grad()
def metric_of(
    subnet: Measured, dataset: tensors.Dataset, split: tensors.AnySplit, tally: Tally | None = None
) -> float:
    """The task's metric of a subnet on a split's images: a fraction.

    Raises:
        ConfigError: it gives logits that are NaN or infinite.
    """
    px, device, task = subnet.arch.resolution, next(subnet.parameters()).device, dataset.task
    tally = tally if task.adds_up else None
    done, known = tally.read() if tally else (0, [])
    counts = [np.array([known])] if known else []
    noted = time.monotonic()
    half = torch.autocast(device.type, torch.float16, enabled=device.type == "cuda")
    for images, labels in tensors.batches(split, px, BATCH, done):
        with half:
            logits = subnet(tensors.prepare(images.to(device), px, dataset))
        if not logits.isfinite().all():
            raise ConfigError(
                f"network {subnet.arch.id} gives logits that are NaN or infinite: its weights are "
                "useless; train again with a lower train.learning_rate"
            )
        counts.append(task.counts(logits, labels))
        done += len(labels)
        if tally and time.monotonic() - noted > TALLY_S:
            tally.write(done, np.concatenate(counts).sum(0).tolist())
            tally.say(done, len(split))
            noted = time.monotonic()
    return task.value(np.concatenate(counts), len(split))


def to_measure(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Architecture]:
    """Architectures that inform a predictor: corners first, then random ones, all different.

    Corners are the max and min networks and, for each kind of choice, the networks that have that
    kind at its largest and all else at its smallest, and the reverse (METHODS of a measure-refit
    loop start there: an additive fit needs the ends of every dimension).
    """
    top, low = space.n_options - 1, np.zeros_like(space.n_options)
    kinds = np.array([choice.name.split(".")[-1] for choice in space.choices])
    rows = [top, low]
    for kind in sorted(set(kinds)):
        rows += [np.where(kinds == kind, top, low), np.where(kinds == kind, low, top)]
    genome = np.concatenate([rows, space.sample(4 * n, rng)])
    _, first = np.unique(space.canonical(genome), axis=0, return_index=True)
    return space.architectures(genome[np.sort(first)][:n])


class Known(NamedTuple):
    """Accuracies that a file holds, and how many of its lines are broken or malformed."""

    accuracy: dict[Architecture, float]
    n_bad: int


def read_accuracies(path: Path, evaluator: Evaluator) -> Known:
    """Accuracies already measured for this very supernet, data and settings, by architecture."""
    records, broken = read_lines(path)
    expected = _conditions(evaluator)
    known = Known({}, len(broken))
    for record in records:
        if any(record.get(name) != value for name, value in expected.items()):
            continue
        row = _row(record, evaluator.supernet.space)
        if row is None:
            known = known._replace(n_bad=known.n_bad + 1)
        else:
            known.accuracy[row[0]] = row[1]
    return known


def _row(record: dict[str, Any], space: SearchSpace) -> tuple[Architecture, float] | None:
    """Architecture and accuracy of a record; None if it does not hold them."""
    arch, accuracy = record.get("arch"), record.get("accuracy")
    if not isinstance(arch, dict) or isinstance(accuracy, bool):
        return None
    if not isinstance(accuracy, (int, float)) or not 0 <= accuracy <= 1:
        return None
    try:
        return space.from_json(arch), float(accuracy)
    except (ConfigError, TypeError, ValueError):
        return None


# ---- many networks -------------------------------------------------------------------------------


class Farm(Protocol):
    """What measures networks: this process, others, or the workers of a cluster."""

    @property
    def room(self) -> bool:
        """Whether it takes one more network now."""

    def send(self, arch: Architecture, tally: Tally) -> None:
        """Have a network measured; does not wait for it."""

    def receive(self) -> tuple[Architecture, float]:
        """A network that was sent and its top-1; waits until there is one.

        Raises:
            DeviceError: the workers are lost, or end whenever they measure this network.
        """


class Here:
    """This process, which measures one network at a time."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._sent: list[tuple[Architecture, Tally]] = []

    @property
    def room(self) -> bool:
        """As of `Farm`."""
        return not self._sent

    def send(self, arch: Architecture, tally: Tally) -> None:
        """As of `Farm`."""
        self._sent.append((arch, tally))

    def receive(self) -> tuple[Architecture, float]:
        """As of `Farm`."""
        arch, tally = self._sent.pop()
        return arch, self._evaluator.measure(arch, tally)


class Measurer:
    """Accuracies of networks: those that a file holds, and others as they are measured.

    Each new result is kept before anybody gets it. Lines of the file have the order in which
    networks were asked for, whoever is done first: what is ahead of its turn waits beside it in
    `<name>.ahead`. A measurement that takes long is noted down in `<name>.<id>.partial` and goes on
    from there.

    Args:
        evaluator: supernet and images.
        path: accuracy.jsonl.
        farm: what measures; None: this process.
    """

    def __init__(self, evaluator: Evaluator, path: Path, farm: Farm | None = None) -> None:
        self._path, self._beside = path, path.with_name(f"{path.name}.ahead")
        self._farm = farm or Here(evaluator)
        self._conditions = _conditions(evaluator)
        self._known = read_accuracies(path, evaluator).accuracy
        self._ahead = read_accuracies(self._beside, evaluator).accuracy
        self._asked = {*self._known, *self._ahead}
        self._waiting = deque[tuple[Architecture, Tally]]()

    def measure(
        self, archs: Sequence[Architecture], say: Say = _quiet
    ) -> Iterator[tuple[Architecture, float]]:
        """Top-1 of networks, in their order. Workers start with them at once; this process starts
        with each when it is asked for.

        Args:
            archs: what to measure; what is measured already is not measured again.
            say: told of the network under way, where this process measures.
        """
        for arch in archs:
            if arch not in self._asked:
                self._asked.add(arch)
                self._waiting.append((arch, self._tally(arch, say)))
        self._send()
        return map(self._result, archs)

    def _tally(self, arch: Architecture, say: Say) -> Tally:
        key = canonical_json({"arch": arch.to_json(), **self._conditions})
        return Tally(self._path.with_name(f"{self._path.name}.{arch.id}.partial"), key, say)

    def _send(self) -> None:
        while self._waiting and self._farm.room:
            self._farm.send(*self._waiting.popleft())

    def _result(self, wanted: Architecture) -> tuple[Architecture, float]:
        while wanted not in self._known and wanted not in self._ahead:
            arch, top1 = self._farm.receive()
            self._ahead[arch] = top1
            if arch != wanted:
                self._keep(arch, self._beside)
            self._tally(arch, _quiet).path.unlink(missing_ok=True)
            self._send()
        if wanted not in self._known:
            self._keep(wanted, self._path)
            self._known[wanted] = self._ahead[wanted]
        if self._ahead.pop(wanted, None) is not None and not self._ahead:
            self._beside.unlink(missing_ok=True)
        return wanted, self._known[wanted]

    def _keep(self, arch: Architecture, path: Path) -> None:
        row = {"arch": arch.to_json(), "accuracy": self._ahead[arch], **self._conditions}
        append_lines(path, [row])


def measure_all(
    archs: Sequence[Architecture], evaluator: Evaluator, path: Path
) -> Iterator[tuple[Architecture, float]]:
    """Measure architectures one by one in this process, as `Measurer` does."""
    return Measurer(evaluator, path).measure(archs)


def _conditions(evaluator: Evaluator) -> dict[str, Any]:
    task = evaluator.dataset.task
    return {
        "split": "val",
        "n_images": len(evaluator.validation),
        "supernet_sha256": evaluator.supernet_sha256,
        "bn_images": evaluator.config.bn_images,
        "seed": evaluator.config.seed,
        "data": evaluator.dataset.fingerprint,
        **({"metric": task.version} if task.version else {}),
        **evaluator.how,
    }
