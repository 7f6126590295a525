"""A network as it is exported, in torch: BatchNorm folded, weights by tensor name. It can be
trained on with its numbers rounded as int8 rounds them.

The gradient passes a rounding as if it were none, but outside of the range. Sources: Jacob et al.
2018, arXiv 1712.05877; Krishnamoorthi 2018, arXiv 1806.08342, section 3; the labels are the
answers of the network before it was rounded, as in Hinton et al. 2015, arXiv 1503.02531.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.networks.graph import INPUTS
from hwnas.networks.onnx_graph import INPUT, OUTPUT
from hwnas.networks.placed import START
from hwnas.networks.ranges import Ranges
from hwnas.networks.space import Architecture
from hwnas.supernet.forward import FORWARD, Forward
from profilers import qdq

EXPORTED: dict[str, Forward] = {  # kinds of the exported form only
    "product": lambda p, x, w: x[0] @ w["weight"],
    "level": lambda p, x, w: F.layer_norm(x[0], x[0].shape[-1:], eps=p.args["eps"]),
}
LEARNING_RATE = 1e-3  # of Adam, falling to 0 along a cosine


class Rounding:
    """The numbers of a network as int8 has them, by the rules of `profilers.qdq`."""

    def __init__(self, model: bytes, recipe: qdq.Recipe, ranges: Ranges) -> None:
        """Where numbers are rounded, and to what.

        Args:
            model: the network's ONNX file in fp32.
            recipe: how it is written in int8.
            ranges: of its activations.
        """
        found = qdq.placed(model, recipe.least_channels)
        self._recipe, self._ends = recipe, (-128, 127) if recipe.signed else (0, 255)
        self._known = {name: qdq.scale_of(*ranges[name], recipe) for name in found.ranged}
        self._scales = {name: self._known[found.moved.get(name, name)] for name in found.pairs}
        self._nodes = [
            node
            for node in found.nodes
            if node.outputs[0] in found.integer and node.outputs[0] not in found.moved
        ]

    def activation(self, name: str, x: Tensor) -> Tensor:
        """A tensor of the network in steps of its range; itself where it is not rounded."""
        if name not in self._known:
            return x
        scale, zero = self._known[name]
        return torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), *self._ends)

    def weights(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights by tensor name, in steps where they are rounded."""
        out = dict(values)
        for node in self._nodes:
            for place, name in enumerate(node.inputs):
                if name not in values or (node.op in qdq.WEIGHTED and place != 1):
                    continue  # the steps of a bias are too small to count
                weighted = node.op in qdq.WEIGHTED
                out[name] = self._weight(node, values) if weighted else self._fixed(values[name])
        return out

    def _weight(self, node: Any, values: Mapping[str, Tensor]) -> Tensor:
        weight, limit = values[node.inputs[1]], self._recipe.weight_limit
        axis = weight.ndim - 1 if node.op == "MatMul" else 0
        bias = values[node.inputs[2]].detach().cpu().numpy() if len(node.inputs) > 2 else None
        given = float(self._scales[node.inputs[0]].scale)
        plain = weight.detach().cpu().numpy()
        scales = qdq.weight_scales(plain, axis, limit, np.zeros(0) if bias is None else bias, given)
        told = torch.from_numpy(scales).to(weight.device)
        zeros = torch.zeros_like(told, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, told, zeros, axis, -limit, limit)

    def _fixed(self, value: Tensor) -> Tensor:
        """A constant in the steps of activations."""
        scale, zero = qdq.scale_of(float(value.min()), float(value.max()), self._recipe)
        return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero), *self._ends)


class Folded(nn.Module):
    """One architecture with exported weights."""

    def __init__(
        self, arch: Architecture, weights: Mapping[str, np.ndarray], rounding: Rounding | None
    ) -> None:
        """Copies of the weights.

        Args:
            arch: of the network.
            weights: of `folded_weights`.
            rounding: of its numbers; None: they are fp32.
        """
        super().__init__()
        self.arch, self._names, self._rounding = arch, list(weights), rounding
        self._ops = tuple(placed._replace(cuts=()) for placed in arch.ops)
        copies = [torch.tensor(value, dtype=torch.float32) for value in weights.values()]
        self.values = nn.ParameterList([nn.Parameter(each) for each in copies])

    def exported(self) -> dict[str, np.ndarray]:
        """The weights as they are now, by tensor name."""
        now = (value.detach().cpu().numpy() for value in self.values)
        return dict(zip(self._names, now, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_classes) for a batch (n, *space.input_shape(arch.resolution))."""
        values, rounding = dict(zip(self._names, self.values, strict=True)), self._rounding
        told = rounding.activation if rounding else lambda name, value: value
        values = rounding.weights(values) if rounding else values
        outputs = {START: told(INPUT, x)}
        for slot, op, reads, _ in self._ops:
            tensors = dict(zip(INPUTS, (outputs[name] for name in reads), strict=False))
            for p in op.exported:
                own = {role: values[f"{slot}/{p.name}/{role}"] for role in p.weights}
                forward = EXPORTED.get(p.kind) or FORWARD[p.kind]
                made = forward(p, [tensors[name] for name in p.inputs], own)
                is_last = slot == self._ops[-1].slot and p is op.exported[-1]
                tensors[p.name] = told(OUTPUT if is_last else f"{slot}/{p.name}", made)
            outputs[slot] = tensors[p.name]
        return outputs[slot]


def train_rounded(
    net: Folded, teacher: Callable[[Tensor], Tensor], batches: Iterable[Tensor], steps: int
) -> None:
    """Train a network, in place, so that it gives, rounded, what another one gives.

    Args:
        net: with its rounding.
        teacher: logits of a batch.
        batches: at least so many as steps, inputs (n, *shape).
        steps: how many there are.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    for step, x in zip(range(steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.no_grad():
            wanted = teacher(x).softmax(1)
        loss = F.cross_entropy(net(x), wanted)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
