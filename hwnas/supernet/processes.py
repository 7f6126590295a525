"""Processes that train one network together, started by torchrun: who there is, what all agree on.

Each takes its share of every batch; gradients are averaged. Without torchrun there is one process
and nothing here waits.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from hwnas.images import tensors
from profilers.errors import DeviceError


def join_processes() -> tuple[int, int]:
    """(rank, number of processes) as torchrun set them; joins the group the first time."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(tensors.compute_device())
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)  # its threads outlive Python otherwise
    return int(os.environ.get("RANK", "0")), world


def agreed(flag: bool) -> bool:
    """Whether the flag is true in any process; waits for all that train together.

    Raises:
        DeviceError: one of them ended.
    """
    return bool(largest_of(int(flag)))


def largest_of(number: int) -> int:
    """The largest number that any process gives; waits for all that train together.

    Raises:
        DeviceError: one of them ended.
    """
    if join_processes()[1] == 1:
        return number
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(number, device=device)
    _all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared.item())


def share_gradients(net: nn.Module, flags: Sequence[bool]) -> list[bool]:
    """Replace every gradient by its mean over the processes, who train the same networks: all of
    them in one exchange.

    Returns:
        for each flag, whether it is true in any process.

    Raises:
        DeviceError: one of them ended.
    """
    world = join_processes()[1]
    if world == 1:
        return list(flags)
    # Weights that this step's networks do not use have no gradient, in any process.
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    told = torch.tensor(flags, dtype=torch.float32, device=grads[0].device)
    bucket = torch.cat([*(grad.reshape(-1) for grad in grads), told])
    _all_reduce(bucket, distributed.ReduceOp.SUM)
    *means, told = torch.split(bucket, [*(grad.numel() for grad in grads), len(flags)])
    for grad, mean in zip(grads, means, strict=True):
        grad.copy_(mean.view_as(grad)).div_(world)
    return [value > 0 for value in told.tolist()]


def _all_reduce(shared: Tensor, operation: distributed.ReduceOp.RedOpType) -> None:
    try:
        distributed.all_reduce(shared, operation)
    except RuntimeError as error:  # what gloo and NCCL raise when a connection is lost
        raise DeviceError(
            "another process of this training ended; see what it said, then run the same command "
            "again"
        ) from error


@contextmanager
def stop_flag() -> Iterator[threading.Event]:
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
