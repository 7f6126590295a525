"""Workers of a Dask cluster that measure subnets: those that offer the resource `evaluate`.

Weights and the images that are needed go there by value, once for each worker. The scheduler gives
a worker one network at a time for each `evaluate` that it offers, and gives it to another worker
where one is lost. Needs the extra `cluster`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from hwnas.measuring.connections import cluster
from hwnas.networks.space import Architecture
from hwnas.supernet.evaluation import Evaluator, Tally, unpacked

OFFER = cluster.Offer("evaluate", "offers", "where hwnas is installed")


@contextlib.contextmanager
def workers(address: str, evaluator: Evaluator, threads: int) -> Iterator[Workers]:
    """Workers that measure subnets.

    Args:
        address: of the scheduler, which is called for the first network.
        evaluator: supernet and images.
        threads: of each measurement.
    """
    with contextlib.ExitStack() as held:
        yield Workers(address, evaluator, threads, held)


class Workers:
    """A `Farm` of the workers of a cluster; see `workers`."""

    room = True  # the scheduler keeps what nobody can take yet

    def __init__(
        self, address: str, evaluator: Evaluator, threads: int, held: contextlib.ExitStack
    ) -> None:
        self._address, self._evaluator, self._threads = address, evaluator, threads
        self._held, self._client, self._there = held, None, None
        self._sent: dict[Any, Architecture] = {}

    def send(self, arch: Architecture, tally: Tally) -> None:
        """As of `Farm`; nothing is noted down."""
        if self._client is None:
            self._client = self._held.enter_context(cluster.connected(self._address))
            with warnings.catch_warnings():  # of its size: it is sent once
                warnings.simplefilter("ignore", UserWarning)
                self._there = self._submit(_unpack, self._evaluator.packed())
        future = self._submit(_measure, self._there, arch.to_json(), self._threads)
        self._sent[future] = arch

    def receive(self) -> tuple[Architecture, float]:
        """As of `Farm`."""
        future = cluster.first_done(self._client, list(self._sent), OFFER)
        arch = self._sent.pop(future)
        return arch, float(cluster.result(future, f"the workers that measured network {arch.id}"))

    def _submit(self, task: Any, *given: Any) -> Any:
        return cluster.submit(self._client, OFFER, task, *given)


def _unpack(packed: bytes) -> Evaluator:
    return unpacked(io.BytesIO(packed))


def _measure(evaluator: Evaluator, arch: Mapping[str, Any], threads: int) -> float:
    torch.set_num_threads(threads)  # of this thread
    return evaluator.measure(evaluator.supernet.space.from_json(arch))
