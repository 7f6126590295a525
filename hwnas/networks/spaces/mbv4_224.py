"""Networks like MobileNetV4-Conv-S, which is one of them: relu, no squeeze-excite.

In int8 nothing stays in float, and blocks without depthwise convolutions compute 1.3 to 1.5 times
the MACs a millisecond of inverted residuals (docs/benchmarks.md, "Blocks").
"""

from hwnas.networks.families.mbv3 import Head
from hwnas.networks.families.mbv4 import Conv, MbV4, Stage
from hwnas.networks.space import SearchSpace

SPACE = SearchSpace(
    name="mbv4-224",
    resolutions=(128, 144, 160, 176, 192, 208, 224),
    profiled=(128, 160, 192, 224),
    family=MbV4(
        convs=(
            Conv(32, 3, 2),  # 112 px
            Conv(32, 3, 2),  # 56 px
            Conv(32, 1, 1),
            Conv(96, 3, 2),  # 28 px
            Conv(64, 1, 1),
        ),
        stages=(
            Stage(96, 6, 2, depths=(3, 4, 5, 6)),  # 14 px
            Stage(128, 6, 2, depths=(3, 4, 5, 6)),  # 7 px
        ),
        head=Head(expand=960, width=1280, act="relu"),
    ),
    in_channels=3,
    n_classes=1000,
)
