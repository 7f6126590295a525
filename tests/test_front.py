import itertools
import json

import numpy as np
import pytest
from search_cases import TINY, problem, reference

from hwnas.pricing import pareto
from hwnas.search import front, searchers
from hwnas.search.front import Front, Point
from hwnas.settings.config import PickConfig, SearchConfig
from profilers.errors import ConfigError, FileFormatError, InfeasibleError, TableError
from profilers.schema import canonical_json, sha256_text

SETTINGS = SearchConfig(algorithm="dp", seed=7)
HASHES = {"table": "aa", "predictor": "bb", "supernet": "cc"}


@pytest.fixture(scope="module")
def found():
    case = problem()
    result = searchers.search(case, SETTINGS)
    return front.make_front("host.fake.fp32.b1.t1", case, result, SETTINGS, HASHES, ("emulated",))


def drawn(*costs, objectives=("error", "latency_ms"), corner=(1.0, 100.0)) -> Front:
    """A front of given objectives; its networks do not matter."""
    networks = TINY.architectures(TINY.sample(len(costs), np.random.default_rng(0)))
    points = [
        Point(arch, dict(zip((*objectives, "macs"), (*cost, n * 1000 + 1000), strict=True)))
        for n, (arch, cost) in enumerate(zip(networks, costs, strict=True))
    ]
    largest = {"error": 0.1, "latency_ms": 50.0, "macs": 9000}
    return Front("t", TINY, objectives, corner, 1.0, largest, {}, {}, {}, (), 9, tuple(points))


LINE = ((0.5, 1.0), (0.25, 2.0), (0.2, 4.0), (0.19, 9.0), (0.18, 50.0))


def picked(of: Front, **rule) -> list[tuple[float, ...]]:
    return [
        tuple(point.predicted[name] for name in of.objectives)
        for _, point in front.pick(of, PickConfig(**rule))
    ]


# ---- making -------------------------------------------------------------------------------------


def test_a_front_holds_the_searched_networks_with_every_metric(found):
    case = problem()
    result = searchers.search(case, SETTINGS).front
    assert np.array_equal(found.values(("error", "latency_ms")), result.costs)
    assert (np.diff(found.values(("latency_ms",))[:, 0]) >= 0).all()
    genome = TINY.genome([point.arch for point in found.points])
    for name, values in case.predict(genome).items():
        assert np.array_equal(found.values((name,))[:, 0], values)
    assert isinstance(found.points[0].predicted["macs"], int)


def test_the_hypervolume_names_its_reference_point(found):
    assert found.reference_point == tuple(reference(problem()))
    costs = found.values(found.objectives)
    assert found.hypervolume == pareto.hypervolume(costs, np.array(found.reference_point))


@pytest.mark.parametrize(("n_classes", "guess"), [(2, 0.5), (10, 0.9), (1000, 0.999)])
def test_the_reference_point_is_guessing_and_a_tenth_above_the_max_network(n_classes, guess):
    largest = {"error": 0.1, "latency_ms": 50.0, "macs": 2000}
    found = front.reference_point(("latency_ms", "error", "macs"), largest, n_classes)
    assert found == pytest.approx([55.0, guess, 2200.0])


# ---- file ---------------------------------------------------------------------------------------


