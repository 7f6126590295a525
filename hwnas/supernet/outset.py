"""What a training run looks at before its first step: what would fail later, and how fast it is.

Nothing here changes what is trained: trials run on a copy of the network and on noise.
"""

from __future__ import annotations

import copy
import shutil
import statistics
import time

import torch
from torch import Tensor

from hwnas.images import tensors
from hwnas.networks.space import RESOLUTION, Architecture
from hwnas.supernet import depthwise, threads
from hwnas.supernet.files import Known
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet
from hwnas.supernet.state import State
from hwnas.supernet.step import answer
from profilers.errors import ConfigError, DiskFullError

FORWARD_SHARE = 1 / 3  # of a training step


def check_shares(job: Job, world: int) -> None:
    """Refuse steps that the processes and their parts of a step cannot share evenly, or that leave
    one image to a part.

    Raises:
        ConfigError: images are too few, or the batch size is no multiple.
    """
    n, size, parts = len(job.dataset.train), job.config.batch_size, job.config.accumulate
    images = min(n, size)
    crew = f"{world} process" + ("es" if world > 1 else "")
    crew += f", in {parts} parts each (accumulate)" if parts > 1 else ""
    if images % (world * parts):  # shares of other sizes would weigh images differently
        what = f"batch_size {size}" if size <= n else f"{n} training images"
        raise ConfigError(
            f"{what} cannot be shared by {crew}; set a multiple of {world * parts} as batch_size, "
            "at most as many as there are images"
        )
    if (each := images // (world * parts)) < 2:
        raise ConfigError(
            f"a step of {images} image(s) leaves {each} to each of {crew}, and "
            "BatchNorm needs two; use fewer processes or parts, larger batches or more training "
            "images"
        )


def check_teacher(job: Job, network: Supernet | Subnet | None) -> None:
    """Refuse a recipe whose teacher would be a network that nothing has trained.

    Raises:
        ConfigError: fresh weights, and no step that trains the max network before they teach.
    """
    if network is None and job.recipe.frozen and not job.plan.starts[1]:
        raise ConfigError(
            f"recipe {job.config.recipe} learns from the max network as its first stage leaves it, "
            f"and max_only {job.config.max_only:g} leaves it untrained; leave max_only out, or set "
            "a larger share"
        )


def check_space(job: Job, state: State, taught: bool) -> None:
    """Refuse a run whose checkpoints do not fit on the disk.

    Args:
        taught: whether somebody else teaches, so that the run keeps no teacher.

    Raises:
        DiskFullError: too little is free.
    """
    frozen = job.recipe.frozen and not taught and isinstance(state.net, Supernet)
    copies = 2 + frozen + (state.average is not None)  # of the weights; 2: momentum
    values = state.net.state_dict().values()
    size = copies * sum(value.numel() * value.element_size() for value in values)
    folder = next(path for path in (job.folder, *job.folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if job.checkpoint.exists():  # it takes its share of the room already
        free += job.checkpoint.stat().st_size
    if free < 2 * size:
        raise DiskFullError(
            f"checkpoints of this training take {size / 1e6:.3g} MB, twice that while one replaces "
            f"another, and {folder} has {free / 1e6:.0f} MB free; free some space and run this "
            "again"
        )


def way(job: Job, net: Supernet | Subnet, world: int, known: Known) -> tuple[int, bool]:
    """CPU threads of this run, as asked for, else the fastest number; and whether gradients of
    depthwise weights are taken in parts (see `depthwise`).

    Sums depend on both, so a run that is resumed keeps its own.
    """
    alone = world == 1 and tensors.compute_device().type == "cpu"
    count = job.config.threads or min(known.threads, threads.usable())
    if not count:
        count = _fastest(job, net) if alone else torch.get_num_threads()
    if known.threads or not alone or job.config.precision != "fp32":
        return count, known.split_gradients
    with threads.limited(count):
        graphs = [placed.op.graph for placed in _ends(job, net)[0].ops]
        used = [p for graph in graphs for p in graph.primitives]
        return count, depthwise.is_faster(used, _shown(job), job.plan.steps)


def _fastest(job: Job, net: Supernet | Subnet) -> int:
    largest, trial = _ends(job, net)[0], copy.deepcopy(net)

    def forward(x: Tensor) -> Tensor:
        return answer(job.config, trial, x, largest)

    shape = (_shown(job), *job.space.input_shape(largest.resolution))
    return threads.fastest(forward, shape, job.plan.steps, learns=True)


def _shown(job: Job) -> int:
    """Images that go through a network at once, in a process that trains alone."""
    return job.config.batch_size // job.config.accumulate


def _ends(job: Job, net: Supernet | Subnet) -> list[Architecture]:
    """The largest and the smallest network at every resolution, the largest px first; of a plain
    network itself.
    """
    if isinstance(net, Subnet):
        return [net.arch]
    found, space = [], job.space
    for px in reversed(space.resolutions):
        for end in (space.largest, space.smallest):
            values = list(end.values)
            values[space.columns[RESOLUTION]] = px
            found.append(space.architecture(values))
    return found


def rehearse(job: Job, net: Supernet | Subnet, world: int) -> float:
    """Seconds that all steps of a run will take, about: by one dry step of each of `_ends`.

    Raises:
        ConfigError: a step does not fit in memory.
    """
    trial = copy.deepcopy(net)
    parts = job.config.accumulate
    images = min(job.config.batch_size, len(job.dataset.train)) // (world * parts)
    seconds = [parts * _dry_step(job, trial, arch, images) for arch in _ends(job, net)]
    if isinstance(net, Subnet):
        return job.plan.steps * seconds[0]
    return _all_steps(job, seconds[::2], seconds[1::2])


def _all_steps(job: Job, largest: list[float], smallest: list[float]) -> float:
    """Seconds of all steps, of those that the networks at both ends take at each resolution."""
    mean, low = statistics.mean((*largest, *smallest)), statistics.mean(smallest)
    top = largest[0] if job.recipe.resolutions == "own" else statistics.mean(largest)
    total, starts = 0.0, job.plan.starts
    for stage, first, end in zip(job.recipe.stages, starts[:-1], starts[1:], strict=True):
        step = top * (stage.largest or FORWARD_SHARE) + low * stage.smallest
        total += (end - first) * (step + mean * stage.random * job.config.random_subnets)
    return total


def _dry_step(job: Job, trial: Supernet | Subnet, arch: Architecture, images: int) -> float:
    """Seconds of forward and backward pass of a network on noise."""
    tensors.wait_for_device()
    started = time.perf_counter()
    try:
        noise = torch.rand(
            (images, *job.space.input_shape(arch.resolution)),
            generator=torch.Generator().manual_seed(0),
        ).to(tensors.compute_device())
        x = noise.contiguous(memory_format=torch.channels_last) if noise.ndim == 4 else noise
        logits = answer(job.config, trial, x, arch)
        labels = torch.zeros_like(job.dataset.train.labels[:images]).to(logits.device)
        torch.autograd.backward(job.dataset.task.label_loss(logits, labels, 0.0))
        tensors.wait_for_device()  # a GPU is told what to do and works on
    except (RuntimeError, MemoryError) as error:  # what torch raises where memory is short
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise ConfigError(
            f"a step of {images} images at {arch.resolution} {job.space.unit} does not fit in "
            "memory; raise accumulate, lower batch_size, or leave the largest resolutions out of "
            "space.resolutions"
        ) from error
    return time.perf_counter() - started
