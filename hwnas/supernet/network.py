"""The elastic network that holds every subnet of a space, and the plain networks taken out of it.

`supernet(x, arch)` runs one architecture; nothing is remembered between calls. An op runs as a fold
over its primitives: those with weights take them from a `Layer` of the same name, in a supernet a
leading slice of the largest op's, in a subnet all of them.

Elastic kernels (learned transforms of the centre crop) and leading slices of channels follow
once-for-all, arXiv 1908.09791, section 3; BatchNorm calibration follows its
`set_running_statistics`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.networks.graph import INPUTS, Graph
from hwnas.networks.placed import START, Cut, Network
from hwnas.networks.primitives import Primitive
from hwnas.networks.slots import kernel_sizes
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.supernet.forward import FORWARD

Kernel = tuple[int, ...]
MOMENTUM = 0.1  # share of a batch in a BatchNorm's running statistics


class Layer(nn.Module):
    """The weights of a primitive, its running statistics, and its kernel transforms.

    Only a depthwise convolution has transforms. In training a BatchNorm normalises by the batch;
    running statistics follow the full width only, so a subnet's must be calibrated before they are
    used.

    Args:
        largest: the primitive that uses all of it.
        kernels: sizes that are offered.
        eps: of a BatchNorm that says no other.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, largest: Primitive, kernels: Sequence[Kernel], eps: float) -> None:
        super().__init__()
        self.kind, self.eps = largest.kind, largest.args.get("eps") or eps
        self.momentum = MOMENTUM
        for role, shape in largest.weights.items():
            start = torch.ones if role in ("scale", "factor") else torch.zeros
            self.register_parameter(role, nn.Parameter(start(shape)))
        if self.kind == "batch_norm":
            self.register_buffer("running_mean", torch.zeros(largest.shape[0]))
            self.register_buffer("running_var", torch.ones(largest.shape[0]))
        self.kernels: tuple[tuple[Kernel, Kernel], ...] = ()
        self.centred = True
        if self.kind == "conv":
            self.centred = all(after for _, after in largest.args["pads"])
            shape = largest.weights["weight"]
            fan_out = math.prod(largest.args["kernel"]) * shape[0] // largest.args["groups"]
            nn.init.normal_(self.weight, 0.0, (2 / fan_out) ** 0.5)
            if largest.args["groups"] > 1:
                self.kernels = tuple(itertools.pairwise(kernels))
        elif self.kind == "linear":
            nn.init.normal_(self.weight, 0.0, 0.01)
        for larger, smaller in self.kernels:
            name = transform_name(larger, smaller)
            self.register_parameter(name, nn.Parameter(torch.eye(math.prod(smaller))))

    def values(self, p: Primitive, cuts: Sequence[Cut] = ()) -> dict[str, Tensor]:
        """The weights of a smaller primitive: leading slices (or what `cuts` says), kernels
        cropped and transformed.
        """
        axes = 2 if self.kind == "conv" else None  # its kernel is no leading part
        out = {role: self.part(role, shape[:axes], cuts) for role, shape in p.weights.items()}
        if self.kind == "conv":
            out["weight"] = self._kernel(out["weight"], p.args["kernel"])
        return out

    def part(self, name: str, shape: Sequence[int], cuts: Sequence[Cut]) -> Tensor:
        """The part of a weight or statistic that has a shape."""
        tensor: Tensor = getattr(self, name)
        if cuts:
            role = "scale" if name.startswith("running_") else name
            for cut in cuts:
                if cut.role == role:
                    pieces = [tensor.narrow(cut.axis, a, b - a) for a, b in cut.places]
                    tensor = torch.cat(pieces, cut.axis)
        return _leading(tensor, shape)

    def _kernel(self, weight: Tensor, wanted: Kernel) -> Tensor:
        """The transformed crop of a convolution's weight.

        A kernel that is padded on both sides keeps its centre, one padded before it its end (the
        present of a causal convolution).
        """
        both = self.centred
        for larger, smaller in self.kernels:
            if weight.shape[2:] == wanted:
                return weight
            if weight.shape[2:] == larger:
                weight = _crop(weight, smaller, both)
                matrix = getattr(self, transform_name(larger, smaller))
                weight = F.linear(weight.flatten(2), matrix).view(*weight.shape[:2], *smaller)
        return _crop(weight, wanted, both)

    def forward(self, x: Sequence[Tensor], p: Primitive, cuts: Sequence[Cut] = ()) -> Tensor:
        """What the primitive gives of its inputs, by its slice of the weights."""
        if self.kind != "batch_norm":
            return FORWARD[self.kind](p, x, self.values(p, cuts))
        known = self.scale, self.bias, self.running_mean, self.running_var
        n = p.shape[0]
        whole = n == len(known[0])
        if cuts:
            names = ("scale", "bias", "running_mean", "running_var")
            scale, shift, mean, var = (self.part(name, (n,), cuts) for name in names)
        else:
            scale, shift, mean, var = known if whole else (t[:n] for t in known)
        if not self.training:
            return F.batch_norm(x[0], mean, var, scale, shift, False, 0.0, self.eps)
        followed = (mean, var) if whole else (None, None)
        return F.batch_norm(
            x[0], followed[0], followed[1], scale, shift, True, self.momentum, self.eps
        )


