"""Public models by name: timm's, and torchvision's behind `tv:`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

NEEDED = "pip install --no-deps timm torchvision huggingface-hub"
_libraries: list[Any] = []  # torch forgets the operators of a library that nobody holds


def make(name: str, **settings: Any) -> nn.Module:
    """A public model without weights.

    Raises:
        SystemExit: timm or torchvision is not installed.
    """
    _operators()
    try:
        import timm
        import torchvision
    except ImportError as error:
        raise SystemExit(f"{error}; {NEEDED}") from None
    if not name.startswith("tv:"):
        model: nn.Module = timm.create_model(name, pretrained=False, **settings)
        return model
    build = torchvision.models.get_model_builder(name[3:])
    if "weights_backbone" in inspect.signature(build).parameters:
        settings["weights_backbone"] = None
    found: nn.Module = build(weights=None, **settings)
    return found


def _operators() -> None:
    """Declare the operators that torchvision's import asks for: its wheel is built for CUDA."""
    if _libraries or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
