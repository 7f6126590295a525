"""Networks as they are exported, run by ONNX Runtime on this machine, to measure their accuracy.

On CPUs that takes half the time of torch or less: BatchNorm is folded, activations are fused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hwnas.networks import onnx_graph
from hwnas.networks.space import Architecture
from hwnas.settings.targets import REFERENCE
from hwnas.supernet.network import Subnet, folded_weights
from profilers import runtimes
from profilers.schema import Target, write_atomic

BATCH = 32  # images of one inference


class Exported:
    """A network as it is exported, in place of its subnet.

    Args:
        arch: of the network.
        model: the file; its batch is the target's.
        target: how the engine runs it.
    """

    def __init__(self, arch: Architecture, model: bytes, target: Target) -> None:
        self.arch, self._batch = arch, target.batch
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_atomic(path, model)
            self._session = runtimes.load(REFERENCE).load(path, target)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """One empty parameter, on the CPU."""
        return iter([torch.nn.Parameter(torch.zeros(0))])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(n, n_classes) logits."""
        outputs = []
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch].contiguous().numpy()
            filled = np.concatenate([part, np.repeat(part[-1:], self._batch - len(part), axis=0)])
            outputs.append(self._session.run(filled)[: len(part)].copy())
        return torch.from_numpy(np.concatenate(outputs))


def exported(subnet: Subnet) -> Exported:
    """A calibrated subnet, with as many threads as torch has."""
    model = onnx_graph.build(subnet.arch.ops, folded_weights(subnet), BATCH)
    target = Target("host", REFERENCE, batch=BATCH, threads=torch.get_num_threads())
    return Exported(subnet.arch, onnx_graph.to_bytes(model), target)
