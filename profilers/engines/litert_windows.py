"""Convolutions, pools and what else goes over places, as LiteRT operators: one rule for each op.

Padding that is not LiteRT's own is written out; XNNPACK takes it into the convolution after it.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from profilers.engines.litert_graph import Graph, Shape, Value, lacking
from profilers.engines.litert_model import Scales
from profilers.onnx_bytes import Node

Args = Dict[str, Any]  # attributes of a node
Rule = Callable[[Graph, Node, Args], None]
Place = Callable[[np.ndarray], np.ndarray]
SAME, VALID = 0, 1  # of Padding


def reduced(graph: Graph, node: Node, args: Args, code: str = "MEAN") -> None:
    """Over places, or over any axes; these are then where they are in the ONNX graph."""
    value = graph.value(node.inputs[0])
    places = list(range(2, len(value.shape)))
    axes = [axis % len(value.shape) for axis in args.get("axes", places)]
    keep = bool(args.get("keepdims", 1))
    last = value.last and (keep or axes == places)
    value = graph.read(node.inputs[0], last, graph.is_whole(node.inputs, node.outputs[0]))
    shape = tuple(1 if i in axes else n for i, n in enumerate(value.shape))
    if not keep:
        shape = tuple(n for i, n in enumerate(shape) if i not in axes)
    given = [1, 2] if value.last and axes == places else [value.axis(axis) for axis in axes]
    number = graph.whole(f"{node.name}/axes", given)
    out = value._replace(shape=shape, last=value.last and keep)
    graph.result(code, [value.number, number], node.outputs[0], out, keepDims=keep)


def square(numbers: Sequence[int], fill: int) -> List[int]:
    """Of height and width; a series has no height."""
    return [fill] * (2 - len(numbers)) + [int(number) for number in numbers]


class _Window:
    """Kernel, stride, dilation and padding of height and width, and how many places come out."""

    def __init__(self, shape: Shape, args: Args, kernel: Sequence[int]) -> None:
        axes = len(shape) - 2
        self.sizes = square(shape[2:], 1)
        self.kernel = square(kernel, 1)
        self.stride = square(args.get("strides", [1] * axes), 1)
        self.dilation = square(args.get("dilations", [1] * axes), 1)
        given = args.get("pads", [0] * 2 * axes)
        self.pads = list(zip(square(given[:axes], 0), square(given[axes:], 0)))
        places: List[int] = []
        self.same: List[Tuple[int, int]] = []  # padding that LiteRT does by itself
        for n, size in enumerate(self.sizes):
            reach = (self.kernel[n] - 1) * self.dilation[n] + 1
            places.append((size + sum(self.pads[n]) - reach) // self.stride[n] + 1)
            most = max((-(-size // self.stride[n]) - 1) * self.stride[n] + reach - size, 0)
            self.same.append((most // 2, most - most // 2))
        self.places = tuple(places[2 - axes :])

    @property
    def padding(self) -> int:
        """LiteRT's word for the padding that it does."""
        return SAME if any(map(sum, self.pads)) and self.pads == self.same else VALID

    def options(self) -> Dict[str, int]:
        """Strides and padding as LiteRT calls them."""
        return {"strideH": self.stride[0], "strideW": self.stride[1], "padding": self.padding}


def _padded(graph: Graph, node: Node, value: Value, window: _Window, lowest: bool = False) -> int:
    """The tensor that a window goes over: with zeros round it, or with the lowest numbers."""
    if not any(map(sum, window.pads)) or window.padding == SAME:
        return value.number
    n, height, width, channels = graph.out.shape(value.number)
    shape = (n, height + sum(window.pads[0]), width + sum(window.pads[1]), channels)
    given = [value.number, graph.whole(f"{node.name}/pads", [(0, 0), *window.pads, (0, 0)])]
    name = f"{node.name}/padded"
    if not lowest:
        return graph.put("PAD", given, name, shape, value.scales)
    fill = np.array([np.finfo(np.float32).min if value.scales is None else -128])
    fill = fill.astype(np.float32 if value.scales is None else np.int8)
    given.append(graph.out.constant(f"{node.name}/fill", fill, value.scales))
    return graph.put("PADV2", given, name, shape, value.scales)


def _conv(graph: Graph, node: Node, args: Args) -> None:
    fused, name = graph.ended(node)
    whole = graph.is_whole(node.inputs, name)
    value = graph.read(node.inputs[0], True, whole)
    kernel = graph.constant(node.inputs[1]).shape
    window = _Window(value.shape, args, kernel[2:])
    options = {**window.options(), "fusedActivationFunction": fused}
    options.update(dilationHFactor=window.dilation[0], dilationWFactor=window.dilation[1])
    channels, groups = value.shape[1], args.get("group", 1)
    depthwise = groups > 1 and groups == channels
    if depthwise:
        options["depthMultiplier"] = kernel[0] // channels
    shape = (*kernel[:2], *window.kernel)  # out, in of a group, height, width
    axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    given = [_padded(graph, node, value, window)]
    place: Place = lambda w: w.reshape(shape).transpose(axes)  # noqa: E731
    given += weights(graph, node, place, 3 if depthwise else 0, value.scales)
    out = value._replace(shape=(value.shape[0], kernel[0], *window.places))
    graph.result("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", given, name, out, **options)


