"""Residual block of a temporal convolutional network: two causal, dilated convolutions, added to
the input or its projection.

Source: Bai et al. 2018, "An empirical evaluation of generic convolutional and recurrent networks
for sequence modeling", arXiv 1803.01271, fig. 1b; BatchNorm in place of weight normalisation and
dropout, so that nothing is left of it after the export.
"""

from typing import Any

from hwnas.networks.graph import Body

EXAMPLES = (
    ((6, 20), {"out": 8, "kernel": 5, "dilation": 2, "stride": 2, "shortcut": True}),
    ((8, 16), {"out": 8, "kernel": 3, "dilation": 4, "act": "h_swish"}),
)


def build(
    body: Body,
    out: int,
    kernel: int,
    dilation: int = 1,
    stride: int = 1,
    act: str = "relu",
    shortcut: bool = False,
) -> None:
    """Out channels, steps of the kernel and between its taps; stride of the first convolution, and
    of the shortcut's 1x1 convolution where there is one.
    """
    taps: dict[str, Any] = {
        "kernel": kernel,
        "dilation": dilation,
        "pads": (dilation * (kernel - 1), 0),
    }
    last = body.conv("conv1", "in", out, act=act, stride=stride, **taps)
    last = body.conv("conv2", last, out, act=act, **taps)
    given = body.conv("shortcut", "in", out, stride=stride) if shortcut else "in"
    body.act("add", body.add("add", "add", last, given), act)
