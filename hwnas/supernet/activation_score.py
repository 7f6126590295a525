"""A score of untrained networks: how well their activations tell images apart, and how many there
are. Needs no labels and no training; a few training steps may come first.

NASWOT (Mellor et al. 2021, "Neural architecture search without training", from its authors' code):
with x the signs (batch, units) of all pre-activations, K = x x' + (1 - x)(1 - x)' counts units on
which two images agree, and the score is ln det K. DAS (arXiv 2212.12132, read in its abstract)
takes it apart into a distinguishing ability and a size. Since K has the number of units N on its
diagonal, with R = K / N

    ln det K = B ln N + ln det R,

exactly; D = ln det R <= 0 is the distinguishing ability used here. How the two are combined, and
the short training, are this project's. Scores of different resolutions are not to be mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.networks.ops import Op
from hwnas.networks.primitives import BENDS, GATES
from hwnas.networks.space import Architecture
from hwnas.supernet.network import Subnet, layers_of
from hwnas.tasks.classification import label_loss

RIDGE = 1e-6  # added to the diagonal of R, so that equal images give a finite score
LEARNING_RATE, MOMENTUM = 0.05, 0.9  # of the short training


@dataclass(frozen=True)
class ActivationScore:
    """The two parts of a network's score.

    Attributes:
        distinguishing: D = ln det R, 0 where every image has a pattern of its own that has nothing
            in common with the others; the more negative, the more alike.
        n_units: N, activation units, one for each place and channel.
        n_images: B, of the batch.
    """

    distinguishing: float
    n_units: int
    n_images: int

    @property
    def naswot(self) -> float:
        """ln det K = B ln N + D."""
        return self.n_images * float(np.log(self.n_units)) + self.distinguishing


# ---- kernel -------------------------------------------------------------------------------------


def score_of(signs: Sequence[np.ndarray]) -> ActivationScore:
    """The score of activation signs.

    Args:
        signs: of each activation layer (B, units), whether the pre-activation is positive.

    Raises:
        ValueError: no unit, fewer than two images, or layers of different batches.
    """
    sizes = {len(layer) for layer in signs}
    n_units = sum(layer.shape[1] for layer in signs)
    if len(sizes) != 1 or min(sizes) < 2 or not n_units:
        raise ValueError(
            f"signs of {len(signs)} layers with {n_units} units on {sorted(sizes)} images; give "
            "at least one unit and the same two images or more to every layer"
        )
    agreement = sum(_agreement(layer) for layer in signs)
    similarity = np.asarray(agreement) / n_units
    n = sizes.pop()
    _, distinguishing = np.linalg.slogdet(similarity + RIDGE * np.eye(n))
    return ActivationScore(float(distinguishing), n_units, n)


def _agreement(signs: np.ndarray) -> np.ndarray:
    """(B, B) on how many units two images agree."""
    # +-1: x x' is agreements minus differences; whole numbers, exact in float32 up to 2^24 units.
    x = np.asarray(signs, dtype=np.float32) * 2 - 1
    return np.asarray((x @ x.T + np.float32(x.shape[1])) / 2, dtype=np.float64)


# ---- networks -----------------------------------------------------------------------------------


def score(network: Subnet, images: Tensor) -> ActivationScore:
    """The score of a network as it is, its BatchNorm normalising by the batch.

    The signs are those of what an activation function is given (also h_swish) by one layer; gates
    and sums of two branches are left out.

    Args:
        network: its weights are left as they are; running statistics are not.
        images: (B, channels, px, px), prepared like those of an inference, all different.
    """
    signs: list[np.ndarray] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        signs.append((output > 0).flatten(1).numpy())

    hooks = [layer.register_forward_hook(keep) for layer in activated(network)]
    network.train()
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
        network.eval()
    bends_nothing = [np.zeros((len(images), 1), bool)]  # then all images are alike
    return score_of(signs or bends_nothing)


def activated(network: Subnet) -> Iterator[nn.Module]:
    """The layers of a network whose output goes into an activation function, but for those that
    only make a gate.
    """
    for slot, op, *_ in network.arch.ops:
        layers = layers_of(network, slot)
        made = {p.name: p for p in op.graph.primitives}
        gates = _making_gates(op)
        for p in made.values():
            source = p.inputs[0]
            if p.kind in BENDS and p.name not in gates and source in layers:
                yield layers[source]


def _making_gates(op: Op) -> set[str]:
    """Names of the primitives that nothing but a gate is made of."""
    found: set[str] = set()
    for p in reversed(op.graph.primitives):
        readers = [other for other in op.graph.primitives if p.name in other.inputs]
        if p.kind in GATES or (readers and all(other.name in found for other in readers)):
            found.add(p.name)
    return found


def fresh(arch: Architecture, seed: int) -> Subnet:
    """An untrained network; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Subnet(arch)


def train_shortly(
    network: Subnet,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor, float], Tensor] = label_loss,
) -> None:
    """A few steps of SGD, one a batch, changing the network: the short-training variant.

    Args:
        network: fresh, of the same seed for all networks that are compared.
        batches: images and labels, the same ones for all.
        loss: of a task.
    """
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    for images, labels in batches:
        optimizer.zero_grad()
        torch.autograd.backward(loss(network(images), labels, 0.0))
        optimizer.step()
    network.eval()


# ---- combinations -------------------------------------------------------------------------------


def naswot(scores: Sequence[ActivationScore], share: float = 1.0) -> np.ndarray:
    """(n,) D / B + share ln N of networks of one resolution, on the same images; more is better.
    NASWOT where the share is 1.
    """
    distinguishing = np.array([s.distinguishing / s.n_images for s in scores])
    return np.asarray(distinguishing + share * np.log([s.n_units for s in scores]))


def summed_ranks(scores: Sequence[ActivationScore]) -> np.ndarray:
    """(n,) rank of D plus rank of N: free of scale."""
    distinguishing, n_units = zip(*[(s.distinguishing, s.n_units) for s in scores], strict=True)
    return np.asarray(_ranks(np.array(distinguishing)) + _ranks(np.array(n_units)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """(n,) mean place of each value, ascending from 0; equal values share one."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[group])
