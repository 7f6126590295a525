"""Supernet training: the loop over the steps of a recipe, resumable to the same bits.

Every random draw is a function of (seed, step), so a run that was interrupted and resumed ends with
the same bits as one that was not. Under torchrun every process takes its share of each batch and
gradients are averaged once a step, after all subnets' backward passes; only the first process
writes files. Networks are trained on the GPU where there is one; images that are streamed from
files are read one step ahead.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import nn

from hwnas.images import tensors
from hwnas.settings.config import FinetuneConfig
from hwnas.supernet import depthwise, outset, threads
from hwnas.supernet.batches import batches_of
from hwnas.supernet.events import Events
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
    join_processes,
    share_gradients,
    stop_flag,
)
from hwnas.supernet.state import State
from hwnas.supernet.step import Batch, Step, Teacher, backward
from hwnas.supernet.watch import Watch
from profilers.errors import ConfigError

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
    "steps",
    "train",
]

LOG_POINTS = 100  # entries of events.jsonl over a whole run
EXPLODED = 100  # times the loss of guessing: no network that learns comes near it

Say = Callable[[float, str], None]  # (share done, what is going on)
Note = Callable[[str], None]


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
    events: Events


def _unheard(told: object) -> None:
    """What nobody reads."""


@overload
def train(
    job: Job,
    say: Say,
    network: Supernet | None = None,
    teacher: Teacher | None = None,
    note: Note = _unheard,
    save: Callable[[Supernet], object] = _unheard,
) -> Supernet: ...
@overload
def train(
    job: Job,
    say: Say,
    network: Subnet,
    teacher: Teacher | None = None,
    note: Note = _unheard,
    save: Callable[[Subnet], object] = _unheard,
) -> Subnet: ...
def train(
    job: Job,
    say: Say,
    network: Supernet | Subnet | None = None,
    teacher: Teacher | None = None,
    note: Note = _unheard,
    save: Callable[[Any], object] = _unheard,
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
        note: told what is worth keeping on the screen.
        save: keeps the trained network, in the first process; the checkpoint stays until it has.

    Returns:
        the trained network, in training mode, channels last.

    Raises:
        ConfigError: the loss exploded (the last checkpoint stays), a batch cannot be shared evenly
            by the processes that train together, a step does not fit in memory, or the recipe
            would take untrained weights as a teacher.
        KeyboardInterrupt: told to stop (Ctrl-C, SIGTERM); the state is in the checkpoint.
        FileFormatError: the checkpoint is damaged.
        DeviceError: another process that trained with this one ended; or no space is left for the
            checkpoint.
    """
    crew = _Crew(*join_processes())
    outset.check_shares(job, crew.world)
    outset.check_teacher(job, network)
    torch.manual_seed(job.config.seed)
    net: Supernet | Subnet = network or Supernet(job.space)
    channels_last(net).to(tensors.compute_device()).train()
    state = State.fresh(job, net)
    if crew.rank == 0 and (kept := set_aside(job, network)):
        say(0.0, f"a checkpoint of other settings is kept as {kept.name}")
    agreed(False)  # no process reads a checkpoint before the first has set it aside
    first, known = restore(job, state)
    outset.check_space(job, state, teacher is not None)
    if first and crew.rank == 0:
        note(f"training is resumed at {_epoch(job, first)}, step {first + 1} of {job.plan.steps}")
    count, summed = outset.way(job, net, crew.world, known)
    with (
        threads.limited(count),
        depthwise.split_gradients(summed),
        stop_flag() as stop,
        Events(job, first, crew.rank == 0) as events,
    ):
        share = first / job.plan.steps
        left = (1 - share) * outset.rehearse(job, net, crew.world)
        say(share, f"{_epoch(job, first)}, about {_clock(left)} left")
        _loop(_Run(job, state, first, crew, stop, teacher, events), say, note)
    state.finish()
    if crew.rank == 0:
        save(net)
        job.checkpoint.unlink(missing_ok=True)
    return net


def steps(job: Job, net: Supernet | Subnet) -> Iterator[dict[str, float]]:
    """The losses of one step after another, as `train` takes them; no file is written."""
    quiet = Events(job, 0, False)
    run = _Run(job, State.fresh(job, net), 0, _Crew(0, 1), threading.Event(), None, quiet)
    for step, batch in enumerate(batches_of(job, net, 0, (0, 1))):
        yield _step(run, step, batch)[0]


