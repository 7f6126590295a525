"""CPU threads of training and evaluation: as many as a few real steps are fastest with.

Threads wait for each other after every small operation. Where other programs want the CPUs as well,
a second thread may cost several times more than it gains; where a network is small it gains
nothing.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from profilers.cpus import usable_cpus

ROUNDS = 11  # steps timed with each number of threads, at most
BUDGET_S, BUDGET_SHARE = 1.0, 0.02  # of timing: seconds, or a share of the run where that is more
HOPELESS = 1.5  # a number whose step takes this many times the shortest one is not timed again
NEAR = 0.1  # fewer threads are taken where they are slower by less than this share


@contextmanager
def limited(wanted: int) -> Iterator[None]:
    """Run torch with a number of threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable() -> int:
    """Threads that may run at the same time: CPUs of this process, or OMP_NUM_THREADS of them."""
    cpus, asked = usable_cpus(), os.environ.get("OMP_NUM_THREADS", "")
    return min(cpus, int(asked)) if asked.isdigit() and int(asked) else cpus


def fastest(
    forward: Callable[[Tensor], Tensor], shape: tuple[int, ...], steps: float, learns: bool
) -> int:
    """The number of threads that a network runs fastest with, on noise.

    Args:
        forward: of a network that nobody needs: its statistics and gradients change.
        shape: of the input, (n, c, h, w) or (n, c, time).
        steps: how often the run will do this.
        learns: whether gradients are worked out too.
    """
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    x = noise.contiguous(memory_format=torch.channels_last) if noise.ndim == 4 else noise

    def timed(threads: int) -> float:
        with limited(threads), torch.set_grad_enabled(learns):
            started = time.perf_counter()
            y = forward(x)
            if learns:
                torch.autograd.backward(y.float().square().mean())
            return time.perf_counter() - started

    return choose(timed, _numbers(usable()), steps)


def choose(timed: Callable[[int], float], numbers: list[int], steps: float) -> int:
    """The number of threads to take.

    Args:
        timed: seconds of a step with a number of threads.
        numbers: of threads that may be taken, descending.
        steps: how many steps the run will take.
    """
    if len(numbers) == 1:
        return numbers[0]
    spent_s, seen = 0.0, dict[int, list[float]]()
    for number in numbers:
        warm, first = timed(number), timed(number)
        spent_s += warm + first
        seen[number] = [first]
        if first > HOPELESS * min(times[0] for times in seen.values()):
            break  # still fewer threads are slower still
    for _ in range(ROUNDS - 1):
        shortest = min(map(statistics.median, seen.values()))
        if spent_s > max(BUDGET_S, BUDGET_SHARE * steps * shortest):
            break
        for number, times in seen.items():
            if statistics.median(times) <= HOPELESS * shortest:
                times.append(timed(number))
                spent_s += times[-1]
    medians = {number: statistics.median(times) for number, times in seen.items()}
    limit = (1 + NEAR) * min(medians.values())
    return min(number for number, median in medians.items() if median <= limit)


def _numbers(most: int) -> list[int]:
    """All CPUs, then half as many, down to one."""
    numbers = [max(1, most)]
    while numbers[-1] > 1:
        numbers.append(numbers[-1] // 2)
    return numbers
