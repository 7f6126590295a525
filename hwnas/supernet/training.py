"""Supernet training: the loop over the steps of a recipe, resumable to the same bits.

Every random draw is a function of (seed, step), so a run that was interrupted and resumed ends with
the same bits as one that was not. Under torchrun every process takes its share of each batch and
gradients are averaged once a step, after all subnets' backward passes; only the first process
writes files. Networks are trained on the GPU where there is one; images that are streamed from
files are read one step ahead.
"""

from __future__ import annotations

import copy
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.images import tensors
from hwnas.settings.config import FinetuneConfig
from hwnas.supernet import threads
from hwnas.supernet.files import (
    load_supernet,
    restore,
    save_checkpoint,
    save_supernet,
    set_aside,
)
from hwnas.supernet.job import Job, Plan
from hwnas.supernet.network import Subnet, Supernet, channels_last
from hwnas.supernet.plan import learning_rate, rate_of, sampled_architectures
from hwnas.supernet.processes import (
    agreed,
    average_gradients,
    join_processes,
    largest_of,
    stop_flag,
)
from hwnas.supernet.state import State
from hwnas.supernet.step import Batch, Step, Teacher, answer, backward
from profilers.errors import ConfigError
from profilers.schema import append_lines

__all__ = [
    "Job",
    "Plan",
    "Teacher",
    "agreed",
    "join_processes",
    "learning_rate",
    "load_supernet",
    "sampled_architectures",
    "save_supernet",
    "set_aside",
    "train",
]

LOG_POINTS = 100  # entries of events.jsonl over a whole run
EXPLODED = 100  # times the loss of guessing: no network that learns comes near it
STOPPED, DIVERGED = 1, 2  # why a process ends its run early; the larger one counts

Say = Callable[[float, str], None]  # (share done, what is going on)


@dataclass(frozen=True)
class _Crew:
    """This process among those that train together."""

    rank: int
    world: int


@dataclass(frozen=True)
class _Run:
    """A training run under way: what is trained, by whom, and whether to stop.

    Attributes:
        first: step to begin with.
        stop: set when this process was told to stop.
        teacher: of somebody else.
    """

    job: Job
    state: State
    first: int
    crew: _Crew
    stop: threading.Event
    teacher: Teacher | None


@overload
def train(
    job: Job, say: Say, network: Supernet | None = None, teacher: Teacher | None = None
) -> Supernet: ...
@overload
def train(job: Job, say: Say, network: Subnet, teacher: Teacher | None = None) -> Subnet: ...
def train(
    job: Job, say: Say, network: Supernet | Subnet | None = None, teacher: Teacher | None = None
) -> Supernet | Subnet:
    """Train a supernet, or resume it from its checkpoint.

    A checkpoint of other settings is kept under another name (see `set_aside`).

    Args:
        job: settings, space, data and folder (its events.jsonl is appended to).
        say: told the share done and a line of text, a few times a second at most.
        network: a supernet to train on, or a plain network to train alone with the same schedule
            (its architecture's resolution is used throughout); None: a fresh supernet of the space.
        teacher: of a plain network, or of all networks of a supernet, the largest of which learns
            from the labels too; None: labels only, and a supernet's others learn from its largest.

    Returns:
        the trained network, in training mode, channels last.

    Raises:
        ConfigError: the loss exploded (the last checkpoint stays), or a batch cannot be shared
            evenly by the processes that train together.
        KeyboardInterrupt: told to stop (Ctrl-C, SIGTERM); the state is in the checkpoint.
        FileFormatError: the checkpoint is damaged.
        DeviceError: another process that trained with this one ended.
    """
    crew = _Crew(*join_processes())
    if job.config.batch_size % crew.world:  # shares of other sizes would weigh images differently
        raise ConfigError(
            f"batch_size {job.config.batch_size} cannot be shared by {crew.world} processes; set a "
            f"multiple of {crew.world}"
        )
    torch.manual_seed(job.config.seed)
    net: Supernet | Subnet = network or Supernet(job.space)
    channels_last(net).to(tensors.compute_device()).train()
    state = State.fresh(job, net)
    if crew.rank == 0 and (kept := set_aside(job, network)):
        say(0.0, f"a checkpoint of other settings is kept as {kept.name}")
    agreed(False)  # no process reads a checkpoint before the first has set it aside
    first, known = restore(job, state)
    with threads.limited(_threads(job, net, crew, known)), stop_flag() as stop:
        _loop(_Run(job, state, first, crew, stop, teacher), say)
    state.finish()
    if crew.rank == 0:
        job.checkpoint.unlink(missing_ok=True)
    return net


