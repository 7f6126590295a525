"""`ofa-mbv3-w10` of ops that engines compute in integers: relu, no squeeze-excite, no 7x7 kernels.

A 7x7 depthwise convolution in int8 takes 3 to 5 times as long as a 3x3 one in some engines.
"""

import functools

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

_stage = functools.partial(
    Stage, act="relu", se=False, kernel_sizes=(3, 5), expand_ratios=(3, 4, 6), depths=(2, 3, 4)
)

SPACE = SearchSpace(
    name="mbv3-224-int8",
    resolutions=(128, 144, 160, 176, 192, 208, 224),
    profiled=(128, 160, 192, 224),
    family=MbV3(
        stem=Stem(width=16, kernel_size=3, stride=2, act="relu", first_width=16),  # 112 px
        stages=(
            _stage(24, 4, 2),  # 56 px
            _stage(40, 4, 2),  # 28 px
            _stage(80, 4, 2),  # 14 px
            _stage(112, 4, 1),  # 14 px
            _stage(160, 4, 2),  # 7 px
        ),
        head=Head(expand=960, width=1280, act="relu"),
    ),
    in_channels=3,
    n_classes=1000,
)
