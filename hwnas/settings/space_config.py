"""Settings of the space: one that has a name, or one made of a torch model of the user's own."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from hwnas.settings.data_config import Settings


class SpaceConfig(Settings):
    """The search space: one that has a name, or one made of a torch model of the user's own."""

    name: str = Field("tiny", description="a space of `hwnas space list`, or module:NAME")
    resolutions: tuple[int, ...] = Field(
        (),
        description="px, or steps of time series, to train, profile and search; empty: those the "
        "space profiles, of a model of yours the size of its input",
    )
    model: str = Field(
        "",
        description="a torch model of yours in place of a named space: module:NAME of a function "
        "without arguments that returns it, or timm:NAME, trained on as finetune says; empty: none",
    )
    weights: str = Field(
        "",
        description="its state dict (safetensors or torch.save), from where hwnas.yaml lies; "
        "empty: the weights that the function gives it",
    )
    input: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (),
        max_length=3,
        description="shape of one input of the model: [channels, px, px], or [channels, steps]",
    )
    widths: int = Field(
        4, ge=1, le=64, description="widths offered of each channel group, evenly up to all of it"
    )
    round_to: int = Field(8, ge=1, le=1024, description="widths are multiples of it")
    keep: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="names of weights whose channels all stay, as patterns: head.*"
    )
    skip_blocks: bool = Field(True, description="whether residual branches may be left out")

    @model_validator(mode="after")
    def _named_or_of_a_model(self) -> SpaceConfig:
        if not self.model:
            for name, field in type(self).model_fields.items():
                if name not in ("name", "resolutions") and getattr(self, name) != field.default:
                    raise ValueError(f"{name} is of a model of yours; name that as space.model")
            return self
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[\w.-]+", self.model):
            raise ValueError(
                f"model {self.model!r} names no function; give module:NAME of one that returns "
                "your model, or timm:NAME"
            )
        if self.name != "tiny":
            raise ValueError(
                f"it names the space {self.name} and the model {self.model}; leave one of them out"
            )
        if len(self.input) < 2 or self.input[-1] != self.input[1]:
            raise ValueError(
                f"input {list(self.input)} is not the shape of one input; give [channels, "
                "px, px], for example [3, 224, 224], or [channels, steps]"
            )
        return self
