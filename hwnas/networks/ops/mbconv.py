"""Inverted residual (MobileNetV2), with squeeze-excite (MobileNetV3) where se is not 0."""

from hwnas.networks.graph import Body

EXAMPLES = (
    ((8, 9, 9), {"mid": 24, "out": 12, "kernel": 5, "stride": 2, "se": 8, "act": "h_swish"}),
    ((8, 7, 7), {"mid": 8, "out": 8, "kernel": 3, "act": "relu6", "residual": True}),
    ((8, 20), {"mid": 16, "out": 8, "kernel": 3, "residual": True}),
)


def build(
    body: Body,
    mid: int,
    out: int,
    kernel: int,
    stride: int = 1,
    se: int = 0,
    act: str = "relu",
    residual: bool = False,
) -> None:
    """Mid channels of the depthwise convolution (as many as come in: no expansion), out channels,
    se hidden channels of squeeze-excite.
    """
    last = "in"
    if mid != body.shapes["in"][0]:
        last = body.conv("expand", last, mid, act=act)
    last = body.conv("depthwise", last, mid, act=act, kernel=kernel, stride=stride, groups=mid)
    if se:
        last = body.squeeze("se", last, se)
    last = body.conv("project", last, out)
    if residual:
        body.add("add", "add", last, "in")
