"""Small search problems with a known answer, shared by the tests of search."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import numpy as np

from hwnas.networks import spaces
from hwnas.networks.families.mbv3 import Stage
from hwnas.networks.ops import Op
from hwnas.networks.slots import op_tables
from hwnas.networks.space import SearchSpace
from hwnas.pricing import pareto
from hwnas.pricing.exact_sums import on_grid
from hwnas.pricing.links import MonotoneLink
from hwnas.pricing.terms import Terms, choice_terms
from hwnas.search import searchers
from hwnas.search.archive import Population
from hwnas.search.problem import Problem, make_problem, metrics_of
from hwnas.settings.config import SearchConfig

TINY = spaces.load("tiny")
DEPTHS = SearchSpace(  # 2 x (2 + 4) x (4 + 8) = 144 networks
    name="depths",
    resolutions=(8, 12),
    profiled=(8, 12),
    family=dataclasses.replace(
        TINY.family,
        stages=(
            Stage(12, 2, 1, "relu", False, (3,), (2, 3), depths=(1, 2)),
            Stage(24, 3, 2, "h_swish", True, (3,), (2, 3), depths=(2, 3)),
        ),
    ),
)


def of_family(space: SearchSpace, **changes) -> SearchSpace:
    """The space with something of its family changed."""
    return dataclasses.replace(space, family=dataclasses.replace(space.family, **changes))


RESNET = spaces.load("ofa-resnet50d").restricted([128, 224])
TCN = spaces.load("tcn-128")


def enumerate_space(space: SearchSpace) -> np.ndarray:
    """(size, n_choices) one genome of every network of a space."""
    indices = [range(len(choice.options)) for choice in space.choices]
    genome = np.array(list(itertools.product(*indices)), dtype=np.int64)
    _, first = np.unique(space.canonical(genome), axis=0, return_index=True)
    return genome[np.sort(first)]


def random_space(rng: np.random.Generator) -> SearchSpace:
    """A space of a shipped family, of at most some thousand networks: depths, absent blocks,
    elastic widths and dilations.
    """
    return (random_blocks, random_blocks, _widths, _series)[rng.integers(4)](rng)


def random_blocks(rng: np.random.Generator) -> SearchSpace:
    """Of inverted residuals."""
    gated, stages = bool(rng.integers(2)), []
    for width in (12, 24)[: rng.integers(1, 3)]:
        n_blocks = int(rng.integers(1, 4))
        depths = tuple(range(int(rng.integers(1, n_blocks + 1)), n_blocks + 1)) if gated else ()
        kernels = ((3,), (3, 5))[rng.integers(2)]
        expands = ((2, 3), (2,))[rng.integers(2)]
        stages.append(Stage(width, n_blocks, 1, "relu", False, kernels, expands, depths=depths))
    return of_family(_sized(TINY, rng), stages=tuple(stages))


def _widths(rng: np.random.Generator) -> SearchSpace:
    n = int(rng.integers(1, 3))
    stages = tuple(
        replace(
            stage,
            n_blocks=n_blocks,
            depths=tuple(range(1, n_blocks + 1)),
            expand_percents=((20, 35), (25,))[rng.integers(2)],
            widths=stage.widths[: rng.integers(2, 4)],
        )
        for stage, n_blocks in zip(
            RESNET.family.stages[:n], rng.integers(1, 3 if n > 1 else 4, n).tolist(), strict=True
        )
    )
    stem = RESNET.family.stem
    stem = replace(stem, widths=stem.widths[: rng.integers(1, 3)])
    return of_family(RESNET.restricted([128]), stem=stem, stages=stages)


def _series(rng: np.random.Generator) -> SearchSpace:
    stages = tuple(
        replace(
            stage,
            depths=(1, 2)[: rng.integers(1, 3)],
            kernel_sizes=(2, 3)[: rng.integers(1, 3)],
            dilations=(1, 2)[: rng.integers(1, 3)],
        )
        for stage in TCN.family.stages[: rng.integers(1, 3)]
    )
    return of_family(_sized(TCN, rng), stages=stages)


def _sized(space: SearchSpace, rng: np.random.Generator) -> SearchSpace:
    sizes = ((8,), (8, 12))[rng.integers(2)]
    return replace(space, name="random", resolutions=sizes, profiled=sizes)


def seed_of(op: Op) -> list[int]:
    """A seed for an op: the text that ops were called by when these problems were chosen."""
    given = {
        "mid": 0,
        "kernel": 1,
        "stride": 1,
        "se": 0,
        "act": "none",
        "residual": 0,
        **dict(op.args),
    }
    if op.kind == "max-pool":
        given |= {"kernel": 3, "stride": 2}
    channels, size = op.inputs[0][0], op.inputs[0][-1]
    out = given.get("out", channels)
    text = (
        f"{op.kind.replace('-', '_')}(size={size},in={channels},mid={given['mid']},out={out},"
        f"kernel={given['kernel']},stride={given['stride']},se={given['se']},act={given['act']},"
        f"residual={int(given['residual'])})"
    )
    return list(text.encode())


def random_price(seed: int):
    """A price in ms for every op: near its MACs, but not a function of them."""

    def price(op: Op) -> float:
        noise = np.random.default_rng([seed, *seed_of(op)]).uniform(0.6, 1.6)
        return 1e-3 + 1e-6 * noise * op.macs

    return price


def random_terms(space: SearchSpace, rng: np.random.Generator) -> Terms:
    """Terms of any sign: of every op at each combination of its choices, and of every option."""
    ops = tuple(
        (columns, np.where(table == None, 0.0, rng.normal(size=table.shape)))  # noqa: E711
        for columns, table in op_tables(space).values()
    )
    weights = rng.normal(size=space.option_values.shape)
    chosen = choice_terms(space, lambda c, o: weights[c, space.choices[c].options.index(o)])
    return Terms(space, ops + chosen.factors)


def error_terms(space: SearchSpace, rng: np.random.Generator) -> Terms:
    """A predicted error that falls with every option, bent by a monotone link, from about 0.04 to
    0.5.
    """
    kernels, expands = (
        [c for name, c in space.columns.items() if name.endswith(option)]
        for option in (".kernel_size", ".expand_ratio")
    )
    gains = np.zeros(space.option_values.shape)
    for columns, scale in ((kernels, 0.3), (expands, 1), ([0], 2)):
        draws = rng.exponential(size=(len(columns), max(space.n_options[columns])))
        gains[columns, : draws.shape[1]] = scale * np.sort(draws, axis=1)
    terms = choice_terms(space, lambda c, o: -gains[c, space.choices[c].options.index(o)])
    low = terms.evaluate(space.genome([space.largest]))[0]
    knots = np.linspace(low, 0, 9)
    return replace(terms, link=MonotoneLink(knots, 0.04 * 12 ** (1 - knots / low)))


class EntangledError:
    """A predicted error in which pairs of choices interact, so that it is no sum."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        self.terms = error_terms(space, rng)
        self.space = space
        self.pairs = rng.normal(size=(len(space.choices),) * 2)

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        value = self.space.canonical(genome) / self.space.option_values.max(axis=1)
        bend = np.tanh(((value @ self.pairs) * value).sum(axis=1) / len(self.pairs))
        return self.terms.evaluate(genome) * (1 + 0.3 * bend)