def _leading(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The leading slice of some axes; the tensor itself where that is all of it."""
    for axis, (n, most) in enumerate(zip(shape, tensor.shape, strict=False)):
        if n < most:
            tensor = tensor.narrow(axis, 0, n)
    return tensor


def _crop(weight: Tensor, kernel: Kernel, centre: bool) -> Tensor:
    """The centre of a kernel, or its end."""
    for axis, n in enumerate(kernel, start=2):
        over = weight.shape[axis] - n
        if over:
            weight = weight.narrow(axis, over // 2 if centre else over, n)
    return weight


def transform_name(larger: Kernel, smaller: Kernel) -> str:
    """Of the matrix that makes a smaller kernel of the crop of a larger one."""
    return f"transform_{larger[0]}to{smaller[0]}"


def run(graph: Graph, layers: Any, inputs: Sequence[Tensor], cuts: Sequence[Cut] = ()) -> Tensor:
    """The output of an op: its primitives, one after another.

    Args:
        graph: of the op.
        layers: a Layer for each primitive that has weights, by name.
        inputs: what it reads, batch first.
        cuts: what the op takes of the weights where that is no leading part.
    """
    tensors = dict(zip(INPUTS, inputs, strict=False))
    for p, unread in zip(graph.primitives, graph.unread, strict=True):
        given = [tensors[name] for name in p.inputs]
        for name in unread:
            del tensors[name]  # so that its memory is used again
        if p.name in layers:
            tensors[p.name] = layers[p.name](given, p, cuts and _of(cuts, p))
        else:
            tensors[p.name] = FORWARD[p.kind](p, given, {})
    return tensors[p.name]


def _of(cuts: Sequence[Cut], p: Primitive) -> list[Cut]:
    return [cut for cut in cuts if cut.primitive == p.name]


def _layers(graph: Graph, kernels: dict[str, list[Kernel]], eps: float) -> nn.ModuleDict:
    """A Layer for each primitive of an op that has weights."""
    return nn.ModuleDict(
        {p.name: Layer(p, kernels.get(p.name, ()), eps) for p in graph.primitives if p.weights}
    )


class _Net(nn.Module):
    """A network whose ops find their layers by slot."""

    slots: nn.ModuleDict

    def through(self, ops: Network, x: Tensor) -> Tensor:
        """What the ops make of a batch."""
        last = {name: i for i, placed in enumerate(ops) for name in placed.reads}
        outputs = {START: x}
        for i, (slot, op, reads, cuts) in enumerate(ops):
            given = [outputs[name] for name in reads]
            for name in reads:
                if last[name] == i:
                    outputs.pop(name, None)  # nobody reads it again
            outputs[slot] = run(op.graph, self.slots[module_name(slot)], given, cuts)
        return outputs[ops[-1].slot]


class Supernet(_Net):
    """Shared weights of every architecture of a space.

    Args:
        space: its largest architecture sets the size of every weight.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        offered: dict[str, dict[str, list[Kernel]]] = {}
        for (slot, name), kernels in kernel_sizes(space).items():
            offered.setdefault(slot, {})[name] = kernels
        self.slots = nn.ModuleDict(
            {
                module_name(slot): _layers(op.graph, offered.get(slot, {}), space.bn_eps)
                for slot, op, *_ in space.largest.ops
            }
        )

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Outputs (n, n_classes) for a batch (n, *space.input_shape(arch.resolution)).

        Raises:
            ValueError: the batch has another shape.
        """
        wanted = self.space.input_shape(arch.resolution)
        if tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"inputs are {tuple(x.shape[1:])}, architecture {arch.id} takes {wanted}"
            )
        return self.through(arch.ops, x)


class Subnet(_Net):
    """One architecture as a plain network, fresh; `extract` fills it from a supernet."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self._ops = tuple(placed._replace(cuts=()) for placed in arch.ops)  # it has its own weights
        self.slots = nn.ModuleDict(
            {
                module_name(slot): _layers(op.graph, {}, arch.space.bn_eps)
                for slot, op, *_ in arch.ops
            }
        )
        for layer in self.modules():
            if isinstance(layer, Layer) and layer.kind == "linear":
                nn.init.normal_(layer.weight, 0.0, (2 / len(layer.weight)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_classes) for a batch (n, *space.input_shape(arch.resolution))."""
        return self.through(self._ops, x)


def module_name(slot: str) -> str:
    """Of the module that holds a slot's layers: a module's name may hold no dot."""
    return slot.replace(".", "_")


Net = TypeVar("Net", bound=nn.Module)


def channels_last(net: Net) -> Net:
    """The network itself, its weights laid out channels last: convolutions on CPUs run faster."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def layers_of(net: Supernet | Subnet, slot: str) -> Any:
    """The layers of an op by the names of their primitives."""
    return net.slots[module_name(slot)]


@torch.no_grad()
def extract(supernet: Supernet, arch: Architecture) -> Subnet:
    """The plain network of an architecture with copies of its slice of the weights.

    BatchNorm statistics are the leading slices too: `calibrate` them before reading an accuracy.
    """
    subnet = Subnet(arch)
    for slot, op, _, cuts in arch.ops:
        shared, plain = layers_of(supernet, slot), layers_of(subnet, slot)
        for p in op.graph.primitives:
            if not p.weights:
                continue
            mine = _of(cuts, p)
            for role, value in shared[p.name].values(p, mine).items():
                getattr(plain[p.name], role).copy_(value)
            for name, buffer in plain[p.name].named_buffers():
                buffer.copy_(shared[p.name].part(name, buffer.shape, mine))
    return subnet.eval()


@torch.no_grad()
def calibrate(subnet: Subnet, batches: Iterable[Tensor]) -> None:
    """Set the BatchNorm statistics of a subnet: the mean over batches of mean and variance.

    The variance is the biased one. Batches count by their size; the spread between batches is
    ignored, as in once-for-all's `set_running_statistics`
    (ofa/imagenet_classification/elastic_nn/utils.py).

    Args:
        subnet: changed in place.
        batches: inputs (n, *shape), prepared like those of an inference.
    """
    norms = [m for m in subnet.modules() if isinstance(m, Layer) and m.kind == "batch_norm"]
    means = [torch.zeros_like(m.running_mean) for m in norms]
    variances = [torch.zeros_like(m.running_var) for m in norms]

    def collect(index: int, _module: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
        images, values = len(inputs[0][0]), inputs[0][0].numel() // len(means[index])
        means[index] += images * norms[index].running_mean
        variances[index] += images * (values - 1) / values * norms[index].running_var

    # With a momentum of 1 the running statistics are those of the batch, the variance unbiased.
    # Torch computes them anyway to normalise; `Tensor.var` of the same took longer than the rest.
    for norm in norms:
        norm.momentum = 1.0
    hooks = [m.register_forward_hook(functools.partial(collect, i)) for i, m in enumerate(norms)]
    subnet.train()  # normalise by the batch
    n = 0
    for batch in batches:
        subnet(batch)
        n += len(batch)
    for hook in hooks:
        hook.remove()
    for module, mean, variance in zip(norms, means, variances, strict=True):
        module.momentum = MOMENTUM
        module.running_mean.copy_(mean / n)
        module.running_var.copy_(variance / n)
    subnet.eval()


@torch.no_grad()
def folded_weights(subnet: Subnet) -> dict[str, np.ndarray]:
    """Weights of the exported model by tensor name, each BatchNorm folded where it can be.

    Returns:
        float32 arrays with the names and shapes of `hwnas.networks.onnx_graph.weights_of`.
    """
    out: dict[str, Tensor] = {}
    for slot, op, *_ in subnet.arch.ops:
        layers = layers_of(subnet, slot)
        kept = {step.name: step for step in op.exported}
        for p in op.graph.primitives:
            if p.weights:
                given = _exported(p, layers[p.name], kept, out, slot)
                out |= {f"{slot}/{name}": value for name, value in given.items()}
    return {name: value.float().numpy() for name, value in out.items()}


def _exported(
    p: Primitive, layer: Layer, kept: dict[str, Primitive], out: dict[str, Tensor], slot: str
) -> dict[str, Tensor]:
    """The exported weights of a primitive, float64, by `<name>/<role>`; a BatchNorm that is folded
    changes those of the layer before it, which are in `out`.
    """
    if p.kind == "group_norm":
        return _scaled(p, layer.scale.double(), layer.bias.double())
    if p.kind == "batch_norm":
        factor = layer.scale.double() / torch.sqrt(layer.running_var.double() + layer.eps)
        offset = layer.bias.double() - layer.running_mean.double() * factor
        if p.name in kept:
            return _scaled(p, factor, offset)
        source = f"{p.inputs[0]}/"
        weight, bias = out[f"{slot}/{source}weight"], out.get(f"{slot}/{source}bias", 0.0)
        spread = (-1, *(1,) * (weight.ndim - 1))
        return {
            f"{source}weight": weight * factor.view(spread),
            f"{source}bias": offset + bias * factor,
        }
    weights = {role: value.double() for role, value in layer.values(p).items()}
    if p.kind == "linear" and len(p.shape) > 1:
        product = f"{p.name}_product" if "bias" in weights else p.name
        found = {f"{product}/weight": weights["weight"].T}
        return {**found, **({f"{p.name}/bias": weights["bias"]} if "bias" in weights else {})}
    return {f"{p.name}/{role}": value for role, value in weights.items()}


def _scaled(p: Primitive, factor: Tensor, offset: Tensor) -> dict[str, Tensor]:
    """The weights of a norm whose channels are multiplied, then added to."""
    spread = (-1, *(1,) * (len(p.shape) - 1))
    scaled, shifted = f"{p.name}_scaled/factor", f"{p.name}/bias"
    return {scaled: factor.view(spread), shifted: offset.view(spread)}
