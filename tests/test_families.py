"""Families and networks of slots: what they say they depend on, what is alive, what is refused; and
a job made of nothing but a user's own parts.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from search_cases import TINY, enumerate_space, of_family, random_space
from test_elimination import fronts_of, reached
from test_onnx_graph import peak_bytes_of_graph
from test_pipeline import hwnas

from hwnas.measuring import coverage
from hwnas.networks import onnx_graph, ops, spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.families import Choice
from hwnas.networks.ops import op
from hwnas.networks.placed import START, PlacedOp, checked, peaks
from hwnas.networks.slots import check_family, distinct_ops, op_tables, peak_tables
from hwnas.networks.space import SearchSpace
from hwnas.pricing import elimination
from hwnas.pricing.terms import count_terms
from hwnas.supernet.network import Supernet, calibrate, extract, folded_weights
from profilers.errors import ConfigError

# ---- a family whose networks are graphs: an early output waits for a late op --------------------


def join(body) -> None:
    """The sum of two tensors, then an activation."""
    body.act("sum", body.add("add", "sum", "in", "in2"), "relu")


@dataclasses.dataclass(frozen=True)
class Ladder:
    """A stem whose output waits while blocks of elastic width run, and is added at the end.

    Attributes:
        forgets: a choice that `depends_on` leaves out.
        shape: of the network's mistake: `cycle`, `outputs`; empty: none.
    """

    forgets: str = ""
    mistake: str = ""
    name: ClassVar[str] = "ladder"

    def choices(self):
        return [
            Choice("width", (4, 8)),
            Choice("middle", (4, 6, 8)),
            Choice("more", (0, 1)),
            Choice("kernel", (1, 3)),
        ]

    def gates(self):
        return {"kernel": ("more", 1)}

    def input_shape(self, channels, resolution):
        return channels, resolution, resolution

    def lower(self, chosen: Mapping[str, int], shape, n_classes: int):
        stem = op("conv", shape, out=chosen["width"], kernel=3, stride=2, act="relu")
        ops = [PlacedOp("stem", stem, (START,))]

        def then(slot, out, kernel):
            made = op("conv", ops[-1].op.shape, out=out, kernel=kernel, act="h_swish")
            ops.append(PlacedOp(slot, made, (ops[-1].slot,)))

        then("down", chosen["middle"], 3)
        if chosen["more"]:
            then("extra", chosen["middle"], chosen["kernel"])
        then("up", chosen["width"], 1)
        first = "end" if self.mistake == "cycle" else "stem"
        reads = ("stem",) if self.mistake == "outputs" else (first, "up")
        kind = "test_families:join" if len(reads) == 2 else "conv"
        given = [stem.shape] * len(reads)
        made = op(kind, *given) if len(reads) == 2 else op(kind, *given, out=chosen["width"])
        ops.append(PlacedOp("join", made, reads))
        ops.append(PlacedOp("pool", op("pool", made.shape), ("join",)))
        last = op("linear", ops[-1].op.shape, out=n_classes)
        return [*ops, PlacedOp("end", last, ("pool",))]

    def depends_on(self):
        said = {
            "stem": ["width"],
            "down": ["width", "middle"],
            "extra": ["middle", "more", "kernel"],
            "up": ["width", "middle"],
            "join": ["width"],
            "pool": ["width"],
            "end": ["width"],
        }
        return {s: [c for c in names if c != self.forgets] for s, names in said.items()}

    def constants(self):
        return {}


LADDER = SearchSpace("ladder", Ladder(), (8, 12), (8, 12))


@pytest.mark.parametrize("space", [*map(spaces.load, spaces.names()), LADDER], ids=lambda s: s.name)
def test_a_slots_op_depends_on_what_its_family_says(space):
    check_family(space, 60, np.random.default_rng(0))


@pytest.mark.parametrize("choice", ["width", "middle", "kernel", "more"])
def test_a_dependency_that_a_family_forgets_is_found_and_named(choice):
    space = dataclasses.replace(LADDER, family=Ladder(forgets=choice))
    with pytest.raises(ConfigError, match=r"slot \w+ .* depends_on of family ladder"):
        check_family(space, 60, np.random.default_rng(0))


class _Beside(Ladder):
    """The last but one output is read by the two ops after it, so nothing waits in between."""

    def lower(self, chosen, shape, n_classes):
        stem = op("conv", shape, out=8, kernel=3, stride=2, act="relu")
        side = op("mbconv", stem.shape, mid=8 * chosen["width"], out=8, kernel=3)
        both = op("test_families:join", stem.shape, side.shape)
        pool = op("pool", both.shape)
        return [
            PlacedOp("stem", stem, (START,)),
            PlacedOp("side", side, ("stem",)),
            PlacedOp("join", both, ("stem", "side")),
            PlacedOp("pool", pool, ("join",)),
            PlacedOp("end", op("linear", pool.shape, out=n_classes), ("pool",)),
        ]

    def choices(self):
        return [Choice("width", (2, 4))]

    def gates(self):
        return {}

    def depends_on(self):
        return {"side": ["width"]}


def test_an_input_that_the_next_op_reads_too_is_alive_to_the_end():
    space = SearchSpace("beside", _Beside(), (8, 12), (8, 12))
    check_family(space, 20, np.random.default_rng(0))
    every = enumerate_space(space)
    peak = count_terms(space)["peak_activation_bytes"].evaluate(every)
    found = [exact_costs(arch)["peak_activation_bytes"] for arch in space.architectures(every)]
    assert peak.tolist() == found


def test_the_smallest_kernel_is_the_centre_of_the_largest():
    torch.manual_seed(0)
    layer = Supernet(LADDER).slots["extra"]["conv"]
    small = op("conv", (8, 6, 6), out=8, kernel=1, act="h_swish").graph.primitives[0]
    assert torch.equal(layer.values(small)["weight"], layer.weight[:, :, 1:2, 1:2])


def test_what_waits_for_a_later_op_counts_while_others_run():
    network = LADDER.largest.ops
    alive = peaks(network)
    stem = 4 * 8 * 6 * 6
    for slot in ("down", "extra", "up"):
        made = next(placed.op for placed in network if placed.slot == slot)
        waits = 0 if slot == "down" else stem  # `down` reads it, so it is alive to its end
        least = made.peak_bytes(("in",)) if slot == "down" else made.peak_activation_bytes
        assert alive[slot] == least + waits


@pytest.mark.parametrize("genome", enumerate_space(LADDER).tolist())
def test_a_graph_is_counted_like_its_file(genome):
    arch = LADDER.architectures(np.array([genome]))[0]
    names = [weight.name for weight in onnx_graph.weights_of(arch.ops)]
    model = onnx_graph.build_external(arch.ops, dict.fromkeys(names, 0))
    assert peak_bytes_of_graph(model) == exact_costs(arch)["peak_activation_bytes"]


def test_a_graph_is_priced_and_searched_exactly_its_peak_memory_included():
    every = enumerate_space(LADDER)
    counted = count_terms(LADDER)
    for row, arch in zip(every, LADDER.architectures(every), strict=True):
        for name, value in exact_costs(arch).items():
            assert counted[name].evaluate(row[None])[0] == value
    terms = [counted["macs"], counted["peak_activation_bytes"]]
    costs = np.stack([term.evaluate(every) for term in terms], axis=1)
    assert reached(terms, elimination.front(terms)) == fronts_of(LADDER, costs, every)


def test_a_graph_is_covered_trained_cut_and_exported():
    rng = np.random.default_rng(0)
    networks = coverage.covering(LADDER, 12, 2, rng)
    seen = [placed.op.key for arch in networks for placed in arch.ops]
    wanted = distinct_ops(LADDER.restricted([12]))
    assert all(seen.count(key) >= 2 for key in wanted)
    torch.manual_seed(0)
    net = Supernet(LADDER).train()
    x = torch.randn(4, 1, 12, 12)
    for arch in LADDER.restricted([12]).architectures(enumerate_space(LADDER.restricted([12]))[:6]):
        arch = LADDER.architecture(arch.values)
        net(x, arch).sum().backward()
        subnet = extract(net, arch)
        calibrate(subnet, [x])
        model = onnx_graph.build(arch.ops, folded_weights(subnet), 4)
        session = onnxruntime.InferenceSession(onnx_graph.to_bytes(model))
        found = session.run(None, {onnx_graph.INPUT: x.numpy()})[0]
        with torch.no_grad():
            expected = subnet(x).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad and p.ndim > 1)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("cycle", "slot join reads 'end', which is not before it; .*a cycle"),
        ("outputs", "nothing reads slot up; a network has one output"),
    ],
)
def test_a_network_that_is_no_graph_is_refused_by_name(mistake, message):
    space = dataclasses.replace(LADDER, family=Ladder(mistake=mistake))
    with pytest.raises(ConfigError, match=rf"space ladder, family ladder: .*({message})"):
        space.largest.ops  # noqa: B018


def test_ops_that_do_not_fit_are_refused_by_slot():
    first, other = op("pool", (4, 6, 6)), op("linear", (5, 1, 1), out=3)
    chain = [PlacedOp("a", first, (START,)), PlacedOp("b", other, ("a",))]
    with pytest.raises(ConfigError, match=r"slot b takes \[\(5, 1, 1\)\], what it reads gives"):
        checked(chain, (4, 6, 6))
    with pytest.raises(ConfigError, match="slot 'a' has two ops"):
        checked([chain[0], chain[0]], (4, 6, 6))
    with pytest.raises(ConfigError, match="without an op"):
        checked([], (4, 6, 6))


class _Circle(Ladder):
    def gates(self):
        return {"kernel": ("more", 1), "more": ("kernel", 1)}


class _Twice(Ladder):
    def choices(self):
        return [*super().choices(), Choice("width", (1,))]


class _Strange(Ladder):
    def depends_on(self):
        return {**super().depends_on(), "stem": ["breadth"]}


class _NoSlot(Ladder):
    def depends_on(self):
        return {**super().depends_on(), "tail": ["width"]}


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (_Circle(), "its choices gate each other in a circle"),
        (_Twice(), "choice 'width' appears twice"),
        (_Strange(), "depends_on names the choice 'breadth', which is not there"),
        (_NoSlot(), "depends_on names the slot 'tail', which the largest network lacks"),
    ],
)
def test_a_family_that_contradicts_itself_is_refused_by_name(family, message):
    with pytest.raises(ConfigError, match=message):
        check_family(SearchSpace("ladder", family, (8,), (8,)), 5, np.random.default_rng(0))


# ---- exact fronts of random spaces of every family ----------------------------------------------


def _random_space(rng: np.random.Generator) -> SearchSpace:
    if rng.random() < 0.2:
        sizes = ((8,), (8, 12))[rng.integers(2)]
        return dataclasses.replace(LADDER, resolutions=sizes, profiled=sizes)
    return random_space(rng)


@pytest.mark.parametrize("block", range(10))
def test_exact_fronts_are_those_of_enumeration_within_a_peak_budget_too(block):
    """300 random spaces of every family: widths, depths, dilations, absent blocks, graphs."""
    for seed in range(30 * block, 30 * (block + 1)):
        rng = np.random.default_rng([seed, 7])
        space = _random_space(rng)
        every = enumerate_space(space)
        counted = count_terms(space)
        terms = [counted["macs"], counted[("params", "weight_bytes")[seed % 2]]]
        peak = counted["peak_activation_bytes"]
        costs = np.stack([term.evaluate(every) for term in terms], axis=1)
        budget = float(np.quantile(peak.evaluate(every), rng.uniform(0.2, 1)))
        fits = peak.evaluate(every) <= budget
        found = elimination.front(terms, peak.within(budget))
        assert reached(terms, found) == fronts_of(space, costs[fits], every[fits]), seed


def test_peaks_of_a_chain_are_those_of_its_ops():
    for slot, (columns, values) in peak_tables(TINY).items():
        table = op_tables(TINY)[slot]
        assert columns == table.columns
        alone = [0 if made is None else made.peak_activation_bytes for made in table.ops.flat]
        assert values.reshape(-1).tolist() == alone


def test_stages_that_may_not_miss_a_block_have_no_expand_ratio_of_zero():
    first = TINY.family.stages[0]
    space = of_family(TINY, stages=(dataclasses.replace(first, depths=(1, 2)),))
    assert all(0 not in choice.options for choice in space.choices)


# ---- a job of nothing but one's own parts -------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "own-space.md"
OWN = dict(re.findall(r"`(\w+\.py)`\n\n```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)) | {
    "toyruntime.py": '''
"""ONNX Runtime whose times are modelled, on a clock of their own: no busy machine disturbs it."""
from profilers.runtimes import ort_cpu


class Session:
    def __init__(self, path, target):
        self.inner, self.ms = ort_cpu.load(path, target), 0.05 + 1e-6 * path.stat().st_size
        self.run, self.info, self.close = self.inner.run, self.inner.info, self.inner.close

    def time(self, loops):
        RUNTIME.now_s += loops * self.ms / 1e3
        return loops * self.ms

    def profile(self, loops):
        return None


class RUNTIME:
    now_s = 0.0
    version = staticmethod(ort_cpu.version)
    load = staticmethod(Session)

    @staticmethod
    def clock(target):
        return lambda: RUNTIME.now_s

    @staticmethod
    def sleep(target):
        def rest(seconds):
            RUNTIME.now_s += seconds
        return rest

    @staticmethod
    def waiting(target):
        return lambda: 0.0
''',
    "toymeter.py": """
