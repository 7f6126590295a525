"""Calls of an exported program as primitives: one rule for each aten operator.

A rule gives the nodes of the traced family that a call is, the last one named after it; none for
one that changes nothing. What no rule knows is refused by name: it cannot be measured or exported.
"""

from __future__ import annotations

from collections.abc import Callable

from hwnas.traced import computing, moving
from hwnas.traced.call import Call, Made

SAME = {"dropout", "feature_dropout", "alpha_dropout", "clone", "contiguous", "alias", "detach"}
SAME |= {"to", "_to_copy", "lift_fresh_copy", "type_as", "identity"}
UNARY = {"relu": "relu", "relu6": "relu6", "hardswish": "h_swish", "silu": "silu", "mish": "mish"}
UNARY |= {"sigmoid": "sigmoid", "hardsigmoid": "h_sigmoid", "tanh": "tanh"}

Rule = Callable[[Call], list[Made]]


def _table(rules: dict[Rule, str]) -> dict[str, Rule]:
    return {op: rule for rule, ops in rules.items() for op in ops.split()}


RULES: dict[str, Rule] = _table({
    computing.conv: "conv1d conv2d convolution",
    computing.linear: "linear",
    computing.batch_norm: "batch_norm _native_batch_norm_legit_no_training",
    computing.layer_norm: "layer_norm",
    computing.group_norm: "group_norm",
    computing.gelu: "gelu",
    computing.leaky_relu: "leaky_relu",
    computing.clamp: "hardtanh clamp clamp_min clamp_max",
    computing.binary: "add sub rsub mul div",
    computing.addcmul: "addcmul",
    computing.pool: "max_pool1d max_pool2d avg_pool1d avg_pool2d",
    computing.adaptive: "adaptive_avg_pool1d adaptive_avg_pool2d",
    computing.reduced: "mean linalg_vector_norm",
    computing.softmax: "softmax _softmax",
    computing.matmul: "matmul bmm",
    moving.reshape: "view reshape _unsafe_view flatten unflatten squeeze unsqueeze",
    moving.permute: "permute transpose t",
    moving.concat: "cat concat concatenate",
    moving.part: "slice",
    moving.select: "select",
    moving.roll: "roll",
    moving.expand: "expand expand_as",
    moving.getitem: "getitem",
    moving.upsample: "upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d "
    "upsample_linear1d upsample_bilinear2d",
    moving.pad: "pad constant_pad_nd",
})  # fmt: skip


def nodes_of(call: Call) -> list[Made]:
    """The nodes that a call is, in order.

    Raises:
        ConfigError: it is not a primitive, or needs what none has.
    """
    if call.name in SAME:
        if not call.node.meta["val"].is_floating_point():
            raise call.refuse("makes whole numbers of an activation", "keep it in floats")
        return []
    if call.name in UNARY:
        return [call.make(UNARY[call.name], call.input)]
    if call.name not in RULES:
        raise call.refuse(
            "is an operator that hwnas cannot measure and export yet",
            "use another layer there, or leave it out of the model",
        )
    return RULES[call.name](call)
