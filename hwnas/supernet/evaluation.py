"""The metric of subnets: taken out of the supernet, BatchNorm calibrated, run on held-out images.

Which split is read is always an argument: search sees the validation images only, the test images
are for what is exported. Networks run on the GPU where there is one, in half precision, else on the
CPU; images come from memory or from their files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.images import tensors
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.settings.config import AccuracyConfig
from hwnas.supernet.network import Subnet, Supernet, calibrate, channels_last, extract
from profilers.errors import ConfigError
from profilers.schema import append_lines, canonical_json, read_lines, write_atomic

BATCH = 256  # images of one forward pass
TALLY_S = 20.0  # seconds between notes of a long measurement


class Measured(Protocol):
    """What is measured of a network: the subnet, or what it is exported as."""

    arch: Architecture

    def parameters(self) -> Iterator[nn.Parameter]:
        """They are where inputs are wanted."""

    def __call__(self, x: Tensor) -> Tensor:
        """(n, n_classes) logits."""


@dataclass(frozen=True)
class Evaluator:
    """A trained supernet and the images that its subnets are calibrated and measured on.

    Attributes:
        made: what is measured of a subnet: itself, or what it is exported as.
        how: that is, in records.
    """

    supernet: Supernet
    dataset: tensors.Dataset
    config: AccuracyConfig
    supernet_sha256: str
    made: Callable[[Subnet], Measured] = lambda subnet: subnet
    how: Mapping[str, Any] = field(default_factory=dict)

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
        made = self.made(self.calibrated(extract(self.supernet, arch)))
        return metric_of(made, self.dataset, self.validation, tally)

    @property
    def validation(self) -> tensors.AnySplit:
        """The first `config.images` validation images in a fixed random order, or all."""
        split = self.dataset.val
        if self.config.images == "all" or self.config.images >= len(split):
            return split
        chosen = np.random.default_rng(self.config.seed).permutation(len(split))
        index = torch.from_numpy(chosen[: self.config.images])
        return split.subset(index)

    def _calibration(self, resolution: int) -> Iterator[Tensor]:
        split = self.dataset.train
        order = np.random.default_rng([self.config.seed, 1]).permutation(len(split))
        chosen = torch.from_numpy(order[: self.config.bn_images])
        for images, _ in tensors.batches(split.subset(chosen), resolution, BATCH):
            if len(images) == 1:
                continue  # one image alone has no spread behind a global pool
            yield tensors.prepare(images.to(tensors.compute_device()), resolution, self.dataset)


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
    say: Callable[[int, int], None] = lambda done, total: None

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

    top1: dict[Architecture, float]
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
            known.top1[row[0]] = row[1]
    return known


def _row(record: dict[str, Any], space: SearchSpace) -> tuple[Architecture, float] | None:
    """Architecture and accuracy of a record; None if it does not hold them."""
    arch, accuracy = record.get("arch"), record.get("top1")
    if not isinstance(arch, dict) or isinstance(accuracy, bool):
        return None
    if not isinstance(accuracy, (int, float)) or not 0 <= accuracy <= 1:
        return None
    try:
        return space.from_json(arch), float(accuracy)
    except (ConfigError, TypeError, ValueError):
        return None


def measure_all(
    archs: Iterable[Architecture],
    evaluator: Evaluator,
    path: Path,
    say: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[Architecture, float]]:
    """Measure architectures one by one; what `path` holds already is not measured again.

    Each new result is appended to `path` (JSON Lines) before it is yielded. A measurement that
    takes long is noted down beside it (`<name>.partial`), and goes on from there.

    Args:
        archs: what to measure.
        evaluator: supernet and images.
        path: accuracy.jsonl.
        say: told (images done, images in all) of the network under way, now and then.
    """
    known = read_accuracies(path, evaluator).top1
    conditions = _conditions(evaluator)
    partial = path.with_name(f"{path.name}.partial")
    for arch in archs:
        if arch not in known:
            key = canonical_json({"arch": arch.to_json(), **conditions})
            known[arch] = evaluator.measure(arch, Tally(partial, key, say))
            partial.unlink(missing_ok=True)
            row = {"arch": arch.to_json(), "top1": known[arch], **conditions}
            append_lines(path, [row])
        yield arch, known[arch]


def _conditions(evaluator: Evaluator) -> dict[str, Any]:
    return {
        "split": "val",
        "n_images": len(evaluator.validation),
        "supernet_sha256": evaluator.supernet_sha256,
        "bn_images": evaluator.config.bn_images,
        "seed": evaluator.config.seed,
        "data": evaluator.dataset.fingerprint,
        **evaluator.how,
    }