import contextlib, sys

from profilers.energy.meters import EnergyReading

METER = sys.modules[__name__]


class Steady:
    def window(self, t0_s, t1_s):
        return EnergyReading(5e3 * (t1_s - t0_s), 100, 0.01, ("all",), True)


@contextlib.contextmanager
def open(target):
    yield Steady()
""",
    "hwnas.yaml": """
run: run
data: {kind: digits}
space: {name: "toyspace:SPACE", resolutions: [8]}
train: {epochs: 2, threads: 1}
accuracy: {measure: 12, bn_images: 128}
targets: ["bench.toyruntime:RUNTIME.fp32.b1.t1"]
profile: {budget_s: 3, heldout: 5, rounds: 6, energy_budget_s: 2, energy_window_s: 0.05}
search: {population: 8, generations: 3}
pick: [{rule: best}]
""",
    "targets/bench.toyruntime:RUNTIME.fp32.b1.t1.yaml": """
device: bench
hardware: host
runtime: toyruntime:RUNTIME
meter: toymeter:METER
plugins: [toyruntime.py, toymeter.py]
""",
}


def test_a_job_runs_on_an_op_kind_family_space_runtime_and_meter_of_ones_own(tmp_path, monkeypatch):
    for name, text in OWN.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.lstrip())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    accepted = "unreliable,gap,budget,untimed"
    assert hwnas("run", tmp_path / "hwnas.yaml", "--accept", accepted) == 0
    found = [json.loads(p.read_text()) for p in tmp_path.glob("run/packages/*/*/manifest.json")]
    assert found
    assert all(m["target"]["runtime"] == "toyruntime:RUNTIME" for m in found)
    table = json.loads(next((tmp_path / "run" / "tables").glob("*.json")).read_text())
    assert any(key.startswith("toyop:build(in=") for key in table["rows"])
    for module in [n for n in sys.modules if n.startswith("toy")]:
        del sys.modules[module]


RIGHT = 'body.conv("right", "in", out, act=act)'
LAST = 'return chain([*ops, ("last", op("linear", ops[-1][1].shape, out=n_classes))])'


@pytest.mark.parametrize(
    ("file", "text", "broken", "message"),
    [
        ("toyop", RIGHT, 'body.add("blur", "right", "in")', "primitive 'blur' is not one of add, "),
        (
            "toyop", RIGHT, 'body.add("add", "right", "in", "both")',
            "right reads both, which does not exist; write that one first, and no cycle",
        ),
        (
            "toyop", 'left, right, axis=0', "left, left, axis=0",
            "it has the outputs right_relu and both; read the first one or leave it out",
        ),
        ("toyop", "out: int", "out: float", "parameter out is .*float.*; declare it int, str"),
        ("toyop", "def build(", "def make(", "has no attribute 'build'"),
        (
            "toyfamily", '"second": ["first", "second"]', '"second": ["second"]',
            "slot second has .* name every choice it depends on in depends_on of family toy",
        ),
        (
            "toyfamily", LAST, LAST.replace("return", "found =") + "\n        "
            'return (found[0]._replace(reads=("last",)), *found[1:])',
            "slot first reads 'last', which is not before it; .*a cycle",
        ),
        (
            "toyfamily", LAST, LAST.replace("return", "found =") + "\n        "
            "return (*found, found[0]._replace(slot='side'))",
            "nothing reads slot last; a network has one output",
        ),
        ("toyfamily", 'op("pool", ops', 'op("pol", ops', "did you mean 'pool'"),
        ("toyspace", "SPACE = ", "SPACES = ", "has no attribute 'SPACE'"),
        ("toyspace", "SearchSpace(", "SearchSpace((", "SyntaxError: .*toyspace.py, line 4.*mend"),
        (
            "toyfamily", 'chosen["second"]', 'chosen["third"]',
            "KeyError: 'third' .*toyfamily.py, line 26.*mend it",
        ),
    ],
)  # fmt: skip
def test_a_broken_part_of_ones_own_is_refused_when_its_space_is_loaded(
    tmp_path, monkeypatch, capsys, file, text, broken, message
):
    for name in ("toyop", "toyfamily", "toyspace"):
        content = OWN[f"{name}.py"].lstrip()
        assert name != file or text in content
        (tmp_path / f"{name}.py").write_text(content.replace(text, broken, name == file))
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget_toys()  # another test may have used theirs in this process
    try:
        assert hwnas("space", "show", "toyspace:SPACE") == 2
        assert re.search(message, (said := capsys.readouterr().err)), said
        assert said.count("\n") == 1
    finally:
        _forget_toys()


def _forget_toys():
    for module in [n for n in sys.modules if n.startswith("toy")]:
        del sys.modules[module]
    ops._builder.cache_clear()
    ops._declared.cache_clear()
    ops.op.cache_clear()
