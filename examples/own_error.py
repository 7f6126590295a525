"""A front of an error of your own over a shipped table, networks picked from it, and a CSV."""

import numpy as np

import hwnas

space = hwnas.load_space("tiny", resolutions=[8, 12])
table = hwnas.load_table("tiny/host.ort-cpu.fp32.b1.t1")


class Guess:
    """Stands for what you know of accuracy: bigger inputs and more options err less."""

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) of (n, n_choices) option indices."""
        return np.asarray(0.3 / (1.0 + genome.sum(axis=1)))


front = hwnas.search_front(space, table, Guess(), generations=30, population=40, seed=0)
for rule in ({"rule": "best"}, {"rule": "knee"}, {"budget": {"latency_ms": "60%"}}):
    for point in hwnas.pick(front, **rule):
        print(rule, point.id, f"{point.predicted['latency_ms']:.4f} ms")
print(hwnas.to_csv([front]).splitlines()[0][:60])
