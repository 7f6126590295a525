"""What a model makes of random inputs, and whether networks of its space do the same.

Before anything is made of a model it runs on every resolution asked for. After, the largest network
must give what the model gave, and others what the model gives without their units and branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.networks.families.traced import KEPT, WIDTH
from hwnas.settings.config import SpaceConfig
from hwnas.supernet.network import Supernet, extract
from hwnas.traced.analysis import Analysis
from hwnas.traced.proof import masked
from profilers.errors import ConfigError, VerificationError
from profilers.plugins import one_line, place

EQUAL = 1e-5  # largest difference over the largest output, float32
MIXED = 1e-4  # and of an image alone and beside another one, which sums in another order


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
        ConfigError: it does not run on inputs of the size, or mixes the images of a batch.
    """
    channels, *places = settings.input
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(1, channels, *(size for _ in places), generator=generator)
    try:
        with torch.no_grad():
            found = Sample(size, x, net(x))
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(
            f"{settings.model} does not run on inputs of {'x'.join(map(str, x.shape[1:]))}: "
            f"{one_line(error)}{place(error)}; mend space.input or space.resolutions"
        ) from error
    _check_alone(settings.model, net, found)
    return found


def _check_alone(model: str, net: nn.Module, sample: Sample) -> None:
    """Refuse a model that gives an image another output where a second one is beside it; one that
    runs on single images alone cannot.
    """
    if not sample.outputs.isfinite().all():
        return  # `check_outputs` says that
    try:
        with torch.no_grad():
            both = net(torch.cat([sample.inputs, sample.inputs.flip(-1)]))
    except Exception:  # whatever the user's code raises
        return
    alike = both.shape == (2, *sample.outputs.shape[1:])
    if not alike or _gap(both[:1], sample.outputs) > MIXED:  # what is no number is told by others
        raise ConfigError(
            f"{model} mixes the images of a batch: one has another output beside another image; "
            "let every layer take the batch first (nn.MultiheadAttention: batch_first=True)"
        )


def check_outputs(model: str, samples: Sequence[Sample]) -> None:
    """Refuse a model whose outputs are other ones at other sizes, or no numbers.

    Raises:
        ConfigError: names the size.
    """
    first, shape = samples[0].size, samples[0].outputs.shape
    apart = 2 if len(shape) == 4 else None  # maps are of a size of their own
    for size, _, outputs in samples:
        if not outputs.isfinite().all():
            raise ConfigError(f"{model} gives NaN or infinity on random inputs of {size}; mend it")
        if outputs.shape[:apart] != shape[:apart]:
            raise ConfigError(
                f"{model} gives {tuple(outputs.shape[1:])} outputs at {size} and "
                f"{tuple(shape[1:])} at {first}; leave one of them out of space.resolutions"
            )


def largest_gap(model: str, supernet: Supernet, samples: Sequence[Sample]) -> float:
    """Largest relative difference of the largest network and the model, at every resolution.

    Raises:
        VerificationError: they differ.
    """
    space, worst = supernet.space, 0.0
    for size, inputs, expected in samples:
        largest = space.largest_at(size)
        with torch.no_grad():
            found = supernet.eval()(inputs, largest)
        gap = _gap(found, expected)
        if not gap <= EQUAL:
            raise VerificationError(
                f"at {size} {space.unit} the largest network differs from {model} by {gap:.2g} of "
                f"the largest output (allowed {EQUAL:g}); leave this size out of "
                "space.resolutions, and please report"
            )
        worst = max(worst, gap)
    return worst


@torch.no_grad()
def networks_gap(
    supernet: Supernet, analysis: Analysis, order: Sequence[np.ndarray], n: int
) -> float:
    """Largest relative difference of random networks, cut out of the supernet, and the model where
    what they lack is zero; at the size that the model was traced with, float64.

    Args:
        supernet: with the model's weights.
        order: of the units of each group, as they were sorted.

    Raises:
        VerificationError: they differ.
    """
    family: Any = supernet.space.family
    space = replace(supernet.space, resolutions=(family.input[-1],))
    x = torch.randn(1, *family.input, generator=torch.Generator().manual_seed(0))
    worst = 0.0
    for arch in space.architectures(space.sample(n, np.random.default_rng(0))):
        widths = [arch[group.name + WIDTH] or group.widths[-1] for group in family.groups]
        keep = [
            np.isin(np.arange(len(ranks)), ranks[:width])
            for ranks, width in zip(order, widths, strict=True)
        ]
        skipped = [skip.name for skip in family.skips if not arch[skip.name + KEPT]]
        expected = masked(analysis, keep, skipped, x)
        found = extract(supernet, arch).double()(x.double())
        gap = _gap(found, expected)
        if not gap <= EQUAL:
            raise VerificationError(
                f"network {arch.to_json()['choices']} differs from the model without its units by "
                f"{gap:.2g} of the largest output (allowed {EQUAL:g}); please report"
            )
        worst = max(worst, gap)
    return worst


def _gap(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value expected."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