def _loop(run: _Run, say: Say) -> None:
    """Every step that is left, with a log entry and a checkpoint now and then."""
    job, plan = run.job, run.job.plan
    started = saved = time.monotonic()
    every = max(1, plan.steps // LOG_POINTS)
    batches = _batches(job, run.state.net, run.first, run.crew)
    streamed = isinstance(job.dataset.train, tensors.FileSplit)
    for step, batch in enumerate(tensors.ahead(batches) if streamed else batches, start=run.first):
        losses = _step(run, step, batch)
        last = step + 1 == plan.steps
        broken = not _learns(losses, job) or (last and not _finite(run.state.net))
        # A process that stops alone would leave the others waiting for its gradients.
        ending = largest_of(DIVERGED if broken else STOPPED if run.stop.is_set() else 0)
        if ending == DIVERGED:
            raise ConfigError(_diverged(job, step, losses))
        if run.crew.rank == 0 and ((step + 1) % every == 0 or last):
            _log(run, step, losses)
        pace = (time.monotonic() - started) / (step + 1 - run.first)
        left = pace * (plan.steps - step - 1)
        epoch = step // plan.per_epoch + 1
        say((step + 1) / plan.steps, f"epoch {epoch}/{job.config.epochs}, {_clock(left)} left")
        stopping = ending == STOPPED and not last
        due = time.monotonic() - saved > job.config.checkpoint_s and not last
        if run.crew.rank == 0 and (stopping or due):
            save_checkpoint(job, run.state, step + 1)
            saved = time.monotonic()
        if stopping:
            raise KeyboardInterrupt


def _step(run: _Run, step: int, batch: Batch) -> dict[str, float]:
    """Update the weights once; returns the losses by name."""
    job, state = run.job, run.state
    state.enter(job, step, run.teacher is not None)
    for group in state.optimizer.param_groups:
        group["lr"] = _rate(run, step)
    losses = backward(Step(job, state, run.teacher, batch, {}), step)
    average_gradients(state.net, run.crew.world)
    if job.recipe.clip_norm:
        nn.utils.clip_grad_norm_(state.net.parameters(), job.recipe.clip_norm)
    else:
        nn.utils.clip_grad_value_(state.net.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.follow(step, job.recipe.ema)
    return losses


def _rate(run: _Run, step: int) -> float:
    """Learning rate of a step; a network that is trained alone knows no stages."""
    if isinstance(run.state.net, Supernet):
        return rate_of(run.job, step)
    return learning_rate(step, run.job.plan.steps, run.job.config)


def _learns(losses: Mapping[str, float], job: Job) -> bool:
    """Whether all losses are numbers, none of them out of all proportion."""
    guessing = math.log(job.dataset.n_classes)
    return all(math.isfinite(loss) and loss <= EXPLODED * guessing for loss in losses.values())


def _finite(net: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in net.state_dict().values())


def _diverged(job: Job, step: int, losses: Mapping[str, float]) -> str:
    """What happened, and which setting to lower."""
    config = job.config
    part = "finetune" if isinstance(config, FinetuneConfig) else "train"
    settings = f"{part}.learning_rate (now {config.learning_rate:g})"
    if config.learning_rate * config.weight_decay > 0.1:  # decay alone multiplies the weights
        settings += f" and {part}.weight_decay (now {config.weight_decay:g})"
    return (
        f"training diverged at step {step + 1} of {job.plan.steps} (loss "
        f"{_worst(losses):.3g}); lower {settings} and run the same command again. Nothing was "
        "written over: the last checkpoint and network, if there are any, are those from before"
    )


def _worst(losses: Mapping[str, float]) -> float:
    return max(losses.values(), key=lambda loss: loss if math.isfinite(loss) else math.inf)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _batches(job: Job, net: Supernet | Subnet, first: int, crew: _Crew) -> Iterator[Batch]:
    """What every step from the first on trains, in order."""
    for step in range(first, job.plan.steps):
        archs = {"max": [net.arch]} if isinstance(net, Subnet) else sampled_architectures(job, step)
        px = max(arch.resolution for several in archs.values() for arch in several)
        yield Batch(archs, *_images(job, step, px, crew))


def _images(job: Job, step: int, resolution: int, crew: _Crew) -> tuple[Tensor, Tensor]:
    """This process's share of a step's augmented images and their labels."""
    epoch, position = divmod(step, job.plan.per_epoch)
    order = _order(job.config.seed, epoch, len(job.dataset.train))
    size = job.config.batch_size
    chosen = torch.from_numpy(
        order[position * size : (position + 1) * size][crew.rank :: crew.world]
    )
    generator = torch.Generator().manual_seed(
        int(np.random.default_rng([job.config.seed, step, 3, crew.rank]).integers(2**62))
    )
    split = job.dataset.train
    images = tensors.augmented(split, chosen, resolution, job.augment, generator)
    return images, split.labels[chosen]


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    """(n,) the images of an epoch in the order that they are trained in."""
    return np.random.default_rng([seed, epoch, 2]).permutation(n)


# ---- threads, interruption ---------------------------------------------------------------------


def _threads(job: Job, net: Supernet | Subnet, crew: _Crew, known: int) -> int:
    """CPU threads of this run: as asked for, else the fastest number.

    Sums may depend on the number, so a run that is resumed keeps its own.
    """
    if job.config.threads:
        return job.config.threads
    if known:
        return min(known, threads.usable())
    if crew.world > 1 or tensors.compute_device().type != "cpu":
        return torch.get_num_threads()
    trial = copy.deepcopy(net)
    px = max(job.space.resolutions) if isinstance(net, Supernet) else net.arch.resolution
    largest = job.space.architecture([px, *job.space.largest.values[1:]])

    def forward(x: Tensor) -> Tensor:
        return answer(job.config, trial, x, largest)

    shape = (job.config.batch_size, *job.space.input_shape(px))
    return threads.fastest(forward, shape, job.plan.steps, learns=True)


def _log(run: _Run, step: int, losses: dict[str, float]) -> None:
    job = run.job
    event = {
        "stage": "train",
        "step": step + 1,
        "epoch": round((step + 1) / job.plan.per_epoch, 3),
        "learning_rate": _rate(run, step),
        "threads": torch.get_num_threads(),
        **{name: round(value, 5) for name, value in losses.items()},
    }
    append_lines(job.folder / "events.jsonl", [event])
