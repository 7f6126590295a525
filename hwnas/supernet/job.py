"""What a training run is made of, and the settings that decide its result. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.settings.config import TrainConfig
from profilers.schema import canonical_json

if TYPE_CHECKING:
    from hwnas.images.tensors import Dataset


class Plan(NamedTuple):
    """How many steps there are, in an epoch and with the max network alone."""

    steps: int
    per_epoch: int
    max_only: int


def training_inputs(
    config: TrainConfig, space: SearchSpace, augment: str, fingerprint: str
) -> dict[str, Any]:
    """All that decides the trained weights, as JSON values; nothing that decides only the pace.

    Args:
        config: settings of training.
        space: with the resolutions that are trained.
        augment: kind of augmentation.
        fingerprint: of the data set.
    """
    return {
        "train": config.model_dump(mode="json", exclude={"checkpoint_s", "threads", "in_run"}),
        "augment": augment,
        "geometry": space.geometry,
        "offered": space.offered(),
        "data": fingerprint,
    }


@dataclass(frozen=True)
class Job:
    """A training run: settings, space, images, augmentation, and the folder of its files.

    Attributes:
        start: sha256 of the file whose weights it starts from; empty: fresh ones.
    """

    config: TrainConfig
    space: SearchSpace
    dataset: Dataset
    augment: str
    folder: Path
    start: str = ""

    @property
    def plan(self) -> Plan:
        """Steps of the run; the last, incomplete batch of an epoch is dropped."""
        per_epoch = max(1, len(self.dataset.train) // self.config.batch_size)
        steps = self.config.epochs * per_epoch
        return Plan(steps, per_epoch, round(self.config.max_only * steps))

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What decides the result: see `training_inputs`."""
        given = training_inputs(self.config, self.space, self.augment, self.dataset.fingerprint)
        return {**given, "start": self.start} if self.start else given

    def identity(self, alone: Architecture | None) -> str:
        """Canonical text of what decides the result; a checkpoint of another run is not resumed.

        Args:
            alone: architecture of a plain network; None is the supernet.
        """
        network = "supernet" if alone is None else alone.to_json()
        return canonical_json({**self.inputs, "network": network})

    @property
    def checkpoint(self) -> Path:
        """Where the state of an unfinished run is kept."""
        return self.folder / "train.checkpoint.safetensors"
