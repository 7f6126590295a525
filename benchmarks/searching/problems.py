"""Search problems of realistic shape and size; their values are modelled from fixed seeds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from search_cases import seed_of

from hwnas.networks.ops import Op
from hwnas.networks.space import SearchSpace
from hwnas.predictors.encoding import feature_names
from hwnas.predictors.mlp import MlpPredictor
from hwnas.pricing import pareto
from hwnas.pricing.links import MonotoneLink
from hwnas.pricing.terms import Terms, choice_terms
from hwnas.search import front
from hwnas.search.problem import Problem, make_problem, metrics_of
from hwnas.settings.config import SearchConfig

ERROR_RANGE = (0.2, 0.5)  # of the modelled error: max network, no block at all
TWO = ("error", "latency_ms")
THREE = (*TWO, "params")
HIDDEN = (400, 400, 400)  # of once-for-all's accuracy predictor
TAUGHT = 4000  # networks that the last layer is fitted to


def price(op: Op) -> float:
    """Modelled latency of an op, ms: its MACs times a factor of its own."""
    factor = np.random.default_rng(seed_of(op)).uniform(0.7, 1.5)
    return float(0.01 + 2e-8 * factor * op.macs)


def intercept(resolution: int) -> float:
    """Modelled latency besides the ops, ms."""
    return 1e-3 * resolution


def additive_problem(space: SearchSpace, objectives: tuple[str, ...] = TWO) -> Problem:
    """Error against costs, all sums (the error through a link)."""
    metrics = metrics_of(space, price, intercept, modelled_error(space))
    settings = SearchConfig.model_validate({"objectives": list(objectives)})
    return make_problem(space, settings, metrics)


def mlp_problem(space: SearchSpace) -> Problem:
    """Error by a network of once-for-all's size against latency that is a sum."""
    metrics = metrics_of(space, price, intercept, modelled_mlp(space))
    return make_problem(space, SearchConfig(), metrics)


def modelled_error(space: SearchSpace) -> Terms:
    """An error that falls with every option, each time by less."""
    rng = np.random.default_rng(0)
    kernels, expands = (
        [c for name, c in space.columns.items() if name.endswith(option)]
        for option in (".kernel_size", ".expand_ratio")
    )
    gain = np.zeros(space.option_values.shape)
    for columns, scale in ((kernels, 0.3), (expands, 1)):
        draws = rng.exponential(size=(len(columns), max(space.n_options[columns])))
        gain[columns, : draws.shape[1]] = scale * np.sort(draws, axis=1)
    gain[expands] += rng.exponential(size=(len(expands), 1))
    gain[0, : space.n_options[0]] = 3 * np.sort(rng.exponential(size=space.n_options[0]))
    terms = choice_terms(space, lambda c, o: -gain[c, space.choices[c].options.index(o)])
    low = float(terms.evaluate(space.genome([space.largest]))[0])
    knots, (best, worst) = np.linspace(low, 0, 33), ERROR_RANGE
    value = best + (worst - best) * np.expm1(3 * (1 - knots / low)) / np.expm1(3)
    return replace(terms, link=MonotoneLink(knots, value))


def modelled_mlp(space: SearchSpace) -> MlpPredictor:
    """A predictor of once-for-all's size: random hidden layers, and a last one fitted to the
    modelled error, so that it ranks networks as a trained one would and is no sum.
    """
    rng = np.random.default_rng(0)
    names = feature_names(space)
    sizes = (len(names), *HIDDEN)
    hidden = tuple(
        ((rng.normal(size=(a, b)) * np.sqrt(2 / a)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in itertools.pairwise(sizes)
    )
    identity = (np.eye(sizes[-1], dtype=np.float32), np.zeros(sizes[-1], np.float32))
    taught = space.sample(TAUGHT, rng)
    ends = np.repeat(space.genome([space.largest, space.smallest]), 50, axis=0)
    genome = np.concatenate((taught, ends))
    activations = _last_hidden(space, names, (*hidden, identity), genome)
    wanted = 1 - modelled_error(space).evaluate(genome)
    centre, mean = activations.mean(axis=0), wanted.mean()
    spread = activations - centre
    gram = spread.T @ spread + 1.0 * np.eye(spread.shape[1])
    weight = np.linalg.solve(gram, spread.T @ (wanted - mean))
    last = (weight[:, None].astype(np.float32), np.array([mean - centre @ weight], np.float32))
    return MlpPredictor(space, "", names, (*hidden, last), "random layers, the last one fitted")


def _last_hidden(
    space: SearchSpace, names: tuple[str, ...], layers: tuple, genome: np.ndarray
) -> np.ndarray:
    """(n, hidden) what the last layer is given."""
    from hwnas.predictors.encoding import encode

    x = encode(space, genome).astype(np.float32)
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    return x.astype(np.float64)


def volume(case: Problem, costs: np.ndarray) -> float:
    """Hypervolume of costs under the reference point of front.json."""
    largest = case.predict(case.space.genome([case.space.largest]))
    corner = {name: float(values[0]) for name, values in largest.items()}
    reference = front.reference_point(case.objectives, corner, case.space.n_classes)
    return pareto.hypervolume(costs, reference)
