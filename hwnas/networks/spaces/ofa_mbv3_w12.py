"""The public once-for-all MobileNetV3 space, width 1.2: exact geometry of OFAMobileNetV3.

Source: ofa/imagenet_classification/elastic_nn/networks/ofa_mbv3.py of
    github.com/mit-han-lab/once-for-all.
"""

import functools

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

_stage = functools.partial(Stage, kernel_sizes=(3, 5, 7), expand_ratios=(3, 4, 6), depths=(2, 3, 4))

SPACE = SearchSpace(
    name="ofa-mbv3-w12",
    resolutions=(128, 144, 160, 176, 192, 208, 224),
    profiled=(128, 160, 192, 224),
    on_request=range(128, 261, 4),
    family=MbV3(
        stem=Stem(
            width=24, kernel_size=3, stride=2, act="h_swish", first_width=24
        ),  # 224 -> 112 px
        stages=(
            _stage(32, 4, 2, "relu", se=False),  # 56 px
            _stage(48, 4, 2, "relu", se=True),  # 28 px
            _stage(96, 4, 2, "h_swish", se=False),  # 14 px
            _stage(136, 4, 1, "h_swish", se=True),  # 14 px
            _stage(192, 4, 2, "h_swish", se=True),  # 7 px
        ),
        head=Head(expand=1152, width=1536, act="h_swish"),
    ),
    in_channels=3,
    n_classes=1000,
)
