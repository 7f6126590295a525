"""What a training run is made of, and the settings that decide its result. Imports no torch."""

from __future__ import annotations

import bisect
import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.settings.config import TrainConfig
from hwnas.supernet import recipes
from hwnas.supernet.recipes import Recipe
from profilers.schema import canonical_json

PACE = {"checkpoint_s", "threads", "in_run", "tensorboard"}  # settings that decide no weight

if TYPE_CHECKING:
    from hwnas.images.tensors import Dataset


class Plan(NamedTuple):
    """How many steps there are, in all and in an epoch; the first step of each stage, and behind
    them the number of all steps.
    """

    steps: int
    per_epoch: int
    starts: tuple[int, ...]

    def stage(self, step: int) -> int:
        """Number of the stage that a step is in."""
        return bisect.bisect_right(self.starts[:-1], step) - 1


def training_inputs(
    config: TrainConfig,
    space: SearchSpace,
    augment: str,
    fingerprint: str,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """All that decides the trained weights, as JSON values; nothing that decides only the pace.

    Args:
        config: settings of training.
        space: with the resolutions that are trained.
        augment: kind of augmentation.
        fingerprint: of the data set.
        recipe: None: that of the settings.
    """
    return {
        "recipe": json.loads(canonical_json(asdict(recipe or recipes.load(config.recipe)))),
        "train": config.model_dump(mode="json", exclude=PACE),
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
        own_recipe: in place of that of the settings.
    """

    config: TrainConfig
    space: SearchSpace
    dataset: Dataset
    augment: str
    folder: Path
    start: str = ""
    own_recipe: Recipe | None = None

    @functools.cached_property
    def recipe(self) -> Recipe:
        """What the run is made of."""
        return self.own_recipe or recipes.load(self.config.recipe)

    @functools.cached_property
    def plan(self) -> Plan:
        """Steps of the run; the last, incomplete batch of an epoch is dropped."""
        per_epoch = max(1, len(self.dataset.train) // self.config.batch_size)
        steps = self.config.epochs * per_epoch
        first, *others = (stage.share for stage in self.recipe.stages)
        if self.config.max_only is not None and others:
            first, left = self.config.max_only, 1 - self.config.max_only
            others = [left * share / sum(others) for share in others]
        ends = itertools.accumulate((first, *others), initial=0.0)
        whole = first + sum(others)
        return Plan(steps, per_epoch, tuple(round(steps * end / whole) for end in ends))

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What decides the result: see `training_inputs`."""
        given = training_inputs(
            self.config, self.space, self.augment, self.dataset.fingerprint, self.recipe
        )
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
