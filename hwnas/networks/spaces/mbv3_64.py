"""MobileNetV3-like networks for photos of 64 px, to be trained on a CPU; at most about 17 million
MACs.
"""

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

SPACE = SearchSpace(
    name="mbv3-64",
    resolutions=(40, 48, 56, 64),
    profiled=(48, 56, 64),
    in_channels=3,
    family=MbV3(
        stem=Stem(width=16, kernel_size=3, stride=2, act="h_swish"),  # 64 -> 32 px
        stages=(
            Stage(
                24, 4, 2, "relu", se=False, kernel_sizes=(3, 5), expand_ratios=(2, 3, 4)
            ),  # 16 px
            Stage(
                40, 4, 2, "h_swish", se=True, kernel_sizes=(3, 5), expand_ratios=(2, 3, 4)
            ),  # 8 px
            Stage(
                64, 4, 2, "h_swish", se=True, kernel_sizes=(3, 5), expand_ratios=(2, 3, 4)
            ),  # 4 px
        ),
        head=Head(expand=192, width=256, act="h_swish"),
    ),
)
