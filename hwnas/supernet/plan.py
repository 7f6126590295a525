"""What each step of a run trains and how fast: a function of recipe, settings and step alone.

Every draw is made from (seed, step), so a run that was cut goes on as if it had not been. Imports
no torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwnas.networks.space import RESOLUTION, Architecture, SearchSpace
from hwnas.settings.config import TrainConfig
from hwnas.supernet.job import Job
from hwnas.supernet.recipes import ALL


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Rate of a step: linear warm-up to the peak, then a cosine down to zero."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return float(config.learning_rate * 0.5 * (1 + np.cos(np.pi * share)))


def rate_of(job: Job, step: int) -> float:
    """Learning rate of a step of a run, or of its stage where each has a cycle of its own."""
    plan = job.plan
    if not job.recipe.restarts:
        return learning_rate(step, plan.steps, job.config)
    number = plan.stage(step)
    first, end = plan.starts[number], plan.starts[number + 1]
    rate = job.recipe.stages[number].rate
    return rate * learning_rate(step - first, end - first, job.config)


def subnet_factor(job: Job, step: int) -> float:
    """Weight of the subnets' losses: from 0.25 to 1 over the first steps that have subnets."""
    stages = zip(job.plan.starts, job.recipe.stages, strict=False)
    first = next((start for start, stage in stages if stage.smallest or stage.random), 0)
    ramp = job.recipe.ramp * (job.plan.steps - first)
    return min(1.0, 0.25 + 0.75 * (step - first) / ramp) if ramp > 0 else 1.0


def sampled_architectures(job: Job, step: int) -> dict[str, list[Architecture]]:
    """The networks that a step trains, by their role: `max`, `min`, `random`, in this order."""
    space, recipe = job.space, job.recipe
    stage = recipe.stages[job.plan.stage(step)]
    rng = np.random.default_rng([job.config.seed, step, 1])
    n_random = stage.random * job.config.random_subnets
    counts = {"max": int(stage.largest), "min": int(stage.smallest), "random": n_random}
    tilt = rng.uniform(-recipe.tilt, recipe.tilt, sum(counts.values()))
    roles = [role for role, n in counts.items() for _ in range(n)]
    is_max, is_min = (np.array([role == name for role in roles]) for name in ("max", "min"))
    tilt[is_min] = -recipe.tilt
    genome = tilted_sample(space, stage.options, tilt, rng)
    genome[is_max] = space.n_options - 1
    inner = np.arange(genome.shape[1]) != space.columns[RESOLUTION]
    genome[np.ix_(is_min, inner)] = 0
    if recipe.resolutions == "shared":
        genome[:, ~inner] = rng.integers(len(space.resolutions))
    archs = iter(space.architectures(genome))
    return {role: [next(archs) for _ in range(n)] for role, n in counts.items() if n}


def tilted_sample(
    space: SearchSpace, options: Mapping[str, int], tilt: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_choices) genomes: an option's chance is e^tilt times that of the next smaller one.

    Args:
        options: how many of the largest options are drawn from, by the kind of choice; "": of
            kinds that are not named.
        tilt: (n,).
    """
    kinds = [choice.name.split(".")[-1] for choice in space.choices]
    most = [options.get(kind, options.get("", ALL)) for kind in kinds]
    most[space.columns[RESOLUTION]] = ALL
    width = np.arange(space.n_options.max())
    lowest = space.n_options - np.minimum(most, space.n_options)
    offered = (width >= lowest[:, None]) & (width < space.n_options[:, None])
    # The largest of scores with Gumbel noise is drawn with a chance proportional to e^score.
    scores = tilt[:, None, None] * width + rng.gumbel(size=(len(tilt), *offered.shape))
    return np.asarray(np.where(offered, scores, -np.inf).argmax(2))
