"""Supernet training: the max network alone first, then the sandwich rule with distillation.

Sandwich rule and in-place distillation: BigNAS, arXiv 2003.11142. Training the largest network
alone for part of the run before shrinking: DepS, arXiv 2407.06167 (from the abstract; the ramp is
ours).

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
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.images import tensors
from hwnas.networks.space import Architecture
from hwnas.settings.config import FinetuneConfig, TrainConfig
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
from hwnas.supernet.processes import (
    agreed,
    average_gradients,
    join_processes,
    largest_of,
    stop_flag,
)
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


class Teacher(NamedTuple):
    """A network whose answers another one learns, beside the labels.

    Attributes:
        net: in evaluation mode; it is shown the images at its own resolution.
        weight: of its share in the loss of the network that learns from the labels too, whose
            share is 1.
    """

    net: Subnet
    weight: float


@dataclass(frozen=True)
class _Run:
    """A training run under way: what is trained, by whom, and whether to stop.

    Attributes:
        first: step to begin with.
        stop: set when this process was told to stop.
    """

    job: Job
    net: Supernet | Subnet
    optimizer: torch.optim.Optimizer
    first: int
    crew: _Crew
    stop: threading.Event
    teacher: Teacher | None


class _Batch(NamedTuple):
    """What one step trains: networks of one resolution, images and their labels."""

    archs: list[Architecture]
    images: Tensor
    labels: Tensor


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
    optimizer = _optimizer(net, job.config)
    if crew.rank == 0 and (kept := set_aside(job, network)):
        say(0.0, f"a checkpoint of other settings is kept as {kept.name}")
    agreed(False)  # no process reads a checkpoint before the first has set it aside
    first, known = restore(job, net, optimizer)
    with threads.limited(_threads(job, net, crew, known)), stop_flag() as stop:
        _loop(_Run(job, net, optimizer, first, crew, stop, teacher), say)
    if crew.rank == 0:
        job.checkpoint.unlink(missing_ok=True)
    return net


def _loop(run: _Run, say: Say) -> None:
    """Every step that is left, with a log entry and a checkpoint now and then."""
    job, plan = run.job, run.job.plan
    started = saved = time.monotonic()
    every = max(1, plan.steps // LOG_POINTS)
    batches = _batches(job, run.net, run.first, run.crew)
    streamed = isinstance(job.dataset.train, tensors.FileSplit)
    for step, batch in enumerate(tensors.ahead(batches) if streamed else batches, start=run.first):
        losses = _step(run, step, batch)
        last = step + 1 == plan.steps
        broken = not _learns(losses, job) or (last and not _finite(run.net))
        # A process that stops alone would leave the others waiting for its gradients.
        ending = largest_of(DIVERGED if broken else STOPPED if run.stop.is_set() else 0)
        if ending == DIVERGED:
            raise ConfigError(_diverged(job, step, losses))
        if run.crew.rank == 0 and ((step + 1) % every == 0 or last):
            _log(job, step, losses)
        pace = (time.monotonic() - started) / (step + 1 - run.first)
        left = pace * (plan.steps - step - 1)
        epoch = step // plan.per_epoch + 1
        say((step + 1) / plan.steps, f"epoch {epoch}/{job.config.epochs}, {_clock(left)} left")
        stopping = ending == STOPPED and not last
        due = time.monotonic() - saved > job.config.checkpoint_s and not last
        if run.crew.rank == 0 and (stopping or due):
            save_checkpoint(job, run.net, run.optimizer, step + 1)
            saved = time.monotonic()
        if stopping:
            raise KeyboardInterrupt


def _step(run: _Run, step: int, batch: _Batch) -> dict[str, float]:
    """Update the weights once; returns the losses by name."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(step, run.job.plan.steps, run.job.config)
    losses = _backward(run, step, batch)
    average_gradients(run.net, run.crew.world)
    nn.utils.clip_grad_value_(run.net.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return losses


def _learns(losses: Mapping[str, float], job: Job) -> bool:
    """Whether all losses are numbers, and that of the labels is not out of all proportion."""
    guessing = math.log(job.dataset.n_classes)
    finite = all(math.isfinite(loss) for loss in losses.values())
    return finite and losses["loss_max"] <= EXPLODED * guessing


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
        f"{losses['loss_max']:.3g}); lower {settings} and run the same command again. Nothing was "
        "written over: the last checkpoint and network, if there are any, are those from before"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Rate of a step: linear warm-up to the peak, then a cosine down to zero."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return float(config.learning_rate * 0.5 * (1 + np.cos(np.pi * share)))


def sampled_architectures(job: Job, step: int) -> list[Architecture]:
    """The architectures of a step, max network first, all at one resolution."""
    space, plan = job.space, job.plan
    rng = np.random.default_rng([job.config.seed, step, 1])
    top = space.genome([space.largest])[0]
    rows = [top]
    if step >= plan.max_only:
        rows.append(np.zeros_like(top))
        rows += list(space.sample(job.config.random_subnets, rng))
    genome = np.array(rows)
    genome[:, space.columns["resolution"]] = rng.integers(len(space.resolutions))
    return space.architectures(genome)


def _batches(job: Job, net: Supernet | Subnet, first: int, crew: _Crew) -> Iterator[_Batch]:
    """What every step from the first on trains, in order."""
    for step in range(first, job.plan.steps):
        archs = sampled_architectures(job, step) if isinstance(net, Supernet) else [net.arch]
        yield _Batch(archs, *_images(job, step, archs[0].resolution, crew))


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


def _backward(run: _Run, step: int, batch: _Batch) -> dict[str, float]:
    """Add the gradients of one step's networks; returns their losses."""
    job, net = run.job, run.net
    largest, *others = batch.archs
    images = batch.images.to(tensors.compute_device())
    x = tensors.prepare(images, largest.resolution, job.dataset)
    logits = _answers(job, net, x, largest)
    answers = logits.detach()
    loss = _label_loss(job.config, logits, batch.labels)
    losses = {"loss_max": loss.item()}
    if run.teacher:
        teacher = run.teacher.net
        shown = tensors.prepare(images, teacher.arch.resolution, job.dataset)
        with torch.no_grad():
            answers = _answers(job, teacher, shown, teacher.arch)
        taught = _taught_loss(answers, logits)
        losses["loss_teacher"] = taught.item()
        loss = loss + run.teacher.weight * taught
    torch.autograd.backward(loss)
    factor = _subnet_factor(step, job.plan)
    for name, arch in zip(("min", *["random"] * len(others)), others, strict=False):
        loss = _taught_loss(answers, _answers(job, net, x, arch))
        torch.autograd.backward(factor * loss)
        losses[f"loss_{name}"] = loss.item()
    return losses


def _answers(job: Job, net: Supernet | Subnet, x: Tensor, arch: Architecture) -> Tensor:
    """Logits of an architecture of a supernet, or of a plain network."""
    with _precision(job.config):
        logits: Tensor = net(x, arch) if isinstance(net, Supernet) else net(x)
    return logits.float()


def _taught_loss(answers: Tensor, logits: Tensor) -> Tensor:
    """Cross entropy of a network's answers with those that it learns."""
    target = F.softmax(answers, dim=1)
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


def _subnet_factor(step: int, plan: Plan) -> float:
    """Weight of the subnets' losses: from 0.25 to 1 over the first fifth of the sandwich phase."""
    ramp = 0.2 * (plan.steps - plan.max_only)
    return min(1.0, 0.25 + 0.75 * (step - plan.max_only) / ramp) if ramp > 0 else 1.0


def _label_loss(config: TrainConfig, logits: Tensor, labels: Tensor) -> Tensor:
    labels = labels.to(logits.device)
    return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)


def _precision(config: TrainConfig) -> torch.autocast:
    device = tensors.compute_device().type
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; no decay on BatchNorm, biases and kernel transforms."""
    decayed = [p for n, p in net.named_parameters() if n.endswith("weight") and p.ndim > 1]
    kept = {id(p) for p in decayed}
    others = [p for p in net.parameters() if id(p) not in kept]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others},
    ]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)


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
        return _answers(job, trial, x, largest)

    shape = (job.config.batch_size, *job.space.input_shape(px))
    return threads.fastest(forward, shape, job.plan.steps, learns=True)


def _log(job: Job, step: int, losses: dict[str, float]) -> None:
    event = {
        "stage": "train",
        "step": step + 1,
        "epoch": round((step + 1) / job.plan.per_epoch, 3),
        "learning_rate": learning_rate(step, job.plan.steps, job.config),
        "threads": torch.get_num_threads(),
        **{name: round(value, 5) for name, value in losses.items()},
    }
    append_lines(job.folder / "events.jsonl", [event])
