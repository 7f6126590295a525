"""The elastic network that holds every subnet of a space, and the plain networks taken out of it.

`supernet(images, arch)` runs one architecture; nothing is remembered between calls. Every op kind
is written once, over a function that applies a named convolution: in the supernet that takes a
leading slice of shared weights, in a subnet it is a plain module.

Elastic kernels (learned transforms of the centre crop) and leading slices of channels follow
once-for-all, arXiv 1908.09791, section 3; BatchNorm calibration follows its
`set_running_statistics`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.networks.space import Architecture, SearchSpace
from profilers import counts
from profilers.schema import OpSpec

# (name of a convolution of the op, input) -> input convolved by it and normalised
Apply = Callable[[str, Tensor], Tensor]


def _activate(act: str, x: Tensor) -> Tensor:
    return ACTIVATE[act](x)


ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "h_swish": F.hardswish,
}


def _conv(apply: Apply, spec: OpSpec, x: Tensor) -> Tensor:
    y = _activate(spec.act, apply("conv", x))
    return x + y if spec.residual else y


def _mbconv(apply: Apply, spec: OpSpec, x: Tensor) -> Tensor:
    y = x
    if spec.mid_channels != spec.in_channels:
        y = _activate(spec.act, apply("expand", y))
    y = _activate(spec.act, apply("depthwise", y))
    if spec.se_channels:
        gate = F.relu(apply("se_reduce", y.mean((2, 3), keepdim=True)))
        y = y * F.hardsigmoid(apply("se_expand", gate))
    y = apply("project", y)
    return x + y if spec.residual else y


def _bottleneck(apply: Apply, spec: OpSpec, x: Tensor) -> Tensor:
    y = _activate(spec.act, apply("reduce", x))
    y = _activate(spec.act, apply("spatial", y))
    y = apply("project", y)
    if not spec.residual:
        if spec.stride > 1:
            x = F.avg_pool2d(x, spec.stride, ceil_mode=True)
        x = apply("shortcut", x)
    return _activate(spec.act, x + y)


FORWARD: dict[str, Callable[[Apply, OpSpec, Tensor], Tensor]] = {
    "conv": _conv,
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "max_pool": lambda apply, spec, x: F.max_pool2d(x, 3, 2, 1),
    "pool": lambda apply, spec, x: x.mean((2, 3), keepdim=True),
    "mix": _conv,
    "linear": lambda apply, spec, x: apply("linear", x).flatten(1),
}


class ElasticConv(nn.Module):
    """The largest weights of a convolution, its BatchNorm or bias, and its kernel transforms.

    Only a depthwise convolution has transforms. Linear layers are 1x1 convolutions here. In
    training a BatchNorm normalises by the batch; running statistics follow the full width only, so
    a subnet's must be calibrated before they are used.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, conv: counts.Conv, kernel_sizes: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.eps, self.norm = eps, conv.norm
        shape = (conv.out_channels, conv.in_channels // conv.groups, *[conv.kernel_size] * 2)
        self.weight = nn.Parameter(torch.empty(shape))
        if conv.norm:
            self.bias = nn.Parameter(torch.zeros(conv.out_channels))
        if conv.norm == "bn":
            self.scale = nn.Parameter(torch.ones(conv.out_channels))
            self.register_buffer("running_mean", torch.zeros(conv.out_channels))
            self.register_buffer("running_var", torch.ones(conv.out_channels))
        sizes = sorted({k for k in kernel_sizes if k <= conv.kernel_size}, reverse=True)
        self.kernels = tuple(itertools.pairwise(sizes)) if conv.groups > 1 else ()
        for larger, smaller in self.kernels:
            name = _transform_name(larger, smaller)
            self.register_parameter(name, nn.Parameter(torch.eye(smaller**2)))
        fan_out = conv.out_channels * conv.kernel_size**2 // conv.groups
        nn.init.normal_(self.weight, 0.0, 0.01 if conv.name == "linear" else (2 / fan_out) ** 0.5)

    def kernel(self, conv: counts.Conv) -> Tensor:
        """Weight of a smaller convolution: leading channels, and the transformed centre crop."""
        weight = self.weight[: conv.out_channels, : conv.in_channels // conv.groups]
        for larger, smaller in self.kernels:
            if conv.kernel_size >= larger:
                break
            crop = (larger - smaller) // 2
            centre = weight[..., crop : crop + smaller, crop : crop + smaller]
            matrix = getattr(self, _transform_name(larger, smaller))
            weight = F.linear(centre.flatten(2), matrix).view(*centre.shape)
        return weight

    def forward(self, x: Tensor, conv: counts.Conv, stride: int) -> Tensor:
        """Convolve x by the slice that conv describes, then normalise by the slice of BatchNorm."""
        bias = self.bias[: conv.out_channels] if self.norm == "bias" else None
        y = F.conv2d(x, self.kernel(conv), bias, stride, conv.kernel_size // 2, 1, conv.groups)
        if self.norm != "bn":
            return y
        n = conv.out_channels
        scale, shift = self.scale[:n], self.bias[:n]
        if not self.training:
            mean, var = self.running_mean[:n], self.running_var[:n]
            return F.batch_norm(y, mean, var, scale, shift, False, 0.0, self.eps)
        if n < len(self.scale):
            return F.batch_norm(y, None, None, scale, shift, True, 0.1, self.eps)
        return F.batch_norm(
            y, self.running_mean, self.running_var, scale, shift, True, 0.1, self.eps
        )


def _transform_name(larger: int, smaller: int) -> str:
    return f"transform_{larger}to{smaller}"


def _strides(spec: OpSpec) -> dict[str, int]:
    """The stride of each convolution of an op: the spatial one has the op's."""
    return {
        conv.name: spec.stride if conv.kernel_size > 1 or conv.groups > 1 else 1
        for conv in counts.convolutions(spec)
    }


class Supernet(nn.Module):
    """Shared weights of every architecture of a space.

    Args:
        space: its largest architecture sets the size of every weight.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        kernel_sizes = {b.slot: space.choices[b.kernel].options for b in space.blocks}
        self.slots = nn.ModuleDict()
        for slot, spec in space.largest.ops:
            sizes = kernel_sizes.get(slot, ())
            layers = {
                conv.name: ElasticConv(conv, sizes, space.bn_eps)
                for conv in counts.convolutions(spec)
            }
            self.slots[_module_name(slot)] = nn.ModuleDict(layers)

    def forward(self, images: Tensor, arch: Architecture) -> Tensor:
        """Logits (n, n_classes) of images (n, in_channels, px, px).

        Raises:
            ValueError: px is not the architecture's resolution.
        """
        if images.shape[-1] != arch.resolution or images.shape[-2] != arch.resolution:
            given = tuple(images.shape[-2:])
            raise ValueError(
                f"images are {given} px, architecture {arch.id} takes {arch.resolution}"
            )
        x = images
        for slot, spec in arch.ops:
            x = FORWARD[spec.kind](self._applied(slot, spec), spec, x)
        return x

    def _applied(self, slot: str, spec: OpSpec) -> Apply:
        layers = layers_of(self, slot)
        convs = {conv.name: conv for conv in counts.convolutions(spec)}
        strides = _strides(spec)
        return lambda name, x: layers[name](x, convs[name], strides[name])


class PlainOp(nn.Module):
    """One op as plain convolutions and BatchNorms."""

    def __init__(self, spec: OpSpec, eps: float) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict()
        strides = _strides(spec)
        for c in counts.convolutions(spec):
            conv = nn.Conv2d(
                c.in_channels,
                c.out_channels,
                c.kernel_size,
                strides[c.name],
                c.kernel_size // 2,
                groups=c.groups,
                bias=c.norm == "bias",
            )
            norm = nn.BatchNorm2d(c.out_channels, eps) if c.norm == "bn" else nn.Identity()
            self.layers[c.name] = nn.Sequential(conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the op, channels first."""
        return FORWARD[self.spec.kind](lambda name, y: self.layers[name](y), self.spec, x)


class Subnet(nn.Module):
    """One architecture as a plain network, fresh; `extract` fills it from a supernet."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.slots = nn.ModuleDict(
            {_module_name(slot): PlainOp(spec, arch.space.bn_eps) for slot, spec in arch.ops}
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] ** 2 // module.groups
                nn.init.normal_(module.weight, 0.0, (2 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, in_channels, px, px)."""
        x = images
        for op in self.slots.values():
            x = op(x)
        return x


def _module_name(slot: str) -> str:
    return slot.replace(".", "_")  # a module's name may hold no dot


Network = TypeVar("Network", bound=nn.Module)


def channels_last(net: Network) -> Network:
    """The network itself, its weights laid out channels last: convolutions on CPUs run faster."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def layers_of(net: Supernet | Subnet, slot: str) -> Any:
    """The convolutions of an op by name; of a subnet, each a (convolution, norm) sequence."""
    module = net.slots[_module_name(slot)]
    return module.layers if isinstance(module, PlainOp) else module


@torch.no_grad()
def extract(supernet: Supernet, arch: Architecture) -> Subnet:
    """The plain network of an architecture with copies of its slice of the weights.

    BatchNorm statistics are the leading slices too: `calibrate` them before reading an accuracy.
    """
    subnet = Subnet(arch)
    for slot, spec in arch.ops:
        shared, plain = layers_of(supernet, slot), layers_of(subnet, slot)
        for c in counts.convolutions(spec):
            source, (conv, norm) = shared[c.name], plain[c.name]
            conv.weight.copy_(source.kernel(c))
            if c.norm == "bias":
                conv.bias.copy_(source.bias[: c.out_channels])
            if c.norm == "bn":
                norm.weight.copy_(source.scale[: c.out_channels])
                norm.bias.copy_(source.bias[: c.out_channels])
                norm.running_mean.copy_(source.running_mean[: c.out_channels])
                norm.running_var.copy_(source.running_var[: c.out_channels])
    return subnet.eval()


@torch.no_grad()
def calibrate(subnet: Subnet, batches: Iterable[Tensor]) -> None:
    """Set the BatchNorm statistics of a subnet: the mean over batches of mean and variance.

    The variance is the biased one. Batches count by their size; the spread between batches is
    ignored, as in once-for-all's `set_running_statistics`
    (ofa/imagenet_classification/elastic_nn/utils.py).

    Args:
        subnet: changed in place.
        batches: images (n, in_channels, px, px), prepared like those of an inference.
    """
    norms = [m for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)]
    means = [torch.zeros(m.num_features, device=m.weight.device) for m in norms]
    variances = [torch.zeros(m.num_features, device=m.weight.device) for m in norms]

    def collect(index: int, module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        x = inputs[0].detach()
        means[index] += len(x) * x.mean((0, 2, 3))
        variances[index] += len(x) * x.var((0, 2, 3), correction=0)

    hooks = [m.register_forward_hook(functools.partial(collect, i)) for i, m in enumerate(norms)]
    subnet.train()  # normalise by the batch
    images = 0
    for batch in batches:
        subnet(batch)
        images += len(batch)
    for hook in hooks:
        hook.remove()
    for module, mean, variance in zip(norms, means, variances, strict=True):
        module.load_state_dict(
            {"running_mean": mean / images, "running_var": variance / images}, strict=False
        )
    subnet.eval()


@torch.no_grad()
def folded_weights(subnet: Subnet) -> dict[str, np.ndarray]:
    """Weights of the exported model by tensor name, each BatchNorm folded into weight and bias.

    Returns:
        float32 arrays with the names and shapes of `hwnas.networks.onnx_graph.weights_of`.
    """
    out = {}
    for slot, spec in subnet.arch.ops:
        for c in counts.convolutions(spec):
            conv, norm = layers_of(subnet, slot)[c.name]
            weight, bias = conv.weight.double(), conv.bias
            if c.norm == "bn":
                factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
                weight = weight * factor[:, None, None, None]
                bias = norm.bias.double() - norm.running_mean.double() * factor
            if spec.kind == "linear":
                weight = weight.flatten(1)
            name = f"{slot}/{c.name}"
            out[f"{name}/weight"] = weight.float().numpy()
            if bias is not None:
                out[f"{name}/bias"] = bias.float().numpy()
    return out
