"""Ordered dropout (NetAdaptV2, arXiv 2104.00031): networks of several widths in one pass.

Each part of a batch has widths and skipped blocks of its own: the largest network computes all
images, masks set what an image's network lacks to zero, and a BatchNorm takes its statistics from
the images that have the channel. Kernels and the resolution are one for all images of a step, as
masks cannot tell them apart. A prototype for the ladder; `hwnas` does not train like this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.images import tensors
from hwnas.networks.graph import INPUTS
from hwnas.networks.ops import Op
from hwnas.networks.placed import START
from hwnas.networks.space import RESOLUTION, Architecture
from hwnas.supernet import training
from hwnas.supernet.batches import batches_of
from hwnas.supernet.forward import FORWARD
from hwnas.supernet.network import Layer, Supernet, channels_last, layers_of
from hwnas.supernet.plan import learning_rate
from hwnas.supernet.state import State
from hwnas.supernet.step import Batch
from hwnas.tasks.classification import label_loss, taught_loss

PARTS = 8  # of a batch, each a network
LABELS = 0.5  # share of the labels where the largest network teaches, as in `sandwich`


def train(job: training.Job, taught: bool) -> Supernet:
    """A supernet of a run, trained by ordered dropout (see `steps`)."""
    torch.manual_seed(job.config.seed)
    net = channels_last(Supernet(job.space)).train()
    for _ in steps(job, net, taught):
        pass
    return net


def steps(job: training.Job, net: Supernet, taught: bool) -> Iterator[dict[str, float]]:
    """The loss of one step after another.

    Args:
        taught: each step trains the largest network by itself too, and it teaches the others;
            otherwise it is one of the parts, and all learn from the labels.
    """
    state = State.fresh(job, net)
    for step, batch in enumerate(batches_of(job, net, 0, (0, 1))):
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(step, job.plan.steps, job.config)
        teacher = _largest(job, net, batch) if taught else None
        frame, archs = drawn(job, step, taught)
        x = tensors.prepare(batch.images, frame.resolution, job.dataset)
        logits = answers(net, frame, archs, x)
        loss = label_loss(logits, batch.labels, job.config.label_smoothing)
        if teacher is not None:
            loss = LABELS * loss + (1 - LABELS) * taught_loss(teacher, logits, 0.0)
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 1.0)
        state.optimizer.step()
        state.optimizer.zero_grad()
        yield {"loss": loss.item()}


def _largest(job: training.Job, net: Supernet, batch: Batch) -> Tensor:
    """The largest network's answers, after its gradients were added."""
    x = tensors.prepare(batch.images, job.space.largest.resolution, job.dataset)
    logits: Tensor = net(x, job.space.largest)
    label_loss(logits, batch.labels, job.config.label_smoothing).backward()
    return logits.detach()


def drawn(job: training.Job, step: int, taught: bool) -> tuple[Architecture, list[Architecture]]:
    """The network that computes a step, and those of its parts: the smallest, random ones, and, if
    nobody teaches, the largest.
    """
    space, rng = job.space, np.random.default_rng([job.config.seed, step, 4])
    genome = space.sample(PARTS + 1, rng)
    names = [choice.name for choice in space.choices]
    shared = [n == RESOLUTION or n.endswith("kernel_size") for n in names]
    genome[:, shared] = genome[0, shared]
    free = ~np.array(shared)
    genome[0, free] = (space.n_options - 1)[free]
    genome[1, free] = 0
    if not taught:
        genome[2] = genome[0]
    frame, *archs = space.architectures(genome)
    return frame, archs


def answers(net: Supernet, frame: Architecture, archs: Sequence[Architecture], x: Tensor) -> Tensor:
    """(n, classes) logits of a batch whose parts go through networks of their own.

    Args:
        frame: holds all of them: their kernels and resolution, the largest widths, every block.
        archs: one for each part of the batch, in the order of its images.
        x: (n, *shape) prepared images.
    """
    sizes = [len(part) for part in np.array_split(np.arange(len(x)), len(archs))]
    owned = [{placed.slot: placed.op for placed in arch.ops} for arch in archs]
    outputs = {START: x}
    for slot, op, reads, _ in frame.ops:
        given = [outputs[name] for name in reads]
        ops = [own.get(slot) for own in owned]
        out = _through(op, layers_of(net, slot), given, ops, sizes)
        if None in ops:  # a skipped block gives what it was given
            has = _spread(torch.tensor([float(o is not None) for o in ops]), sizes)
            out = torch.where(has.view(-1, *(1,) * (out.ndim - 1)).bool(), out, given[0])
        outputs[slot] = out
    return outputs[slot]


def _through(
    op: Op, layers: nn.ModuleDict, given: list[Tensor], ops: list[Op | None], sizes: list[int]
) -> Tensor:
    """The output of an op whose parts have widths of their own."""
    widths = [{} if o is None else {p.name: p.shape[0] for p in o.graph.primitives} for o in ops]
    found, held = dict(zip(INPUTS, given, strict=False)), dict(layers.items())
    for p in op.graph.primitives:
        x = [found[name] for name in p.inputs]
        layer = held.get(p.name)
        counts = [width.get(p.name, 0) for width in widths]
        whole = all(count == p.shape[0] for count in counts)
        if layer is None or whole or "bias" not in p.weights:
            found[p.name] = layer(x, p) if layer else FORWARD[p.kind](p, x, {})
            continue
        kept = torch.arange(p.shape[0]) < _spread(torch.tensor(counts), sizes)[:, None]
        mask = kept.to(x[0].dtype).view(*kept.shape, *(1,) * (x[0].ndim - 2))
        normed = layer.kind == "batch_norm"
        found[p.name] = _norm(layer, x[0], mask) if normed else layer(x, p) * mask
    return found[p.name]


def _norm(layer: Layer, x: Tensor, mask: Tensor) -> Tensor:
    """A BatchNorm with statistics of the images that have a channel; zero for the others."""
    axes, inner = (0, *range(2, x.ndim)), tuple(range(2, x.ndim))
    n = mask.sum(axes).clamp(min=1) * x[0, 0].numel()
    shown = mask.flatten(1)
    mean = (x.sum(inner) * shown).sum(0) / n
    variance = ((x * x).sum(inner) * shown).sum(0) / n - mean * mean
    factor = layer.scale * torch.rsqrt(variance.clamp(min=0) + layer.eps)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    shift = layer.bias - mean * factor
    return torch.addcmul(mask * shift.view(shape), x, mask * factor.view(shape))


def _spread(values: Tensor, sizes: list[int]) -> Tensor:
    """(n,) the value of each image's part."""
    return torch.repeat_interleave(values, torch.tensor(sizes))
