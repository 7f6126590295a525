"""The supernet and its subnets, for the stages that compute with torch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.run import imported
from hwnas.run.context import Context
from hwnas.run.data import checked_dataset
from hwnas.supernet import cluster, threads, workers
from hwnas.supernet.evaluation import Evaluator, Farm, Measurer
from hwnas.supernet.files import load_supernet
from hwnas.supernet.network import Subnet, channels_last, extract
from profilers.schema import sha256_file

TRIAL = 32  # images of a forward pass that is timed to choose the threads
NOISE_IMAGES = 8  # on which torch and the exported file are compared where there are no images


def make_evaluator(context: Context) -> Evaluator:
    """The trained supernet with the images of its subnets' calibration and measurement."""
    imported.need_images(context.config, imported.UNMEASURED)
    config, run = context.config, context.run
    supernet = load_supernet(imported.need_weights(run), context.space)
    images = checked_dataset(context)
    found = Evaluator(supernet, images, config.accuracy, sha256_file(run.supernet))
    passes = config.accuracy.measure * (len(found.validation) + config.accuracy.bn_images)
    torch.set_num_threads(config.train.threads or _threads(context.space, passes))
    return found


@contextlib.contextmanager
def measuring(context: Context, evaluator: Evaluator) -> Iterator[Measurer]:
    """What measures the subnets of a run: this process, several, or the workers of a cluster."""
    config, own = context.config.accuracy, context.config.train.threads
    with contextlib.ExitStack() as held:
        farm: Farm | None = None
        if config.cluster:
            farm = held.enter_context(cluster.workers(config.cluster, evaluator, own or 1))
        elif config.workers > 1:
            each = max(1, (own or threads.usable()) // config.workers)
            each = min(each, torch.get_num_threads())  # more than are fastest gain nothing
            farm = held.enter_context(workers.processes(evaluator, config.workers, each))
        yield Measurer(evaluator, context.run.accuracies, farm)


@functools.lru_cache(maxsize=1)
def _threads(space: SearchSpace, passes: int) -> int:
    """How many CPU threads measure subnets fastest, for a number of forward passes of one image."""
    if tensors.compute_device().type != "cpu":
        return torch.get_num_threads()
    with torch.random.fork_rng(devices=()):  # any weights do, and other draws must not change
        net = channels_last(Subnet(space.largest).eval())
    px = space.largest.resolution
    shape = (TRIAL, *space.input_shape(px))
    return threads.fastest(net, shape, passes / TRIAL, learns=False)


def subnet(context: Context, evaluator: Evaluator, arch: Architecture) -> Subnet:
    """A network of the supernet, its BatchNorm calibrated or, if asked for, as imported."""
    if context.config.export.statistics == "imported":
        return channels_last(extract(evaluator.supernet, arch))
    return evaluator.subnet(arch)


def evaluator(context: Context) -> Evaluator:
    """The supernet with the images, or with noise where there are none.

    Raises:
        ConfigError: packages may not be made: see `imported.check_statistics`.
    """
    imported.check_statistics(context.config, context.run)
    if imported.has_images(context.config):
        return make_evaluator(context)
    path, about = imported.need_weights(context.run), context.data
    px = max(context.space.resolutions)
    shape = (NOISE_IMAGES, about["channels"], px, px)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    noise = tensors.Split(torch.from_numpy(pixels), torch.zeros(NOISE_IMAGES, dtype=torch.int64))
    mean, std = (tuple(about[key]) for key in ("mean", "std"))
    images = tensors.Dataset(noise, noise, noise, tuple(about["classes"]), mean, std, "")
    supernet = load_supernet(path, context.space)
    return Evaluator(supernet, images, context.config.accuracy, sha256_file(path))
