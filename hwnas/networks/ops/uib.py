"""Universal inverted bottleneck (MobileNetV4): depthwise before, after the expansion, both or none.

Source: Qin et al. 2024, "MobileNetV4: universal models for the mobile ecosystem".
"""

from hwnas.networks.graph import Body

EXAMPLES = (
    ((8, 9, 9), {"mid": 24, "out": 12, "start": 3, "kernel": 5, "stride": 2}),
    ((8, 9, 9), {"mid": 24, "out": 12, "start": 5, "stride": 2}),
    ((8, 7, 7), {"mid": 16, "out": 8, "residual": True}),
)


def build(
    body: Body,
    mid: int,
    out: int,
    start: int = 0,
    kernel: int = 0,
    stride: int = 1,
    act: str = "relu",
    residual: bool = False,
) -> None:
    """Mid channels after the expansion, out channels, kernels of the depthwise convolutions before
    and after it, 0: absent; the last of them takes the stride.
    """
    last, channels = "in", body.shapes["in"][0]
    if not start and not kernel and stride > 1:
        raise ValueError(f"stride {stride} needs a depthwise convolution; give start or kernel")
    if start:
        own = 1 if kernel else stride
        last = body.conv("start", last, channels, kernel=start, stride=own, groups=channels)
    last = body.conv("expand", last, mid, act=act)
    if kernel:
        last = body.conv("depthwise", last, mid, act=act, kernel=kernel, stride=stride, groups=mid)
    last = body.conv("project", last, out)
    if residual:
        body.add("add", "add", last, "in")
