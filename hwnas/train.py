"""Supernet training: the max network alone first, then the sandwich rule with in-place
distillation.

Sandwich rule and in-place distillation: BigNAS, arXiv 2003.11142. Training the largest network
alone
for part of the run before shrinking: DepS, arXiv 2407.06167 (from the abstract; the ramp is ours).

Every random draw is a function of (seed, step), so a run that was interrupted and resumed ends with
the same bits as one that was not. Under torchrun every process takes its share of each batch and
gradients are averaged once a step, after all subnets' backward passes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from hwnas import data
from hwnas.config import TrainConfig
from hwnas.space import Architecture, SearchSpace
from hwnas.supernet import Subnet, Supernet, channels_last
from profilers.errors import FileFormatError
from profilers.schema import append_lines, canonical_json, write_atomic

FORMAT = "hwnas-supernet-1"
CHECKPOINT_FORMAT = "hwnas-checkpoint-1"
LOG_POINTS = 100  # entries of events.jsonl over a whole run

Say = Callable[[float, str], None]  # (share done, what is going on)


class Plan(NamedTuple):
    """How many steps there are, in an epoch and with the max network alone."""

    steps: int
    per_epoch: int
    max_only: int


@dataclass(frozen=True)
class Job:
    """All that a training run is made of."""

    config: TrainConfig
    space: SearchSpace
    dataset: data.Dataset
    augment: str
    folder: Path

    @property
    def plan(self) -> Plan:
        """Steps of the run; the last, incomplete batch of an epoch is dropped."""
        per_epoch = max(1, len(self.dataset.train) // self.config.batch_size)
        steps = self.config.epochs * per_epoch
        return Plan(steps, per_epoch, round(self.config.max_only * steps))

    def identity(self, net: Supernet | Subnet) -> str:
        """Canonical text of what decides the result; a checkpoint of another run is not resumed."""
        settings = self.config.model_dump(mode="json", exclude={"checkpoint_s", "threads"})
        return canonical_json(
            {
                "train": settings,
                "augment": self.augment,
                "geometry": self.space.geometry,
                "offered": self.space.offered(),
                "network": "supernet" if isinstance(net, Supernet) else net.arch.to_json(),
                "data": self.dataset.fingerprint,
            }
        )

    @property
    def checkpoint(self) -> Path:
        """Where the state of an unfinished run is kept."""
        return self.folder / "train.checkpoint.safetensors"


def train(job: Job, say: Say, network: Subnet | None = None) -> Supernet | Subnet:
    """Train a supernet, or resume it from its checkpoint.

    Args:
        job: settings, space, data and folder (its events.jsonl is appended to).
        say: told the share done and a line of text, a few times a second at most.
        network: a plain network to train alone with the same schedule instead (its architecture's
            resolution is used throughout); None trains the supernet of the space.

    Returns:
        the trained network, in training mode, channels last.

    Raises:
        KeyboardInterrupt: told to stop (Ctrl-C, SIGTERM); the state is in the checkpoint.
    """
    rank, world = _join_processes()
    torch.manual_seed(job.config.seed)
    net: Supernet | Subnet = network or Supernet(job.space)
    channels_last(net).train()
    optimizer = _optimizer(net, job.config)
    first = _restore(job, net, optimizer)
    with _threads(job.config.threads), _stop_flag() as stop:
        _loop(job, net, optimizer, first, _Crew(rank, world), stop, say)
    job.checkpoint.unlink(missing_ok=True)
    return net


class _Crew(NamedTuple):
    """This process among those that train together."""

    rank: int
    world: int


def _loop(
    job: Job,
    net: Supernet | Subnet,
    optimizer: torch.optim.Optimizer,
    first: int,
    crew: _Crew,
    stop: threading.Event,
    say: Say,
) -> None:
    plan, started, saved = job.plan, time.monotonic(), time.monotonic()
    every = max(1, plan.steps // LOG_POINTS)
    for step in range(first, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, plan.steps, job.config)
        images, labels = _batch(job, step, crew)
        losses = _backward(job, net, step, images, labels)
        _average_gradients(net, crew.world)
        nn.utils.clip_grad_value_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = step + 1 == plan.steps
        if crew.rank == 0 and ((step + 1) % every == 0 or last):
            _log(job, step, losses)
        pace = (time.monotonic() - started) / (step + 1 - first)
        left = pace * (plan.steps - step - 1)
        epoch = step // plan.per_epoch + 1
        say((step + 1) / plan.steps, f"epoch {epoch}/{job.config.epochs}, {_clock(left)} left")
        stopping = stop.is_set() and not last
        if crew.rank == 0 and (
            stopping or (time.monotonic() - saved > job.config.checkpoint_s and not last)
        ):
            _save_checkpoint(job, net, optimizer, step + 1)
            saved = time.monotonic()
        if stopping:
            raise KeyboardInterrupt


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


def _batch(job: Job, step: int, crew: _Crew) -> tuple[Tensor, Tensor]:
    """This process's share of a step's augmented uint8 images and their labels."""
    epoch, position = divmod(step, job.plan.per_epoch)
    order = np.random.default_rng([job.config.seed, epoch, 2]).permutation(len(job.dataset.train))
    size = job.config.batch_size
    chosen = torch.from_numpy(
        order[position * size : (position + 1) * size][crew.rank :: crew.world]
    )
    generator = torch.Generator().manual_seed(
        int(np.random.default_rng([job.config.seed, step, 3, crew.rank]).integers(2**62))
    )
    split = job.dataset.train
    return data.augment(split.images[chosen], job.augment, generator), split.labels[chosen]


def _backward(
    job: Job, net: Supernet | Subnet, step: int, images: Tensor, labels: Tensor
) -> dict[str, float]:
    """Add the gradients of one step's networks; returns their losses."""
    if not isinstance(net, Supernet):
        x = _prepared(job, images, net.arch.resolution)
        with _precision(job.config):
            logits = net(x)
        loss = _label_loss(job.config, logits, labels)
        torch.autograd.backward(loss)
        return {"loss_max": loss.item()}
    largest, *others = sampled_architectures(job, step)
    x = _prepared(job, images, largest.resolution)
    with _precision(job.config):
        logits = net(x, largest)
    loss = _label_loss(job.config, logits, labels)
    torch.autograd.backward(loss)
    losses = {"loss_max": loss.item()}
    teacher = F.softmax(logits.detach().float(), dim=1)
    factor = _subnet_factor(step, job.plan)
    for name, arch in zip(("min", *["random"] * len(others)), others, strict=False):
        with _precision(job.config):
            student = F.log_softmax(net(x, arch).float(), dim=1)
        loss = -(teacher * student).sum(1).mean()
        torch.autograd.backward(factor * loss)
        losses[f"loss_{name}"] = loss.item()
    return losses


