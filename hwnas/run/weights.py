"""Where the weights of a package come from: a subnet of the supernet, and its statistics."""

from __future__ import annotations

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.networks.space import Architecture
from hwnas.run import imported
from hwnas.run.context import Context, need
from hwnas.run.evaluate import make_evaluator
from hwnas.supernet.evaluation import Evaluator
from hwnas.supernet.files import load_supernet
from hwnas.supernet.network import Subnet, channels_last, extract
from profilers.schema import sha256_file

NOISE_IMAGES = 8  # on which torch and the exported file are compared where there are no images


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
    path, about = need(context.run.supernet, "import-ofa"), context.data
    px = max(context.space.resolutions)
    shape = (NOISE_IMAGES, about["channels"], px, px)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    noise = tensors.Split(torch.from_numpy(pixels), torch.zeros(NOISE_IMAGES, dtype=torch.int64))
    mean, std = (tuple(about[key]) for key in ("mean", "std"))
    images = tensors.Dataset(noise, noise, noise, tuple(about["classes"]), mean, std, "")
    supernet = load_supernet(path, context.space)
    return Evaluator(supernet, images, context.config.accuracy, sha256_file(path))
