"""Prices of populations against the fold over `lower`, least values against enumeration."""

import numpy as np
import pytest
from search_cases import DEPTHS, TINY, enumerate_space, grid_price, random_price, random_terms

from hwnas.networks import spaces
from hwnas.networks.slots import op_tables
from hwnas.pricing import elimination
from hwnas.pricing.exact_sums import on_grid
from hwnas.pricing.links import MonotoneLink
from hwnas.pricing.places import places
from hwnas.pricing.terms import Terms, count_terms, op_terms
from profilers.errors import ConfigError

SPACES = [*map(spaces.load, spaces.names()), DEPTHS]
EVERY_SPACE = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
FOLDS = {"macs": sum, "params": sum, "weight_bytes": sum, "peak_activation_bytes": max}


@EVERY_SPACE
def test_counts_of_a_population_are_the_folds_over_lower(space):
    ends = space.genome([space.largest, space.smallest])
    genome = np.concatenate([ends, space.sample(60, np.random.default_rng(0))])
    priced = {name: terms.evaluate(genome) for name, terms in count_terms(space).items()}
    for row, arch in enumerate(space.architectures(genome)):
        for name, fold in FOLDS.items():
            assert priced[name][row] == fold(getattr(placed.op, name) for placed in arch.ops)


@EVERY_SPACE
def test_table_costs_are_the_intercept_and_the_fold_over_lower(space):
    genome = space.sample(60, np.random.default_rng(1))
    exact = op_terms(space, grid_price(3), lambda px: px / 4).evaluate(genome)
    rounded = op_terms(space, random_price(3), lambda px: px / 4).evaluate(genome)
    for row, arch in enumerate(space.architectures(genome)):
        price, grid = random_price(3), grid_price(3)
        assert exact[row] == arch.resolution / 4 + sum(grid(placed.op) for placed in arch.ops)
        assert rounded[row] == pytest.approx(
            arch.resolution / 4 + sum(price(placed.op) for placed in arch.ops), abs=1e-10
        )


@EVERY_SPACE
def test_the_op_of_a_slot_is_the_one_that_lower_puts_there(space):
    """A dependency that a space forgets shows here: the table then holds another network's op."""
    tables = op_tables(space)
    genome = space.sample(200, np.random.default_rng(2))
    for row, arch in zip(genome, space.architectures(genome), strict=True):
        ops = {placed.slot: placed.op for placed in arch.ops}
        for slot, (columns, table) in tables.items():
            assert table[tuple(row[list(columns)])] == ops.get(slot)
        assert set(ops) <= set(tables)


@EVERY_SPACE
def test_what_can_make_a_choice_dead_is_among_its_gates(space):
    """Changing any choice but its gates leaves a choice dead or alive as it was."""
    rng = np.random.default_rng(3)
    genome = space.sample(100, rng)
    for column, gates in enumerate(space.gates):
        other = space.sample(len(genome), rng)
        kept = [column, *gates]
        other[:, kept] = genome[:, kept]
        assert np.array_equal(space.canonical(genome)[:, column], space.canonical(other)[:, column])


@EVERY_SPACE
def test_identity_tells_apart_what_canonical_tells_apart(space):
    genome = space.sample(400, np.random.default_rng(2))
    column = len(space.choices) // 2
    genome[200:] = genome[:200]
    genome[200:, column] = (genome[200:, column] + 1) % space.n_options[column]
    names, rows = places(space).identity(genome), map(bytes, space.canonical(genome))
    pairs = set(zip(names, rows, strict=True))
    assert len(pairs) == len({name for name, _ in pairs}) == len({row for _, row in pairs})


def test_identity_of_all_networks_is_as_many_as_there_are():
    for space in (TINY, DEPTHS):
        assert len(set(places(space).identity(enumerate_space(space)))) == space.size


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("space", [TINY, spaces.load("ofa-resnet50d")], ids=["tiny", "resnet"])
def test_genomes_of_any_integer_type_and_layout_cost_the_same(space, dtype):
    genome = space.sample(50, np.random.default_rng(3))
    terms = count_terms(space)["macs"]
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


def test_a_factor_over_choices_that_no_op_has_together_is_refused_with_their_names():
    columns = tuple(TINY.columns[f"stage1.block{b}.kernel_size"] for b in (1, 2))
    terms = Terms(TINY, ((columns, np.zeros(TINY.n_options[list(columns)])),))
    with pytest.raises(ConfigError, match=r"stage1\.block1\.kernel_size, stage1\.block2\.kernel"):
        terms.evaluate(TINY.sample(1, np.random.default_rng(0)))


@pytest.mark.parametrize("space", [TINY, DEPTHS], ids=["tiny", "depths"])
def test_the_smallest_value_is_that_of_enumeration(space):
    rng = np.random.default_rng(7)
    genome = enumerate_space(space)
    link = MonotoneLink(np.array([-30.0, 0.0, 30.0]), np.array([0.0, 0.4, 0.5]))
    peak = count_terms(space)["peak_activation_bytes"]
    for _ in range(5):
        terms = random_terms(space, rng)
        for metric in (terms, Terms(space, terms.factors, link=link), peak):
            assert elimination.least(metric) == metric.evaluate(genome).min()
        limit = float(np.quantile(peak.evaluate(genome), rng.uniform(0, 0.9)))
        fits = peak.evaluate(genome) <= limit
        assert elimination.least(terms, peak.within(limit)) == terms.evaluate(genome)[fits].min()
    assert elimination.least(terms, peak.within(0)) == np.inf


def test_a_link_never_falls_not_even_by_rounding():
    rng = np.random.default_rng(8)
    for _ in range(50):
        knots = np.sort(rng.normal(size=int(rng.integers(1, 8))))
        link = MonotoneLink(knots, np.sort(rng.random(len(knots))))
        near = np.concatenate([np.nextafter(knots, np.inf), knots, np.nextafter(knots, -np.inf)])
        score = np.sort(np.concatenate([rng.normal(size=200) * 2, near]))
        assert (np.diff(link(score)) >= 0).all()
        assert np.allclose(link(score), np.interp(score, knots, link.value))