def _subnet_factor(step: int, plan: Plan) -> float:
    """Weight of the subnets' losses: from 0.25 to 1 over the first fifth of the sandwich phase."""
    ramp = 0.2 * (plan.steps - plan.max_only)
    return min(1.0, 0.25 + 0.75 * (step - plan.max_only) / ramp) if ramp > 0 else 1.0


def _prepared(job: Job, images: Tensor, resolution: int) -> Tensor:
    x = data.prepare(images, resolution, job.dataset)
    return x.contiguous(memory_format=torch.channels_last)


def _label_loss(config: TrainConfig, logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)


def _precision(config: TrainConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; no decay on BatchNorm, biases and kernel transforms."""
    decayed = [p for n, p in net.named_parameters() if n.endswith("weight") and p.ndim == 4]
    kept = {id(p) for p in decayed}
    others = [p for p in net.parameters() if id(p) not in kept]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others},
    ]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)


# ---- several processes -------------------------------------------------------------------------


def is_first_process() -> bool:
    """Whether this process writes the files: alone, or rank 0 of those that train together."""
    return os.environ.get("RANK", "0") == "0"


def _join_processes() -> tuple[int, int]:
    """(rank, number of processes) as torchrun set them; joins the group the first time."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return int(os.environ.get("RANK", "0")), world


def _average_gradients(net: nn.Module, world: int) -> None:
    if world == 1:
        return
    for parameter in net.parameters():
        if parameter.grad is None:  # not used by this step's networks
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad /= world


# ---- interruption and checkpoints --------------------------------------------------------------


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stop_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a run stops between two steps."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda *_: flag.set()) for s in signals]
    try:
        yield flag
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _save_checkpoint(
    job: Job, net: Supernet | Subnet, optimizer: torch.optim.Optimizer, step: int
) -> None:
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    about = {"format": CHECKPOINT_FORMAT, "step": step, "identity": job.identity(net)}
    write_atomic(job.checkpoint, _to_bytes(tensors, about))


def _restore(job: Job, net: Supernet | Subnet, optimizer: torch.optim.Optimizer) -> int:
    """Continue from the checkpoint of this very run, if there is one; returns the next step."""
    if not job.checkpoint.exists():
        return 0
    tensors, about = _read(job.checkpoint, CHECKPOINT_FORMAT)
    if about.get("identity") != job.identity(net):
        return 0  # of other settings, another space or other data
    net.load_state_dict({n[4:]: t for n, t in tensors.items() if n.startswith("net.")})
    for name, parameter in net.named_parameters():
        momentum = tensors.get(f"momentum.{name}")
        if momentum is not None:
            stored = torch.empty_like(parameter).copy_(momentum)  # keep the memory format
            optimizer.state[parameter]["momentum_buffer"] = stored
    return int(about["step"])


def save_supernet(net: Supernet, job: Job, path: Path) -> None:
    """Write the supernet with what is needed to use it: space, classes and input normalisation."""
    about = {
        "format": FORMAT,
        "space": net.space.name,
        "geometry": net.space.geometry,
        "in_channels": net.space.in_channels,
        "n_classes": net.space.n_classes,
        "resolutions": list(net.space.resolutions),
        "classes": list(job.dataset.class_names),
        "mean": list(job.dataset.mean),
        "std": list(job.dataset.std),
        "data": job.dataset.fingerprint,
        "train": job.config.model_dump(mode="json"),
    }
    write_atomic(path, _to_bytes(net.state_dict(), about))


def load_supernet(path: Path, space: SearchSpace) -> Supernet:
    """The supernet of a file, in evaluation mode, channels last.

    Raises:
        FileFormatError: missing, truncated, of another kind, or of another space.
    """
    tensors, about = _read(path, FORMAT)
    if about.get("geometry") != space.geometry:
        raise FileFormatError(
            f"{path} holds a supernet of space {about.get('space')!r} with another geometry than "
            f"{space.name!r} ({space.in_channels} channels, {space.n_classes} classes); train again"
        )
    net = Supernet(space)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise FileFormatError(f"{path} does not fit space {space.name}: {error}") from error
    channels_last(net).eval()
    return net


def _to_bytes(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    plain = {name: value.detach().contiguous() for name, value in sorted(tensors.items())}
    # One metadata key: with more, safetensors writes them in an order that differs between runs.
    return bytes(safetensors.torch.save(plain, {"hwnas": canonical_json(about)}))


def _read(path: Path, expected_format: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            about = json.loads((handle.metadata() or {}).get("hwnas", "{}"))
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; `hwnas train` writes it") from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise FileFormatError(
            f"{path} cannot be read ({error}); it is truncated or no checkpoint: delete it and "
            "train again"
        ) from error
    if about.get("format") != expected_format:
        raise FileFormatError(
            f"{path} has format {about.get('format')!r}, expected {expected_format!r}"
        )
    return tensors, about


def _log(job: Job, step: int, losses: dict[str, float]) -> None:
    event = {
        "stage": "train",
        "step": step + 1,
        "epoch": round((step + 1) / job.plan.per_epoch, 3),
        "learning_rate": learning_rate(step, job.plan.steps, job.config),
        **{name: round(value, 5) for name, value in losses.items()},
    }
    append_lines(job.folder / "events.jsonl", [event])
