"""MobileNetV3-like networks for 28-px images (Fashion-MNIST), grey or colour; at most about 12
million MACs.
"""

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

SPACE = SearchSpace(
    name="mbv3-28",
    resolutions=(20, 24, 28),
    profiled=(20, 24, 28),
    family=MbV3(
        stem=Stem(width=16, kernel_size=3, stride=1, act="h_swish"),  # 28 px
        stages=(
            Stage(
                24, 4, 2, "relu", se=False, kernel_sizes=(3, 5), expand_ratios=(2, 3, 4)
            ),  # 14 px
            Stage(
                40, 4, 2, "h_swish", se=True, kernel_sizes=(3, 5), expand_ratios=(2, 3, 4)
            ),  # 7 px
            Stage(
                64, 4, 2, "h_swish", se=True, kernel_sizes=(3, 5), expand_ratios=(2, 3, 4)
            ),  # 4 px
        ),
        head=Head(expand=192, width=256, act="h_swish"),
    ),
)
