"""Public models by name: of timm, of torchvision (`tv:`), and of tests/own_models.py (`own:`)."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.append(str(Path(__file__).parent.parent.parent / "tests"))
import own_models

INSTALL = "pip install --no-deps timm torchvision huggingface-hub"

# The architectures that the idea was tried with before it was built: the bar is of these.
_FIRST = """
resnet18 resnet50 resnet50d resnext50_32x4d regnety_002 regnetx_002 mobilenetv2_100
mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_conv_medium
mobilenetv4_hybrid_medium efficientnet_b0 efficientnet_lite0 tf_efficientnetv2_b0 mnasnet_100
fbnetc_100 ghostnet_100 ghostnetv2_100 repvgg_a0 convnext_atto vit_tiny_patch16_224
tv:shufflenet_v2_x1_0 mobileone_s0 repvit_m0_9 tv:lraspp_mobilenet_v3_large
swin_tiny_patch4_window7_224 efficientvit_b0 convnextv2_atto densenet121 mobilevit_xxs@256
fastvit_t8 levit_128s starnet_s1 tv:squeezenet1_1 shvit_s1 efficientvit_m0 edgenext_xx_small
poolformer_s12 mixer_s32_224 vgg11_bn
"""

# Others: backbones and heads of detection and segmentation, then classifiers of other kinds.
_OTHERS = """
tv:deeplabv3_mobilenet_v3_large tv:fcn_resnet50 tv:fasterrcnn_mobilenet_v3_large_320_fpn
tv:retinanet_resnet50_fpn tv:ssdlite320_mobilenet_v3_large darknet53 cspdarknet53 hgnetv2_b0
hrnet_w18_small dla34 ese_vovnet19b_dw pvt_v2_b0 res2net50_14w_8s inception_v3@128 tv:vit_b_32
deit_tiny_patch16_224
"""
FIRST, OTHERS = _FIRST.split(), _OTHERS.split()

# With windows or tables of places of a fixed input size.
FIXED = ("vit_", "swin", "mixer", "levit", "efficientvit_m", "deit", "beit", "cait", "pvt")


class Picked(nn.Module):
    """A model of several outputs as one of one: that of a key."""

    def __init__(self, model: nn.Module, key: Any) -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is picked."""
        return self.model(x)[self.key]


def missing() -> list[str]:
    """Packages that are needed and are not here."""
    return [name for name in ("timm", "torchvision") if not importlib.util.find_spec(name)]


def make(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A model with random weights, and the shape of its input: `resnet50@224` is of 224 px."""
    torch.manual_seed(0)
    name, _, size = name.partition("@")
    if name.startswith("own:"):
        return getattr(own_models, name[4:])(), own_models.SHAPE
    px = int(size) if size else 224 if any(part in name for part in FIXED) else 64
    model = _torchvision(name[3:]) if name.startswith("tv:") else _timm(name)
    return model, (3, px, px)


def _timm(name: str) -> nn.Module:
    operators()
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it could not import
        import timm
    return timm.create_model(name)


def _torchvision(name: str) -> nn.Module:
    """A model; of a detector its backbone, of a segmenter its scores, of a pyramid the finest."""
    operators()
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    given = inspect.signature(builder).parameters
    model = builder(**{n: None for n in ("weights", "weights_backbone") if n in given})
    if "segmentation" in builder.__module__:
        return Picked(model, "out")
    return Picked(model.backbone, "0") if "detection" in builder.__module__ else model


def operators() -> None:
    """Names of two operators that torchvision's wheel asks for and a CPU torch does not have."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


_KEPT: list[Any] = []  # operators go with their library
