"""Training recipes, one file each: `RECIPE`, what a run trains step by step, as data of one loop.

`hwnas/supernet/plan.py` draws a step's networks from it, `hwnas/supernet/step.py` trains them.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from profilers.plugins import load_part

__all__ = ["Recipe", "Stage", "load"]

ALL = 2**31  # options: as many as there are


@dataclass(frozen=True)
class Stage:
    """Consecutive steps of a run that train the same kinds of networks.

    Attributes:
        share: of the steps, in proportion to the other stages. Where the settings give `max_only`,
            the first of several takes that share, the others what is left.
        largest: whether every step trains the max network.
        smallest: whether it trains the min network.
        random: random subnets of a step, times `random_subnets` of the settings.
        options: how many of the largest options random subnets are drawn from, by the kind of
            choice (`kernel_size`); "": every kind that is not named. The resolution has all.
        rate: peak of the stage, times `learning_rate` of the settings (see `Recipe.restarts`).
        sorts: whether inner channels of ops are sorted by importance first, so that a leading
            slice keeps those that matter; for recipes that restart.
    """

    share: float
    largest: bool = True
    smallest: bool = False
    random: int = 0
    options: Mapping[str, int] = field(default_factory=lambda: {"": ALL})
    rate: float = 1.0
    sorts: bool = False


@dataclass(frozen=True)
class Recipe:
    """What a training run is made of beside the settings.

    Attributes:
        stages: in order.
        resolutions: `shared`: all networks of a step at one random resolution; `own`: each network
            at a random one, the max network at the largest.
        tilt: a step's random subnets are large or small as a whole: an option's chance is e^t times
            that of the next smaller one, t uniform in [-tilt, tilt]; 0: all options alike.
        labels: share of the labels in the loss of subnets; the rest is the teacher's answers.
        smoothing: of the teacher's answers.
        ramp: share of the steps with subnets over which the weight of their losses rises from 1/4
            to 1.
        frozen: whether the max network as it is after the first stage teaches; else as it is.
        restarts: whether each stage has a warm-up, a cosine and a momentum of its own.
        clip_norm: largest norm of all gradients of a step together; 0: each of their values is
            clipped at 1.
        ema: of the weights, which is what is kept in the end: share of the old average that stays
            in a step (less in the first steps); 0: the last weights are kept.
    """

    stages: tuple[Stage, ...]
    resolutions: Literal["shared", "own"] = "shared"
    tilt: float = 0.0
    labels: float = 0.0
    smoothing: float = 0.0
    ramp: float = 0.2
    frozen: bool = False
    restarts: bool = False
    clip_norm: float = 0.0
    ema: float = 0.0


def load(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: there is none; the message holds the nearest name.
    """
    module: Any = load_part(name, __name__, __path__, "recipe")
    recipe: Recipe = module.RECIPE
    return recipe
