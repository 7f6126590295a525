"""Convolution, BatchNorm, activation; then, if it is residual, the input is added."""

from hwnas.networks.graph import Body

EXAMPLES = (
    ((8, 9, 9), {"out": 12, "kernel": 3, "stride": 2, "act": "h_swish"}),
    ((8, 9, 9), {"out": 8, "kernel": 3, "act": "relu", "residual": True}),
    ((3, 20), {"out": 6, "kernel": 5}),
)


def build(
    body: Body,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    act: str = "none",
    residual: bool = False,
) -> None:
    """Out channels, square kernel of kernel x kernel pixels (or steps), padded by half of it."""
    last = body.conv("conv", "in", out, act=act, kernel=kernel, stride=stride)
    if residual:
        body.add("add", "add", last, "in")
