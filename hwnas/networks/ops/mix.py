"""1x1 convolution without BatchNorm or bias, then activation: MobileNetV3's last hidden layer."""

from hwnas.networks.graph import Body

EXAMPLES = (((8, 1, 1), {"out": 16, "act": "h_swish"}),)


def build(body: Body, out: int, act: str = "none") -> None:
    """Out channels."""
    body.conv("conv", "in", out, norm="", act=act)
