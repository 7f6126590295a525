"""What a model makes of random inputs, and whether the largest network of its space does the same.

Before anything is made of a model it runs on every resolution asked for; after, its weights in the
supernet must give what they gave in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hwnas.settings.config import SpaceConfig
from hwnas.supernet.network import Supernet
from profilers.errors import ConfigError, VerificationError

EQUAL = 1e-5  # largest difference over the largest output, float32


class Sample(NamedTuple):
    """What the model makes of random inputs of a size."""

    size: int
    inputs: Tensor
    outputs: Tensor


def sample(net: nn.Module, settings: SpaceConfig, size: int) -> Sample:
    """What a model makes of random inputs.

    Args:
        net: the model.
        settings: name it, and the shape of its input.
        size: px, or steps.

    Raises:
        ConfigError: it does not run on inputs of the size.
    """
    channels, *places = settings.input
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(1, channels, *(size for _ in places), generator=generator)
    try:
        with torch.no_grad():
            return Sample(size, x, net(x))
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(
            f"{settings.model} does not run on inputs of {'x'.join(map(str, x.shape[1:]))}: "
            f"{' '.join(str(error).split())[:200]}; mend space.input or space.resolutions"
        ) from error


def largest_gap(model: str, supernet: Supernet, samples: Sequence[Sample]) -> float:
    """Largest relative difference of the largest network and the model, at every resolution.

    Raises:
        VerificationError: they differ.
    """
    space, worst = supernet.space, 0.0
    for size, inputs, expected in samples:
        largest = space.architecture([size, *space.largest.values[1:]])
        with torch.no_grad():
            found = supernet.eval()(inputs, largest)
        gap = float((found - expected).abs().max() / expected.abs().max())
        if not gap <= EQUAL:
            raise VerificationError(
                f"at {size} {space.unit} the largest network differs from {model} by {gap:.2g} of "
                f"the largest output (allowed {EQUAL:g}); leave this size out of "
                "space.resolutions, and please report"
            )
        worst = max(worst, gap)
    return worst
