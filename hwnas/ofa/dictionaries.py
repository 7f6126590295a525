"""once-for-all's architecture dictionaries to architectures, and back.

MobileNet spaces: `{"ks": [...], "e": [...], "d": [...]}`, one kernel size and expand ratio for each
elastic block, one depth for each stage. ResNet50: `{"d": [...], "e": [...], "w": [...]}`; `d[0]` is
2 where the stem's middle convolution is kept, the others count blocks beyond the stage's fewest;
`w` holds indices of width multipliers for the stem's middle, the stem and each stage. A single
number stands for a whole list. The input size is `image_size`, or `r` (a number or a list of one).
`wid` is None, or the width multiplier of the space.
Values of skipped blocks are ignored and written as the smallest option.

Source: `set_active_subnet` of ofa/imagenet_classification/elastic_nn/networks and
    ofa/tutorial/evolution_finder.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.networks import spaces
from hwnas.networks.families.mbv3 import MbV3
from hwnas.networks.families.resnet_d import ResNetD
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.ofa.families import block_choices, blocks_of, expand_name, is_resnet, stages_of
from profilers.errors import ConfigError
from profilers.plugins import select

WIDTHS = {  # width multiplier of each space, None where it is a choice of the architecture
    "ofa-mbv3-w10": 1.0,
    "ofa-mbv3-w12": 1.2,
    "ofa-proxyless-w10": 1.0,
    "ofa-proxyless-w13": 1.3,
    "ofa-resnet50d": None,
}
SPACES = tuple(WIDTHS)
STEM_KEPT = 2  # d[0] of a ResNet whose stem keeps its middle convolution
N_WIDTHS = 3  # width multipliers of the ResNet: 0.65, 0.8, 1
KNOWN = ("ks", "e", "d", "w", "wid", "r", "image_size")


def from_dictionary(
    space: SearchSpace, given: Mapping[str, Any], resolution: int | None = None
) -> Architecture:
    """The architecture of a dictionary.

    Args:
        space: of SPACES.
        given: in one of the spellings above.
        resolution: input size, px, of a dictionary that holds none.

    Raises:
        ConfigError: a key is unknown or missing, or a value is not offered by the space; names it.
    """
    check_space(space)
    unknown = sorted(set(given) - set(KNOWN))
    if unknown:
        raise ConfigError(
            f"architecture has the key {unknown[0]!r}; once-for-all's are {', '.join(KNOWN)}"
        )
    if given.get("wid") not in (None, WIDTHS.get(space.name, given.get("wid"))):
        raise ConfigError(
            f"architecture has wid {given['wid']!r}, {space.name} has {WIDTHS[space.name]}; name "
            "the space of that width"
        )
    values = {"resolution": _resolution(given, resolution)}
    if is_resnet(space):
        values.update(_resnet_values(space, given))
    else:
        values.update(_mobilenet_values(space, given))
    return space.architecture([values[choice.name] for choice in space.choices])


def to_dictionary(arch: Architecture) -> dict[str, Any]:
    """The dictionary of an architecture, with `image_size`.

    Raises:
        ConfigError: its space is not once-for-all's.
    """
    space = arch.space
    check_space(space)
    stages = stages_of(space)
    expand = [arch[c.name] or c.options[0] for c in block_choices(space, expand_name(space))]
    depth = [arch[f"stage{s}.depth"] for s in range(1, len(stages) + 1)]
    if not is_resnet(space):
        kernel = [arch[c.name] or c.options[0] for c in block_choices(space, "kernel_size")]
        return {"ks": kernel, "e": expand, "d": depth, "image_size": arch.resolution}
    fewest = [min(stage.depths) for stage in stages]
    widths = [
        _width_options(space, name).index(arch[name]) for name in _width_names(space)
    ]  # of equal widths the first
    return {
        "d": [
            STEM_KEPT if arch["stem.depth"] == 3 else 0,
            *(d - low for d, low in zip(depth, fewest, strict=True)),
        ],
        "e": [percent / 100 for percent in expand],
        "w": widths,
        "image_size": arch.resolution,
    }


def load_like(name: str) -> SearchSpace:
    """The space of a name, one of SPACES or a user's own `module:NAME` that is like them.

    Raises:
        ConfigError: it is not.
    """
    space = spaces.load(name if ":" in name else select(name, SPACES, "space of once-for-all"))
    check_space(space)
    return space


def check_space(space: SearchSpace) -> None:
    """Refuse a space that is neither one of once-for-all's nor made as they are.

    Raises:
        ConfigError: it is not.
    """
    family = space.family
    mobile = isinstance(family, MbV3) and all(stage.depths for stage in family.stages)
    if not (mobile or isinstance(family, ResNetD)):
        raise ConfigError(
            f"space {space.name} is not one of once-for-all's; those are {', '.join(SPACES)}, and "
            "module:NAME of your own of their families, with a depth for each stage"
        )


def _options(space: SearchSpace, column: int) -> tuple[int, ...]:
    return space.choices[column].options


def _resolution(given: Mapping[str, Any], resolution: int | None) -> int:
    size = given.get("image_size", given.get("r", resolution))
    if isinstance(size, list | tuple) and len(size) == 1:
        size = size[0]
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(
            f"architecture has the input size {size!r}, expected one whole number, px, as "
            "image_size or r"
        )
    return size


def _mobilenet_values(space: SearchSpace, given: Mapping[str, Any]) -> dict[str, int]:
    stages, blocks = stages_of(space), blocks_of(space)
    n_blocks, n_stages = len(blocks), len(stages)
    kernel = _whole("ks", _listed(given, "ks", n_blocks))
    expand = _whole("e", _listed(given, "e", n_blocks))
    depth = _whole("d", _listed(given, "d", n_stages))
    values = {}
    for s, (stage, kept) in enumerate(zip(stages, depth, strict=True), start=1):
        # once-for-all clips the depth of a stage that has fewer blocks (Proxyless: the last)
        values[f"stage{s}.depth"] = min(kept, stage.n_blocks)
    for block, k, e in zip(blocks, kernel, expand, strict=True):
        there = block.position < values[f"{block.within}.depth"]
        values[f"{block.slot}.kernel_size"] = k if there else 0
        values[f"{block.slot}.expand_ratio"] = e if there else 0
    return values


def _resnet_values(space: SearchSpace, given: Mapping[str, Any]) -> dict[str, int]:
    if given.get("ks") not in (None, 3):
        raise ConfigError(f"space {space.name} has no kernel sizes to choose, ks was given")
    names, stages = _width_names(space), stages_of(space)
    depth = _whole("d", _listed(given, "d", len(stages) + 1))
    width = _whole("w", _listed(given, "w", len(names)))
    values = {"stem.depth": 3 if depth[0] == STEM_KEPT else 2}
    for s, (stage, extra) in enumerate(zip(stages, depth[1:], strict=True), start=1):
        values[f"stage{s}.depth"] = min(stage.depths) + extra
    for name, index in zip(names, width, strict=True):
        if not 0 <= index < N_WIDTHS:
            raise ConfigError(f"w holds {index}, expected an index from 0 to {N_WIDTHS - 1}")
        values[name] = _width_options(space, name)[index]
    blocks = blocks_of(space)
    for block, ratio in zip(blocks, _listed(given, "e", len(blocks)), strict=True):
        there = block.position < values[f"{block.within}.depth"]
        values[f"{block.slot}.kernel_size"] = 3 if there else 0
        values[f"{block.slot}.expand_percent"] = _percent(ratio) if there else 0
    return values


def _width_names(space: SearchSpace) -> list[str]:
    """The choices that `w` indexes, in its order."""
    stages = range(1, len(stages_of(space)) + 1)
    return ["stem.mid_width", "stem.width", *(f"stage{s}.width" for s in stages)]


def _width_options(space: SearchSpace, name: str) -> tuple[int, ...]:
    """Channels at each width multiplier: the smaller ones may round to the same number."""
    options = _options(space, space.columns[name])
    return options[:1] * (N_WIDTHS - len(options)) + options


def _percent(ratio: Any) -> int:
    if not _is_number(ratio):
        raise ConfigError(f"e holds {ratio!r}, expected numbers")
    percent = round(100 * ratio, 6)
    if percent != int(percent):
        raise ConfigError(f"e holds {ratio!r}, which is not a whole number of percent")
    return int(percent)


def _listed(given: Mapping[str, Any], key: str, n: int) -> list[Any]:
    """A list of n of a key, a single number repeated."""
    value = given.get(key)
    if value is None:
        raise ConfigError(f"architecture lacks {key!r}")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * n
    if len(value) != n:
        raise ConfigError(f"{key!r} holds {len(value)} values, expected {n}")
    return list(value)


def _whole(key: str, values: list[Any]) -> list[int]:
    for value in values:
        if not _is_number(value) or value != int(value):
            raise ConfigError(f"{key!r} holds {value!r}, expected whole numbers")
    return [int(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
