"""Random networks of models: ONNX Runtime against torch, and the largest against the model."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime
import torch

from hwnas.measuring.parity import difference
from hwnas.networks import onnx_graph
from hwnas.networks.slots import distinct_ops
from hwnas.supernet.network import extract, folded_weights
from own_model.analysis import bar
from own_model.spaces import own

MODELS = ("resnet18", "mobilenetv3_small_100", "efficientnet_lite0", "regnety_002", "ghostnet_100")
PX, NETWORKS, LIMIT, SAME = 96, 50, 1e-4, 1e-5


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part."""
    n = 3 if quick else NETWORKS
    found = [row(name, n) for name in models or (MODELS[:1] if quick else MODELS)]
    worst = max(row["worst_against_onnx"] for row in found)
    same = max(row["largest_against_model"] for row in found)
    return {
        "setting": f"{n} random networks of each model at {PX} px, fp32, one thread",
        "n": n * len(found),
        "spread": None,
        "models": found,
        "bars": [
            bar("networks_in_onnxruntime_against_torch", worst, "<=", LIMIT),
            bar("largest_network_against_the_model", same, "<=", SAME),
        ],
    }


@torch.no_grad()
def row(name: str, n: int) -> dict[str, Any]:
    """Largest relative differences of n random networks of a model, and of the largest one."""
    begun = time.monotonic()
    given, rng = own(name, PX), np.random.default_rng(0)
    x = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(1))
    largest = given.supernet(x, given.space.largest)
    worst = 0.0
    for genome in given.space.sample(n, rng):
        arch = given.space.architectures(genome[None])[0]
        subnet = extract(given.supernet, arch)
        model = onnx_graph.build(arch.ops, folded_weights(subnet), len(x))
        session = onnxruntime.InferenceSession(
            onnx_graph.to_bytes(model), providers=["CPUExecutionProvider"]
        )
        got = session.run(None, {onnx_graph.INPUT: x.numpy()})[0]
        worst = max(worst, difference(subnet(x).numpy(), got))
    found = {
        "model": name,
        "networks": n,
        "groups": len(given.space.family.groups),
        "keys": len(distinct_ops(given.space)),
        "largest_against_model": difference(given.model(x).numpy(), largest.numpy()),
        "worst_against_onnx": worst,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(*(f"{key} {value}" for key, value in found.items()), sep=", ", flush=True)
    return found
