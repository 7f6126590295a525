"""once-for-all's own networks, from its package, as an oracle.

The package imports names of torchvision when it is loaded and uses none of them here, so empty
stand-ins take their place while it loads.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.networks import spaces
from hwnas.networks.space import Architecture
from hwnas.ofa.dictionaries import to_dictionary

CLASSES = {
    "ofa-mbv3-w10": ("OFAMobileNetV3", {"width_mult": 1.0}),
    "ofa-mbv3-w12": ("OFAMobileNetV3", {"width_mult": 1.2}),
    "ofa-proxyless-w10": (
        "OFAProxylessNASNets",
        {"width_mult": 1.0, "base_stage_width": "proxyless"},
    ),
    "ofa-proxyless-w13": (
        "OFAProxylessNASNets",
        {"width_mult": 1.3, "base_stage_width": "proxyless"},
    ),
    "ofa-resnet50d": ("OFAResNets", {"width_mult_list": [0.65, 0.8, 1.0]}),
}
OPTIONS = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
RESNET_OPTIONS = {"expand_ratio_list": [0.2, 0.25, 0.35], "depth_list": [0, 1, 2]}


EFFICIENCY = {
    "OFAMobileNetV3": "Mbv3FLOPsModel",
    "OFAProxylessNASNets": "ProxylessNASFLOPsModel",
    "OFAResNets": "ResNet50FLOPsModel",
}


def _torchvision() -> dict[str, types.ModuleType]:
    names = ("torchvision", "torchvision.transforms", "torchvision.datasets")
    found = {name: types.ModuleType(name) for name in names}
    functional = types.ModuleType("torchvision.transforms.functional")
    found["torchvision"].transforms = found["torchvision.transforms"]
    found["torchvision"].datasets = found["torchvision.datasets"]
    found["torchvision.transforms"].functional = functional
    found["torchvision.transforms"].RandomResizedCrop = type("RandomResizedCrop", (), {})
    found["torchvision.datasets"].ImageFolder = type("ImageFolder", (), {})
    return {**found, functional.__name__: functional}


def package() -> Any:
    """Their networks, utils and efficiency modules; tests without the package are skipped."""
    standing_in = {n: m for n, m in _torchvision().items() if n not in sys.modules}
    sys.modules.update(standing_in)
    try:
        import ofa.imagenet_classification.elastic_nn.networks as networks
        import ofa.imagenet_classification.elastic_nn.utils as utils
        import ofa.nas.efficiency_predictor as efficiency
    except ModuleNotFoundError as error:
        if os.environ.get("CI") == "true" or error.name != "ofa":
            raise
        pytest.skip("the package ofa is missing: pip install ofa")
    finally:
        for name in standing_in:
            del sys.modules[name]
    return types.SimpleNamespace(networks=networks, utils=utils, efficiency=efficiency)


def supernet(name: str, seed: int = 0) -> torch.nn.Module:
    """Their supernet of a space in evaluation mode, every weight and statistic random.

    Squared sums stay of order one, so that outputs do, and kernel transforms are no identity.
    """
    kind, arguments = CLASSES[name]
    options = RESNET_OPTIONS if kind == "OFAResNets" else OPTIONS
    torch.manual_seed(seed)
    net = getattr(package().networks, kind)(**arguments, **options)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith("_matrix"):
                value.add_(0.1 * torch.randn_like(value) / value.shape[0] ** 0.5)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif key.endswith(("bias", "running_mean")):
                value.normal_(0.0, 0.1)
            elif value.ndim == 1 and value.is_floating_point():
                value.uniform_(0.5, 1.5)
            elif key.endswith("linear.weight") and value.ndim == 2:
                value.normal_(0.0, 0.3)  # or the bias would be all there is to compare
    return net.eval()


def activate(net: torch.nn.Module, arch: Architecture) -> None:
    """Make an architecture their active subnet."""
    given = to_dictionary(arch)
    net.set_active_subnet(**{key: given[key] for key in given if key != "image_size"})


def macs(net: torch.nn.Module, arch: Architecture) -> int:
    """Their count of MACs of an architecture, which becomes the active subnet."""
    counter = getattr(package().efficiency, EFFICIENCY[type(net).__name__])(net)
    return round(1e6 * counter.get_efficiency(to_dictionary(arch)))


def parameters(net: torch.nn.Module) -> int:
    """Parameters of the static network of their active subnet."""
    return sum(p.numel() for p in net.get_active_subnet(preserve_weight=False).parameters())


def save(net: torch.nn.Module, path: Path, style: str = "released", legacy: bool = False) -> None:
    """Write their supernet as a file: `current` names or those of the `released` files."""
    named = net.state_dict()
    if style == "released":
        named = {_released(key): value for key, value in named.items()}
    content = {"state_dict": named, "epoch": 119, "best_acc": 76.1}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def _released(key: str) -> str:
    parts = key.split(".")
    if parts[0] == "blocks" and parts[2] == "conv":
        parts[2] = "mobile_inverted_conv"
    return ".".join(parts)


def images(arch: Architecture, n: int = 2, seed: int = 1) -> torch.Tensor:
    """(n, 3, px, px) random images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, arch.resolution, arch.resolution, generator=generator)


def corners(name: str) -> list[Architecture]:
    """The max and min network of a space at its smallest resolution."""
    space = spaces.load(name)
    return [space.architecture([128, *a.values[1:]]) for a in (space.largest, space.smallest)]