def test_a_file_reads_back_and_equal_fronts_are_equal_bytes(found, tmp_path):
    front.save(found, tmp_path / "a.json")
    again = front.load(tmp_path / "a.json", TINY)
    assert again == found
    front.save(again, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["format"] == "hwnas-front-1"
    assert content["objectives"] == [
        {"name": "error", "unit": "fraction"},
        {"name": "latency_ms", "unit": "ms"},
    ]
    assert set(content["points"][0]) == {"id", "arch", "predicted", "measured"}
    assert content["hashes"] == HASHES
    assert content["seeds"] == {"search": 7}
    assert content["settings"] == SETTINGS.model_dump(mode="json")
    assert content["accepted"] == ["emulated"]


def test_truncated_and_edited_files_are_named(found, tmp_path):
    path = tmp_path / "front.json"
    with pytest.raises(FileFormatError, match="does not exist"):
        front.load(path, TINY)
    front.save(found, path)
    text = path.read_text()
    for broken in (text[: len(text) // 2], text.replace("0.", "1.", 1), "{}", "[]"):
        path.write_text(broken)
        with pytest.raises(FileFormatError, match=r"front\.json"):
            front.load(path, TINY)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("points"),
        lambda content: content.update(points=[]),
        lambda content: content.update(points=[{}]),
        lambda content: content["points"][0].update(arch=None),
        lambda content: content.update(objectives=["error"]),
        lambda content: content.update(more=1),
        lambda content: content["points"][0].update(id=content["points"][1]["id"]),
        lambda content: content["points"][0].update(id="0" * 12),
        lambda content: content["points"].append(content["points"][0]),
        lambda content: content["points"][0]["predicted"].update(error=2.0),
        lambda content: content["points"][0]["predicted"].pop("error"),
        lambda content: content["reference_point"].pop(),
        lambda content: content["max_network"].update(latency_ms=0),
        lambda content: content["settings"].update(generations=1.5),
        lambda content: content.update(hypervolume=-1.0),
        lambda content: content.update(accepted=["all"]),
    ],
)
def test_wrong_content_is_refused_even_with_the_right_hash(found, tmp_path, change):
    content = json.loads(json.dumps(front.to_json(found)))
    change(content)
    path = tmp_path / "front.json"
    path.write_text(json.dumps({**content, "sha256": sha256_text(canonical_json(content))}))
    with pytest.raises(FileFormatError, match=r"front\.json"):
        front.load(path, TINY)


def test_a_front_of_another_geometry_is_refused(found, tmp_path):
    front.save(found, tmp_path / "front.json")
    with pytest.raises(TableError, match="geometry"):
        front.load(tmp_path / "front.json", TINY.for_data(3, 10))


def test_measured_values_stand_beside_predicted_ones(found, tmp_path):
    first, second = found.points[0].id, found.points[1].id
    measured = found.with_measured({first: {"latency_ms": 1.5}})
    measured = measured.with_measured({second: {"latency_ms": 2.5}})
    assert [point.measured for point in measured.points[:3]] == [
        {"latency_ms": 1.5},
        {"latency_ms": 2.5},
        None,
    ]
    assert measured.points[0].predicted == found.points[0].predicted
    assert measured.identity == found.identity
    assert np.array_equal(measured.values(("latency_ms",)), found.values(("latency_ms",)))
    whole = found.with_measured({point.id: {"latency_ms": 3.0} for point in found.points})
    assert np.array_equal(whole.values(("latency_ms",)), found.values(("latency_ms",)))
    front.save(measured, tmp_path / "front.json")
    assert front.load(tmp_path / "front.json", TINY) == measured


# ---- rules --------------------------------------------------------------------------------------


def test_a_budget_picks_the_least_error_within_it():
    line = drawn(*LINE)
    assert picked(line, budget={"latency_ms": 4.0}) == [(0.2, 4.0)]
    assert picked(line, budget={"latency_ms": 8.99}) == [(0.2, 4.0)]
    assert picked(line, budget={"latency_ms": "18%"}) == [(0.19, 9.0)]
    assert picked(line, budget={"error": 0.25, "latency_ms": 3.0}) == [(0.25, 2.0)]
    assert picked(line, budget={"macs": 2000}) == [(0.25, 2.0)]
    given = front.pick(line, PickConfig(budget={"latency_ms": "50%"}), {"latency_ms": 8.0})
    assert given[0][1].predicted["latency_ms"] == 4.0


def test_an_impossible_budget_names_the_smallest_value_on_the_front():
    line = drawn(*LINE)
    with pytest.raises(InfeasibleError, match=r"latency_ms = 0\.5 .*smallest .* is 1 ms"):
        picked(line, budget={"latency_ms": 0.5})
    with pytest.raises(InfeasibleError, match=r"smallest on its front is 0\.\d+$"):
        picked(line, budget={"error": 1e-9})
    with pytest.raises(InfeasibleError, match=r"together.*latency_ms 2 \(budget 1\.5\)"):
        picked(line, budget={"error": 0.26, "latency_ms": 1.5})
    with pytest.raises(InfeasibleError, match="objective or a search budget"):
        picked(line, budget={"macs": 500})


def test_a_budget_of_a_metric_that_the_front_does_not_hold_is_refused():
    with pytest.raises(ConfigError, match="does not hold params; it holds error"):
        picked(drawn(*LINE), budget={"params": 5})


def test_best_is_the_least_error_and_of_equal_ones_the_cheapest():
    assert picked(drawn(*LINE), rule="best") == [(0.18, 50.0)]
    assert picked(drawn((0.2, 1.0), (0.1, 5.0), (0.1, 4.0)), rule="best") == [(0.1, 4.0)]


def test_of_equal_errors_every_other_objective_decides_in_turn():
    three = ("error", "latency_ms", "energy_mj")
    tied = ((0.2, 3.0, 1.0), (0.2, 2.0, 5.0), (0.2, 2.0, 4.0), (0.2, 2.0, 4.5))
    of = drawn(*tied, objectives=three, corner=(1.0, 9.0, 9.0))
    assert picked(of, rule="best") == [(0.2, 2.0, 4.0)]


def test_cheapest_is_within_so_much_of_the_best_error():
    line = drawn(*LINE)
    assert picked(line, rule="cheapest", within=0.0) == [(0.18, 50.0)]
    assert picked(line, rule="cheapest", within=0.0101) == [(0.19, 9.0)]
    assert picked(line, rule="cheapest", within=1) == [(0.5, 1.0)]


def test_the_knee_is_farthest_from_the_line_through_the_ends():
    line = drawn(*LINE)
    costs = np.array(LINE)
    scaled = (costs - costs.min(axis=0)) / np.ptp(costs, axis=0)
    start, end = scaled[0], scaled[-1]
    along = (end - start) / np.linalg.norm(end - start)
    offset = scaled - start
    distance = np.abs(offset[:, 0] * along[1] - offset[:, 1] * along[0])
    assert picked(line, rule="knee") == [LINE[int(distance.argmax())]]
    assert picked(drawn((0.3, 2.0)), rule="knee") == [(0.3, 2.0)]
    three = drawn(
        (0.1, 9.0, 9.0),
        (0.2, 2.0, 2.0),
        (0.9, 1.0, 1.0),
        objectives=("error", "latency_ms", "params"),
        corner=(1, 10, 10),
    )
    assert picked(three, rule="knee") == [(0.2, 2.0, 2.0)]


def test_a_spread_of_k_dominates_nearly_as_much_as_any_k():
    line = drawn(*LINE)
    corner = np.array(line.reference_point)
    for k in (1, 2, 3):
        rows = front.spread(line, k)
        best = max(
            pareto.hypervolume(np.array(subset), corner)
            for subset in itertools.combinations(LINE, k)
        )
        assert pareto.hypervolume(np.array(LINE)[rows], corner) >= (1 - 1 / np.e) * best
    latencies = [cost[1] for cost in picked(line, rule="spread", k=3)]
    assert latencies == sorted(latencies)
    assert len(picked(line, rule="spread", k=50)) == len(LINE)


def test_names_of_packages_come_from_the_rule_unless_given():
    line = drawn(*LINE)

    def names(**rule):
        return [name for name, _ in front.pick(line, PickConfig(**rule))]

    assert names(rule="knee") == ["knee"]
    assert names(rule="cheapest") == ["cheapest-0.01"]
    assert names(budget={"latency_ms": "60 %", "macs": 2e4}) == ["latency_ms-60pct-macs-20000"]
    assert names(rule="spread", k=2) == ["spread-1", "spread-2"]
    assert names(rule="spread", k=2, name="fleet") == ["fleet-1", "fleet-2"]
    assert names(rule="best", name="flagship") == ["flagship"]
