"""Settings of training: of a supernet, and of weights that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hwnas.settings import parts
from hwnas.settings.data_config import Settings

if TYPE_CHECKING:
    RecipeName = str
else:  # what pydantic offers and checks
    RecipeName = Literal[parts.names("supernet/recipes")]


class TrainConfig(Settings):
    """How the supernet is trained."""

    recipe: RecipeName = Field(
        "sandwich", description="what a step trains: a file of hwnas/supernet/recipes"
    )
    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training images in all")
    max_only: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="share of the steps that train the max network alone, first; null: what the "
        "recipe says (sandwich: none)",
    )
    random_subnets: int = Field(
        1, ge=0, le=8, description="random subnets of a step; progressive multiplies it"
    )
    batch_size: int = Field(64, ge=2, le=65_536, description="images of one step")
    accumulate: int = Field(
        1,
        ge=1,
        le=1024,
        description="parts that the images of a step are shown in, one after the other, their "
        "gradients averaged: less memory; BatchNorm normalises by each part",
    )
    learning_rate: float = Field(0.2, gt=0, le=10, description="peak of the one-cycle schedule")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="not on BatchNorm and biases")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="of the max network's loss")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that raise the rate")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the forward pass")
    checkpoint_s: float = Field(30, gt=0, description="seconds between checkpoints")
    threads: int = Field(0, ge=0, le=4096, description="of the CPU; 0: chosen by a short trial")
    tensorboard: bool = Field(
        False, description="whether curves go to the folder tensorboard beside events.jsonl too"
    )
    plain_epochs: int = Field(
        0, ge=0, le=10_000, description="last epochs that take the images as they are, unaugmented"
    )
    seed: int = Field(0, ge=0, description="of weights, order, augmentation and sampled subnets")


class FinetuneConfig(TrainConfig):
    """How existing weights are trained further: by `hwnas finetune`, and those of space.model."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training images in all")
    max_only: Annotated[float, Field(ge=0, le=1)] | None = Field(
        0.0,
        description="share of the steps that train the max network alone, first; null: what the "
        "recipe says",
    )
    learning_rate: float = Field(0.02, gt=0, le=10, description="peak of the one-cycle schedule")
    weight_decay: float = Field(3e-5, ge=0, le=1, description="not on BatchNorm and biases")
    plain_epochs: int = Field(
        1, ge=0, le=10_000, description="last epochs that take the images as they are, unaugmented"
    )
    distill: float = Field(
        1.0,
        ge=0,
        le=100,
        description="weight of the teacher's answers beside the labels, for one subnet (the max "
        "network teaches it) or the max network of a model of yours (the model teaches it); "
        "smaller networks learn from the teacher whatever this is",
    )
    in_run: bool = Field(
        False,
        description="whether `hwnas run` trains each picked network for these epochs before "
        "export; `hwnas finetune --subnet` always does",
    )