def problem(space: SearchSpace = TINY, seed: int = 0, error=None, **settings) -> Problem:
    """Error against latency, with random tables, under settings of the search."""
    error = error or error_terms(space, np.random.default_rng(seed))
    metrics = metrics_of(space, random_price(seed), lambda px: px * 1e-4, error)
    return make_problem(space, SearchConfig(**settings), metrics)


def reference(of: Problem) -> np.ndarray:
    """(m,) error of guessing, then 1.1 x what the max network costs."""
    largest = of.evaluate(of.space.genome([of.space.largest]))[0]
    return np.array([0.9, *(1.1 * largest[1:])])


def grid_price(seed: int):
    """`random_price` on the grid of sums, so that adding it up is exact."""
    price = random_price(seed)
    return lambda op: float(on_grid(price(op)))


def settings(name="nsga2", population=20, rounds=10, **more) -> SearchConfig:
    """Settings of a short search."""
    return SearchConfig(algorithm=name, population=population, generations=rounds, **more)


def true_front(of: Problem) -> np.ndarray:
    """(n, m) every non-dominated feasible value, by enumeration, each once."""
    genome = enumerate_space(of.space)
    costs = of.evaluate(genome)[of.violation(genome) == 0]
    return np.unique(costs[pareto.non_dominated(costs)], axis=0)


def share_of_true(of: Problem, front: Population, true: np.ndarray) -> float:
    """Hypervolume of a front as a share of the true front's."""
    corner = reference(of)
    return pareto.hypervolume(front.costs, corner) / pareto.hypervolume(true, corner)


def shares_of_true(name: str, tangled: bool, n_seeds: int, **more) -> list[float]:
    """Hypervolume shares that a searcher reaches with 500 evaluations of `tiny`, a twentieth of its
    networks: 3 problems, n_seeds searches each, not started from the exact front.
    """
    shares = []
    for instance in range(3):
        error = EntangledError(TINY, np.random.default_rng(instance)) if tangled else None
        case = problem(seed=instance, error=error)
        true = true_front(case)
        for seed in range(n_seeds):
            config = settings(name, 50, 10, seed=seed, start_from_dp=False, **more)
            last = searchers.search(case, config)
            assert last.evaluations <= TINY.size / 20
            shares.append(share_of_true(case, last.front, true))
    print(f"{name}: {len(shares)} runs: mean {np.mean(shares):.5f}, least {np.min(shares):.5f}")
    return shares
