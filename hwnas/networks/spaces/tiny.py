"""10,000 networks for 8-16 px images: small enough to enumerate, and it holds every op kind."""

from hwnas.networks.families.mbv3 import Head, MbV3, Stage, Stem
from hwnas.networks.space import SearchSpace

SPACE = SearchSpace(
    name="tiny",
    resolutions=(8, 10, 12, 14, 16),
    profiled=(8, 12, 16),
    family=MbV3(
        stem=Stem(width=8, kernel_size=3, stride=2, act="h_swish"),  # 16 -> 8 px
        stages=(
            Stage(12, 2, 1, "relu", se=False, kernel_sizes=(3, 5), expand_ratios=(2, 3)),  # 8 px
            Stage(24, 3, 2, "h_swish", se=True, kernel_sizes=(3, 5), expand_ratios=(2, 3)),  # 4 px
        ),
        head=Head(expand=64, width=64, act="h_swish"),
    ),
)