def weights(
    graph: Graph, node: Node, place: Place, axis: int, given: Optional[Scales]
) -> List[int]:
    """The constants of a weight and a bias, zeros where there is none.

    Args:
        graph: on its way.
        node: reads an activation, then these.
        place: puts the axes of the weight where LiteRT has them.
        axis: of the output channels there.
        given: scales of the activation, where the operator is over int8.
    """
    name, bias = node.inputs[1], node.inputs[2] if node.inputs[2:] else ""
    if given is None:
        weight = place(graph.constant(name))
        added = graph.constant(bias) if bias else np.zeros(weight.shape[axis])
        return [graph.single(name, weight), graph.single(bias or f"{name}/zeros", added)]
    steps, scales = graph.steps(name)
    steps = place(steps)
    added = graph.steps(bias)[0] if bias else np.zeros(steps.shape[axis])
    number = graph.out.constant(name, steps, scales._replace(axis=axis))
    both = Scales(scales.scale * given.scale, 0)
    return [number, graph.out.constant(bias or f"{name}/zeros", added.astype(np.int32), both)]


def _max_pool(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0], True, graph.is_whole(node.inputs, node.outputs[0]))
    window = _Window(value.shape, args, args["kernel_shape"])
    if max(window.dilation) > 1 or args.get("ceil_mode"):
        raise lacking(node, "with dilation or ceil_mode")
    positive = node.inputs[0] in graph.positive
    number = _padded(graph, node, value, window, not positive)
    if positive:
        graph.positive.add(node.outputs[0])
    _pooled(graph, "MAX_POOL_2D", number, node.outputs[0], value, window)


def _average_pool(graph: Graph, node: Node, args: Args) -> None:
    """The mean of what a window holds of the image: of padding that LiteRT does not do, the zeros
    are taken out of the mean by a factor for each place.
    """
    value = graph.read(node.inputs[0], True)
    window = _Window(value.shape, args, args["kernel_shape"])
    if args.get("count_include_pad") or args.get("ceil_mode"):
        raise lacking(node, "that counts padding, or with ceil_mode")
    number = _padded(graph, node, value, window)
    if number == value.number:
        _pooled(graph, "AVERAGE_POOL_2D", number, node.outputs[0], value, window)
        return
    counts = [_counts(window, axis) for axis in (0, 1)]
    shares = math.prod(window.kernel) / np.multiply.outer(*counts)
    name = f"{node.name}/means"
    _pooled(graph, "AVERAGE_POOL_2D", number, name, value, window)
    factors = graph.single(f"{node.name}/shares", shares[None, :, :, None])
    graph.result("MUL", [graph.value(name).number, factors], node.outputs[0], graph.value(name))


def _counts(window: _Window, axis: int) -> np.ndarray:
    """How many places of the image each window holds along an axis."""
    size, kernel, (before, after) = window.sizes[axis], window.kernel[axis], window.pads[axis]
    starts = np.arange(-before, size + after - kernel + 1, window.stride[axis])
    return np.minimum(starts + kernel, size) - np.maximum(starts, 0)


def _pooled(graph: Graph, code: str, number: int, name: str, value: Value, window: _Window) -> None:
    options = window.options()
    options.update(filterHeight=window.kernel[0], filterWidth=window.kernel[1])
    out = value._replace(shape=(*value.shape[:2], *window.places))
    graph.result(code, [number], name, out, **options)


def _pad(graph: Graph, node: Node, args: Args) -> None:
    value, sizes = graph.read(node.inputs[0], True), graph.constant(node.inputs[1]).tolist()
    half = len(value.shape)
    if any(sizes[:2] + sizes[half : half + 2]) or len(sizes) != 2 * half:
        raise lacking(node, "of anything but places")
    pads = list(zip(square(sizes[2:half], 0), square(sizes[half + 2 :], 0)))
    given = [value.number, graph.whole(f"{node.name}/pads", [(0, 0), *pads, (0, 0)])]
    if node.inputs[2:]:
        given.append(graph.single(node.inputs[2], graph.constant(node.inputs[2]).reshape(1)))
    places = [size + sum(pad) for size, pad in zip(square(value.shape[2:], 1), pads)]
    out = value._replace(shape=(*value.shape[:2], *places[4 - half :]))
    graph.result("PADV2" if node.inputs[2:] else "PAD", given, node.outputs[0], out)


def _upsample(graph: Graph, node: Node, args: Args) -> None:
    value, scales = graph.read(node.inputs[0], True), graph.constant(node.inputs[2])
    places = [int(n * scale) for n, scale in zip(value.shape[2:], scales[2:])]
    size = graph.whole(f"{node.name}/size", square(places, 1))
    out, name = value._replace(shape=(*value.shape[:2], *places)), node.outputs[0]
    how = args.get("coordinate_transformation_mode", "half_pixel")
    if args.get("mode", "nearest") == "nearest":
        graph.result("RESIZE_NEAREST_NEIGHBOR", [value.number, size], name, out)
        return
    ends = {"alignCorners": how == "align_corners", "halfPixelCenters": how == "half_pixel"}
    graph.result("RESIZE_BILINEAR", [value.number, size], name, out, **ends)


RULES: Dict[str, Rule] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": reduced,
    "Pad": _pad,
    "Resize": _upsample,
}
