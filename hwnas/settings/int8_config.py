"""Settings of int8 networks: images for activation ranges, and how many networks to measure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hwnas.settings.data_config import Settings


class Int8Config(Settings):
    """How networks of targets in int8 are quantised, and how many are measured so."""

    calibration: Literal["min-max", "percentile", "entropy"] = Field(
        "min-max", description="how the ranges of activations are taken of training images"
    )
    images: int = Field(128, ge=32, le=100_000, description="training images of the ranges")
    percentile: float = Field(
        99.99, gt=50, le=100, description="magnitudes that percentile keeps, of 100"
    )
    measure: int = Field(
        48,
        ge=8,
        le=100_000,
        description="networks, along the range, measured in int8 on the validation images, to "
        "predict error in int8",
    )
    tune_above: float | None = Field(
        None,
        ge=0,
        le=100,
        description="points of validation accuracy that a package may lose in int8 before it is "
        "trained on with its numbers rounded; null: it never is",
    )
    seed: int = Field(0, ge=0, description="of the training images chosen")
