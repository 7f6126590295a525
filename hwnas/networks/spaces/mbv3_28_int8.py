"""`mbv3-28` of ops that engines compute in integers: relu, no squeeze-excite."""

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

_CHOICES = {"kernel_sizes": (3, 5), "expand_ratios": (2, 3, 4)}

SPACE = SearchSpace(
    name="mbv3-28-int8",
    resolutions=(20, 24, 28),
    profiled=(20, 24, 28),
    family=MbV3(
        stem=Stem(width=16, kernel_size=3, stride=1, act="relu"),  # 28 px
        stages=(
            Stage(24, 4, 2, "relu", se=False, **_CHOICES),  # 14 px
            Stage(40, 4, 2, "relu", se=False, **_CHOICES),  # 7 px
            Stage(64, 4, 2, "relu", se=False, **_CHOICES),  # 4 px
        ),
        head=Head(expand=192, width=256, act="relu"),
    ),
)
