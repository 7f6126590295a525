"""Bottleneck of ResNet-D: 1x1, spatial and 1x1 convolution, added to the input or its projection.

Source: He et al. 2019, "Bag of tricks for image classification with convolutional neural networks",
fig. 2.
"""

from hwnas.networks.graph import Body

EXAMPLES = (
    ((8, 9, 9), {"mid": 8, "out": 16, "stride": 2}),
    ((16, 7, 7), {"mid": 8, "out": 16, "residual": True}),
)


def build(
    body: Body,
    mid: int,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    act: str = "relu",
    residual: bool = False,
) -> None:
    """Mid channels of the spatial convolution, out channels; if it is not residual, the shortcut is
    the mean over stride x stride pixels (of an odd size the last window holds fewer), projected.
    """
    last = body.conv("reduce", "in", mid, act=act)
    last = body.conv("spatial", last, mid, act=act, kernel=kernel, stride=stride)
    last = body.conv("project", last, out)
    shortcut = "in"
    if not residual:
        if stride > 1:
            # Padding that does not count, rather than `ceil_mode`, which engines round differently.
            shape = body.shapes["in"][1:]
            pads = tuple((0, -n % stride) for n in shape)
            steps = (stride,) * len(shape)
            shortcut = body.add(
                "avg_pool", "shortcut_pool", "in",
                kernel=steps, stride=steps, dilation=(1,) * len(shape), pads=pads,
            )  # fmt: skip
        shortcut = body.conv("shortcut", shortcut, out)
    body.act("add", body.add("add", "add", last, shortcut), act)
