"""pymoo's NSGA-II on our problems: with our vectorised costs, and network by network in Python.

The second is how notebooks on once-for-all are written: every candidate becomes a dictionary of
kernel sizes, expand ratios and depths, one forward pass of the predictor in torch, and one look-up
by text for each block.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from hwnas.networks.slots import op_tables
from hwnas.predictors.mlp import MlpPredictor
from hwnas.pricing import pareto
from hwnas.search.problem import Problem
from searching.problems import intercept, price, volume


def pymoo_nsga2(
    case: Problem, population: int, generations: int, seed: int
) -> tuple[float, np.ndarray]:
    """CPU time in s and (evaluations, m) costs in order, with pymoo's documented operators for
    integers and our vectorised costs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

    class Vectorised(PymooProblem):
        def __init__(self) -> None:
            top = case.space.n_options - 1
            super().__init__(n_var=len(top), n_obj=2, xl=np.zeros(len(top)), xu=top, vtype=int)
            self.seen: list[np.ndarray] = []

        def _evaluate(self, genome: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = case.evaluate(genome)
            self.seen.append(out["F"])

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    problem = Vectorised()
    return _timed(problem, algorithm, generations, seed), np.concatenate(problem.seen)


def one_by_one(case: Problem, population: int, generations: int, seed: int) -> float:
    """CPU time in s of pymoo's NSGA-II that evaluates one architecture at a time in Python.

    Uniform sampling, uniform crossover and a mutation that redraws a choice with probability 0.1,
    as OFA2's published notebook has them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.operators.crossover.ux import UX
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

    price_one = architecture_pricer(case)
    top, rng = case.space.n_options - 1, np.random.default_rng(seed)

    class OneByOne(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=len(top), n_obj=2, xl=np.zeros(len(top)), xu=top, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = price_one(x)

    class Redraw(Mutation):
        def _do(self, problem: Any, x: np.ndarray, **_: Any) -> np.ndarray:
            redrawn = rng.integers(0, top + 1, size=x.shape)
            return np.where(rng.random(x.shape) < 0.1, redrawn, x)

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=UX(prob=1.0),
        mutation=Redraw(prob=1.0),
        eliminate_duplicates=True,
    )
    return _timed(OneByOne(), algorithm, generations, seed)


def _timed(problem: Any, algorithm: Any, generations: int, seed: int) -> float:
    from pymoo.optimize import minimize

    start = time.process_time()
    minimize(problem, algorithm, ("n_gen", generations), seed=seed, verbose=False)
    return time.process_time() - start


def architecture_pricer(case: Problem) -> Any:
    """A function of option indices (n_choices,) that returns [error, latency_ms], in plain Python,
    dictionaries and one forward pass of torch for each architecture.
    """
    import torch

    space, model = case.space, case.metrics["error"]
    if not isinstance(model, MlpPredictor):
        raise TypeError("the error of this problem is no multi-layer predictor")
    layers: list[torch.nn.Module] = []
    for weight, bias in model.layers:
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = torch.from_numpy(weight.T), torch.from_numpy(bias)
        layers += [layer, torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1]).eval()
    column = {name: i for i, name in enumerate(model.features)}
    fixed, prices = _price_list(case)
    names = [choice.name for choice in space.choices]

    def latency(sample: dict[str, int]) -> float:
        px, total = sample["resolution"], 0.0
        for number, _stage in enumerate(space.family.stages, start=1):
            for block in range(1, sample[f"stage{number}.depth"] + 1):
                slot = f"stage{number}.block{block}"
                kernel, expand = sample[f"{slot}.kernel_size"], sample[f"{slot}.expand_ratio"]
                total += prices[f"{slot}-px:{px}-kernel:{kernel}-expand:{expand}"]
        return total + fixed[px]

    def evaluate(x: np.ndarray) -> list[float]:
        options = [choice.options[int(i)] for choice, i in zip(space.choices, x, strict=True)]
        sample = dict(zip(names, options, strict=True))
        for number, stage in enumerate(space.family.stages, start=1):
            for block in range(sample[f"stage{number}.depth"] + 1, stage.n_blocks + 1):
                sample[f"stage{number}.block{block}.kernel_size"] = 0
                sample[f"stage{number}.block{block}.expand_ratio"] = 0
        features = [0.0] * len(column)
        for name, value in sample.items():
            if value:
                features[column[f"{name}={value}"]] = 1.0
        with torch.no_grad():
            accuracy = float(net(torch.tensor([features]))[0, 0])
        return [1 - accuracy, latency(sample)]

    return evaluate


def _price_list(case: Problem) -> tuple[dict[int, float], dict[str, float]]:
    """Fixed latency by resolution, and latency of each block by a text key, as in a YAML table."""
    space, prices = case.space, {}
    fixed = {px: intercept(px) for px in space.resolutions}
    for slot, (columns, ops) in op_tables(space).items():
        kernel, expand = (space.columns.get(f"{slot}.{n}") for n in ("kernel_size", "expand_ratio"))
        for index in np.ndindex(ops.shape):
            options = {c: space.choices[c].options[i] for c, i in zip(columns, index, strict=True)}
            px, op = options[0], ops[index]
            if kernel is None or expand is None:
                fixed[px] += price(op)
            elif op is not None:
                key = f"{slot}-px:{px}-kernel:{options[kernel]}-expand:{options[expand]}"
                prices[key] = price(op)
    return fixed, prices


def front_volume(case: Problem, costs: np.ndarray) -> float:
    """Hypervolume of the non-dominated part of costs: a peer's archive of all it evaluated."""
    return volume(case, costs[pareto.non_dominated(costs)])
