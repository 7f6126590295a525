"""Temporal convolutional networks for series of 32 to 128 steps, at most 2.2 million MACs."""

from hwnas.networks.families.tcn import Stage, Tcn
from hwnas.networks.space import SearchSpace


def _stage(*widths: int) -> Stage:
    return Stage(widths, depths=(1, 2), kernel_sizes=(3, 5, 7), dilations=(1, 2, 4), stride=2)


SPACE = SearchSpace(
    name="tcn-128",
    resolutions=(32, 48, 64, 96, 128),
    profiled=(32, 64, 128),
    family=Tcn(stages=(_stage(8, 16), _stage(16, 32), _stage(32, 48))),
    in_channels=6,
)
