"""Settings of the data: where images or time series come from and how they are split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hwnas.settings import parts

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(n.replace("-", "_") for n in parts.names("images/readers", "none"))]


Numbers = Annotated[tuple[float, ...], Field(min_length=1, max_length=64)]


class Settings(BaseModel):
    """A part of the settings: frozen, with no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, data: Any) -> Any:
        """Nothing is the empty text where a text is expected; `yes` is not a number."""
        if not isinstance(data, dict):
            return data
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        for name, value in data.items():
            entries = value if isinstance(value, list) else [value]
            if isinstance(value, dict) and get_origin(kinds.get(name)) is dict:
                entries = list(value.values())
            kind = kinds.get(name, str)  # an unknown name is refused by itself
            strict = kind not in (bool, str) and get_origin(kind) is not Literal
            if strict and any(isinstance(entry, bool) for entry in entries):  # true would be 1
                raise ValueError(f"{name} must be a number (given: {str(value).lower()})")
        return {k: "" if v is None and kinds.get(k) is str else v for k, v in data.items()}


class DataConfig(Settings):
    """Images or time series to train on and how they are split."""

    kind: Kind = Field(
        "digits",
        description="where images or time series come from (docs/data.md); none: imported files "
        "without images",
    )
    channels: int = Field(
        0,
        ge=0,
        le=65_536,
        description="of the networks' input, if kind is none; 0: those of the imported supernet, "
        "of the targets' tables, or of the space",
    )
    classes: int = Field(0, ge=0, le=1_000_000, description="of the networks, likewise")
    root: str = Field("", description="folder or file of the data; module:function for a factory")
    image_size: int = Field(
        0,
        ge=0,
        le=1024,
        description="px to which images of a folder, and masks, are cut; 0: as they are",
    )
    series_length: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="steps to which time series are cut, or padded with their last value; 0: as "
        "they are",
    )
    validation: float = Field(
        0.15, gt=0, lt=0.9, description="share of the training images that search may see"
    )
    test: float = Field(
        0.2, gt=0, lt=0.9, description="share kept for the final test if the data have no test set"
    )
    augment: Literal["none", "shift", "flip", "crop"] = Field(
        "shift",
        description="training augmentation: none, random shift, shift and mirror (images only); "
        "crop (of a streamed folder): random part, mirror and colours, as for ImageNet",
    )
    stream: bool = Field(
        False,
        description="read images of an image_folder from their files when needed, at each "
        "resolution, prepared as for ImageNet; for folders that do not fit in memory",
    )
    skip_broken: bool = Field(
        False,
        description="leave out the files of an image_folder that cannot be read, each by name",
    )
    normalise: Literal["auto", "data", "imagenet"] | tuple[Numbers, Numbers] = Field(
        "auto",
        description="mean and deviation: of the training images, or of ImageNet (for imported "
        "supernets); auto: ImageNet's where images are streamed; or [means, deviations] of each "
        "channel, of pixels from 0 to 1, as your own training had them: [[0.5, 0.5, 0.5], [0.5, "
        "0.5, 0.5]]",
    )
    seed: int = Field(0, ge=0, description="of the splits")

    @field_validator("normalise")
    @classmethod
    def _of_each_channel(cls, value: Any) -> Any:
        if isinstance(value, tuple) and (len(value[0]) != len(value[1]) or min(value[1]) <= 0):
            raise ValueError(f"{value} is not a mean and a positive deviation of each channel")
        return value

    @model_validator(mode="after")
    def _streamed_or_held(self) -> DataConfig:
        if self.root and self.kind in ("digits", "none"):
            raise ValueError(f"kind {self.kind} reads no root; name the kind of {self.root!r}")
        if (self.channels or self.classes) and self.kind != "none":
            raise ValueError(f"data of kind {self.kind} have channels and classes; leave both out")
        if self.image_size and self.kind not in ("image_folder", "mask_folder"):
            raise ValueError(f"image_size cuts images of a folder, not of {self.kind}")
        if self.series_length and self.kind != "series":
            raise ValueError(f"series_length cuts series of files, not of {self.kind}")
        if self.stream and self.kind != "image_folder":
            raise ValueError(f"stream needs kind image_folder, {self.kind} is held in memory")
        if self.skip_broken and (self.stream or self.kind != "image_folder"):
            raise ValueError("skip_broken needs an image_folder that is held, not streamed")
        if self.stream and self.image_size:
            raise ValueError("stream resizes to each resolution; leave image_size out")
        if self.stream and self.normalise == "data":
            raise ValueError("normalise: data would read every streamed image; use imagenet")
        if self.augment == "crop" and not self.stream:
            raise ValueError("augment: crop needs stream: true")
        return self
