"""The families that once-for-all's spaces are made of, as its importers need them."""

from __future__ import annotations

from hwnas.networks.families import Block, mbv3, resnet_d
from hwnas.networks.families.mbv3 import MbV3
from hwnas.networks.families.resnet_d import ResNetD
from hwnas.networks.space import Choice, SearchSpace
from profilers.errors import ConfigError


def family_of(space: SearchSpace) -> MbV3 | ResNetD:
    """The family of a space, which is one of once-for-all's.

    Raises:
        ConfigError: it is another one.
    """
    if not isinstance(space.family, MbV3 | ResNetD):
        raise ConfigError(
            f"space {space.name} is of family {space.family.name}; once-for-all's are mbv3 and "
            "resnet-d"
        )
    return space.family


def mobile_of(space: SearchSpace) -> MbV3:
    """The family of a space that is known to be of MobileNets."""
    family = family_of(space)
    assert isinstance(family, MbV3)
    return family


def stages_of(space: SearchSpace) -> list[mbv3.Stage | resnet_d.Stage]:
    """The stages of a space, in order."""
    return list(family_of(space).stages)


def blocks_of(space: SearchSpace) -> list[Block]:
    """The elastic blocks of a space, in order."""
    return list(family_of(space).blocks())


def is_resnet(space: SearchSpace) -> bool:
    """Whether the space is once-for-all's ResNet, or one like it."""
    return isinstance(family_of(space), ResNetD)


def expand_name(space: SearchSpace) -> str:
    """What the expand choice of a block is called."""
    return "expand_percent" if is_resnet(space) else "expand_ratio"


def block_choices(space: SearchSpace, option: str) -> list[Choice]:
    """A choice of every block, in order: `kernel_size`, or `expand_name(space)`."""
    return [space.choices[space.columns[f"{slot}.{option}"]] for slot, *_ in blocks_of(space)]
