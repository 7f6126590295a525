import numpy as np
import pytest
from search_cases import DEPTHS, TINY, enumerate_space, grid_price, random_price, random_terms

from hwnas import spaces
from hwnas.search.cost import (
    AdditiveTerms,
    MonotoneLink,
    additive_terms,
    count_terms,
    on_grid,
    peak_terms,
    sum_terms,
)
from hwnas.search.layout import layout
from profilers import counts
from profilers.errors import ConfigError

SPACES = [*map(spaces.load, spaces.names()), DEPTHS]
NAMES = [space.name for space in SPACES]
FOLDS = {
    "macs": (sum, counts.macs),
    "params": (sum, counts.params),
    "weight_bytes": (sum, counts.weight_bytes),
    "peak_activation_bytes": (max, counts.peak_activation_bytes),
}


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_counts_of_a_population_are_the_folds_over_lower(space):
    genome = np.concatenate(
        [
            space.genome([space.largest, space.smallest]),
            space.sample(60, np.random.default_rng(0)),
        ]
    )
    priced = {name: terms.evaluate(genome) for name, terms in count_terms(space).items()}
    for row, arch in enumerate(space.architectures(genome)):
        for name, (fold, count) in FOLDS.items():
            assert priced[name][row] == fold(count(op.spec) for op in arch.ops)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_table_costs_are_the_intercept_and_the_fold_over_lower(space):
    genome = space.sample(60, np.random.default_rng(1))
    exact = sum_terms(space, grid_price(3), lambda px: px / 4).evaluate(genome)
    rounded = sum_terms(space, random_price(3), lambda px: px / 4).evaluate(genome)
    for row, arch in enumerate(space.architectures(genome)):
        price, grid = random_price(3), grid_price(3)
        assert exact[row] == arch.resolution / 4 + sum(grid(op.spec) for op in arch.ops)
        assert rounded[row] == pytest.approx(
            arch.resolution / 4 + sum(price(op.spec) for op in arch.ops), abs=1e-10
        )


def test_terms_of_blocks_are_refused_where_widths_are_elastic():
    with pytest.raises(ConfigError, match="ofa-resnet50d has elastic widths"):
        additive_terms(spaces.load("ofa-resnet50d"), counts.macs)


@pytest.mark.parametrize("space", SPACES, ids=NAMES)
def test_identity_tells_apart_what_canonical_tells_apart(space):
    genome = space.sample(400, np.random.default_rng(2))
    genome[200:] = genome[:200]
    genome[200:, 3] = (genome[200:, 3] + 1) % space.n_options[3]
    names, rows = layout(space).identity(genome), map(bytes, space.canonical(genome))
    pairs = set(zip(names, rows, strict=True))
    assert len(pairs) == len({name for name, _ in pairs}) == len({row for _, row in pairs})


def test_identity_of_all_networks_is_as_many_as_there_are():
    for space in (TINY, DEPTHS):
        assert len(set(layout(space).identity(enumerate_space(space)))) == space.size


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_genomes_of_any_integer_type_and_layout_cost_the_same(dtype):
    genome = TINY.sample(50, np.random.default_rng(3))
    terms = count_terms(TINY)["macs"]
    expected = terms.evaluate(genome)
    assert np.array_equal(terms.evaluate(genome.astype(dtype)), expected)
    assert np.array_equal(terms.evaluate(np.asfortranarray(genome.astype(dtype))), expected)


def test_more_genomes_than_one_piece_are_priced_like_few():
    genome = TINY.sample(20_000, np.random.default_rng(4))
    terms = count_terms(TINY)["macs"]
    assert np.array_equal(terms.evaluate(genome)[-5:], terms.evaluate(genome[-5:]))
    assert terms.evaluate(genome[:0]).shape == (0,)


def test_sums_do_not_depend_on_the_order_of_adding():
    values = on_grid(np.random.default_rng(5).normal(size=50) * 7)
    assert values.sum() == values[::-1].sum() == np.random.default_rng(6).permutation(values).sum()
    assert on_grid(np.array([1 / 3]))[0] == pytest.approx(1 / 3, abs=1e-12)
    assert on_grid(np.array([987654321.0]))[0] == 987654321.0


@pytest.mark.parametrize("space", [TINY, DEPTHS], ids=["tiny", "depths"])
def test_the_smallest_value_is_that_of_enumeration(space):
    rng = np.random.default_rng(7)
    genome = enumerate_space(space)
    link = MonotoneLink(np.array([-30.0, 0.0, 30.0]), np.array([0.0, 0.4, 0.5]))
    for _ in range(10):
        terms = random_terms(space, rng)
        linked = AdditiveTerms(space, terms.fixed, terms.block, terms.depth, link)
        for metric in (terms, linked, count_terms(space)["peak_activation_bytes"]):
            least = metric.smallest(np.broadcast_to(layout(space).offered, terms.block.shape))
            assert least == metric.evaluate(genome).min()


@pytest.mark.parametrize("space", [TINY, DEPTHS], ids=["tiny", "depths"])
def test_a_peak_budget_is_a_filter_on_options(space):
    terms = peak_terms(space, counts.peak_activation_bytes)
    genome = enumerate_space(space)
    peaks = terms.evaluate(genome)
    for budget in [peaks.min() - 1, *np.quantile(peaks, [0, 0.2, 0.6, 1])]:
        allowed = terms.within(budget)
        fits = np.array([network_allowed(space, allowed, row) for row in genome])
        assert np.array_equal(fits, peaks <= budget)


def network_allowed(space, allowed, row):
    """Whether every block of a network has an allowed option."""
    values = space.canonical(row[None])[0]
    there = [b for b, block in enumerate(space.blocks) if values[block.expand]]
    cells = [(b, space.blocks[b]) for b in there]
    return bool(allowed[row[0]].any()) and all(
        allowed[row[0], b, row[block.kernel], row[block.expand]] for b, block in cells
    )


def test_a_link_never_falls_not_even_by_rounding():
    rng = np.random.default_rng(8)
    for _ in range(50):
        knots = np.sort(rng.normal(size=int(rng.integers(1, 8))))
        link = MonotoneLink(knots, np.sort(rng.random(len(knots))))
        near = np.concatenate([np.nextafter(knots, np.inf), knots, np.nextafter(knots, -np.inf)])
        score = np.sort(np.concatenate([rng.normal(size=200) * 2, near]))
        assert (np.diff(link(score)) >= 0).all()
        assert np.allclose(link(score), np.interp(score, knots, link.value))