def _loop(run: _Run, say: Say, note: Note) -> None:
    """Every step that is left, with a log entry, a look and a checkpoint now and then."""
    job, plan, watch = run.job, run.job.plan, Watch(run.job)
    started = saved = time.monotonic()
    every = max(1, plan.steps // LOG_POINTS)
    batches = batches_of(job, run.state.net, run.first, (run.crew.rank, run.crew.world))
    streamed = isinstance(job.dataset.train, tensors.FileSplit)
    for step, batch in enumerate(tensors.ahead(batches) if streamed else batches, start=run.first):
        losses, broken, stopped = _step(run, step, batch)
        last = step + 1 == plan.steps
        if broken or (last and agreed(not _finite(run.state.net))):
            raise ConfigError(_diverged(job, step, losses))
        watch.note(step, losses)
        look = watch.due(step + 1)
        if run.crew.rank == 0 and ((step + 1) % every == 0 or last or look):
            images = min(job.config.batch_size, len(job.dataset.train))
            images_per_s = images * (step + 1 - run.first) / _since(started)
            seen = _look(run, watch, note if last else _unheard) if look else {}
            run.events.write(_event(run, step, {**losses, "images_per_s": images_per_s, **seen}))
        pace = _since(started) / (step + 1 - run.first)
        left = pace * (plan.steps - step - 1)
        say((step + 1) / plan.steps, f"{_epoch(job, step)}, {_clock(left)} left")
        stopping = stopped and not last
        due = time.monotonic() - saved > job.config.checkpoint_s and not last
        if run.crew.rank == 0 and (stopping or due):
            save_checkpoint(job, run.state, step + 1)
            saved = time.monotonic()
        if stopping:
            raise KeyboardInterrupt


def _step(run: _Run, step: int, batch: Batch) -> tuple[dict[str, float], bool, bool]:
    """Update the weights once.

    Returns:
        losses by name; whether they say, of any process, that nothing is learnt any more; whether
        any process was told to stop: one that stops alone would leave the others waiting.
    """
    job, state = run.job, run.state
    state.enter(job, step, run.teacher is not None)
    for group in state.optimizer.param_groups:
        group["lr"] = _rate(run, step)
    losses = _gradients(run, step, batch)
    broken, stopped = share_gradients(state.net, (not _learns(losses, job), run.stop.is_set()))
    if job.recipe.clip_norm:
        nn.utils.clip_grad_norm_(state.net.parameters(), job.recipe.clip_norm)
    else:
        nn.utils.clip_grad_value_(state.net.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.follow(step, job.recipe.ema)
    return losses, broken, stopped


def _gradients(run: _Run, step: int, batch: Batch) -> dict[str, float]:
    """Add the mean gradients of the parts of a batch; mean losses by name."""
    parts = run.job.config.accumulate
    cut = zip(batch.images.chunk(parts), batch.labels.chunk(parts), strict=True)
    losses = [
        backward(Step(run.job, run.state, run.teacher, Batch(batch.archs, *part), {}), step)
        for part in cut
    ]
    if parts > 1:
        for weight in run.state.net.parameters():
            if weight.grad is not None:
                weight.grad /= parts
    return {name: sum(of[name] for of in losses) / parts for name in losses[0]}


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


def _epoch(job: Job, step: int) -> str:
    return f"epoch {min(step, job.plan.steps - 1) // job.plan.per_epoch + 1}/{job.config.epochs}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _since(started: float) -> float:
    """Seconds, at least a microsecond."""
    return max(1e-6, time.monotonic() - started)


def _look(run: _Run, watch: Watch, note: Note) -> dict[str, Any]:
    """What the network as it would be kept now is worth; says if it has learnt too little."""
    found = watch.look(run.state.average or run.state.net)
    if warning := watch.too_early(found):
        note(f"warning: {warning}")
    return {"validation_loss": found.loss, "validation": found.accuracy}


def _event(run: _Run, step: int, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": "train",
        "step": step + 1,
        "epoch": round((step + 1) / run.job.plan.per_epoch, 3),
        "learning_rate": _rate(run, step),
        "threads": torch.get_num_threads(),
        "split_gradients": depthwise.in_use(),
        **{name: round(v, 5) if isinstance(v, float) else v for name, v in found.items()},
    }
