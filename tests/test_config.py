"""Settings: bounds, unknown keys, overrides, and the documents made from them.

`python tests/test_config.py` writes the schema and the table of settings anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.settings import amounts, config, config_file
from profilers.errors import ConfigError

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "hwnas" / "settings" / "hwnas.schema.json"
REFERENCE = ROOT / "docs" / "configuration.md"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trian": {}}, "unknown key 'trian'; did you mean 'train'"),
        ({"train": {"epoch": 3}}, "unknown key 'train.epoch'; did you mean 'epochs'"),
        ({"pick": [{"rul": "knee"}]}, "unknown key 'pick.0.rul'; did you mean 'rule'"),
        (
            {"train": {"epochs": 0}},
            r"train.epochs: must be greater than or equal to 1 \(given: 0\)",
        ),
        ({"train": {"epochs": "many"}}, r"train.epochs: must be a whole number \(given: 'many'\)"),
        ({"train": {"learning_rate": []}}, r"train.learning_rate: must be a number \(given: "),
        ({"train": None}, r"train: must be keys and values \(given: nothing\)"),
        ({"pick": ["knee"]}, r"pick.0: must be keys and values \(given: 'knee'\)"),
        ({"search": {"local_search": "x"}}, "search.local_search: must be true or false"),
        ({"accuracy": {"images": "al"}}, "accuracy.images: must be a whole number or 'all'"),
        ({"check": {"max_gap": [1]}}, "check.max_gap: must be a number or text"),
        ({"data": {"kind": "digit"}}, "data.kind: unknown 'digit'; did you mean 'digits'.*known: "),
        ({"pick": [{"budget": {"latency": 1}}]}, "pick.0.budget: .*did you mean 'latency_ms'"),
        ({"search": {"objectives": ["error"]}}, "search.objectives: must be a list of 2 or more"),
        ({"search": {"objectives": ["error"] * 5}}, "search.objectives: must be a list of at most"),
        ({"run": None}, "run: must be text that is not empty"),
        ({"pick": [{}]}, "either a budget or a rule"),
        ({"pick": [{"rule": "knee", "budget": {"macs": 5}}]}, "either a budget or a rule"),
        ({"pick": [{"budget": {"latency_ms": "fast"}}]}, "neither a number nor a share"),
        ({"search": {"budgets": {"latency_ms": -1}}}, "not a positive number"),
        ({"check": {"max_gap": "0%"}}, "neither a number nor a share"),
        (
            {"check": {"max_gap": 10}},
            r"check.max_gap: 10.0 is a share: at most 1, or in percent \(10%\)",
        ),
        ({"check": {"max_gap": float("nan")}}, "check.max_gap: must be a finite number"),
        (
            {"pick": [{"budget": {"latency_ms": "160%"}}]},
            "'160%' is more than the whole: .* at most 100%",
        ),
        ({"search": {"budgets": {"macs": "100.5%"}}}, "at most 100%"),
        ({"search": {"budgets": {"macs": "-5%"}}}, "neither a number nor a share"),
        ({"search": {"budgets": {"error": 5}}}, r"budgets: error 5.0 is a share: .*\(5%\)"),
        ({"accuracy": {"workers": 2, "cluster": "tcp://a:1"}}, "accuracy: .*give one of the two"),
        ({"accuracy": {"cluster": "lab"}}, "'lab' is not an address of a scheduler"),
        ({"accuracy": {"images": 0}}, "accuracy.images: must be greater than or equal to 1"),
        ({"train": {"epochs": True}}, r"epochs must be a number \(given: true\)"),
        ({"finetune": {"inrun": True}}, "unknown key 'finetune.inrun'; did you mean 'in_run'"),
        ({"data": {"augment": False}}, "data.augment: .*known: .*none"),
        ({"check": {"limits": {"latency_ms": float("inf")}}}, "latency_ms.*finite"),
        ({"data": {"normalise": [[float("nan")], [1.0]]}}, "normalise: unknown .*nan"),
        ({"train": {"seed": -1}}, "train.seed: must be greater"),
        ({"data": {"kind": "digits", "root": "photos"}}, "kind digits reads no root; .*'photos'"),
        ({"data": {"kind": "idx", "image_size": 28}}, "image_size .* not of idx"),
        (
            {"data": {"normalise": "mine"}},
            r"data.normalise: unknown 'mine' .known: auto, ",
        ),
        ({"data": {"normalise": [[0.5], [1, 1]]}}, "is not a mean and a positive deviation of "),
        ({"data": {"normalise": [[0.5], [0]]}}, "is not a mean and a positive deviation of "),
        ({"targets": ["a", "b", "a"]}, "targets: a is named twice; name each target once"),
        ({"targets": []}, "targets: must be a list of 1 or more"),
        ({"space": {"widths": 3}}, "space: widths is of a model of yours; name that as space.mod"),
        (
            {"space": {"model": "mine:build", "name": "mbv3-28", "input": [3, 8, 8]}},
            "space: it names the space mbv3-28 and the model mine:build; leave one of them out",
        ),
        ({"space": {"model": "mine:build"}}, r"input \[\] is not the shape .*\[3, 224, 224\]"),
        (
            {"space": {"model": "mine:build", "input": [3, 8, 9]}},
            r"input \[3, 8, 9\] is not the shape",
        ),
        (
            {"space": {"model": "mine:build", "input": [3, 8, 8]}, "train": {"epochs": 3}},
            "train applies to named spaces only; for a model of yours write these settings ",
        ),
        ({"space": {"model": "mine"}}, "space: model 'mine' names no function; give module:NAME"),
        ({"targets": "host"}, r"targets: must be a list \(given: 'host'\)"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(data, message):
    with pytest.raises(ConfigError, match=message):
        config_file.parse_config(data, "hwnas.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"search": {"objectives": ["error", "macs", "error"]}},
            "search: objectives hold error twice",
        ),
        (
            {
                "targets": ["fake.fake.fp32.b1.t1"],
                "pick": [{"rule": "knee", "target": "fake.fake"}],
            },
            "unknown pick.0.target 'fake.fake'; did you mean 'fake.fake.fp32.b1.t1'",
        ),
        ({"pick": [{"rule": "knee"}, {"rule": "best", "name": "knee"}]}, "two picks .* 'knee'"),
        ({"pick": [{"rule": "spread"}, {"rule": "best", "name": "spread-3"}]}, "'spread-3'"),
        ({"pick": [{"rule": "best", "name": "../up"}]}, "pick.0: package name '../up' .* folder"),
        ({"pick": [{"rule": "best", "name": ".hidden"}]}, "folder"),
        ({"pick": [{"rule": "best", "name": "a b"}]}, "folder"),
        ({"pick": [{"rule": "best", "name": "a/b"}]}, "folder"),
    ],
)
def test_settings_that_would_fail_after_hours_are_refused_at_the_start(data, message):
    with pytest.raises(ConfigError, match=message) as refused:
        config_file.parse_config(data, "hwnas.yaml")
    assert "\n" not in str(refused.value)


def test_one_name_may_serve_two_targets():
    targets = ("fake.fake.fp32.b1.t1", "host.ort-cpu.fp32.b1.t1")
    picks = [
        {"budget": {"macs": 9 * number}, "name": "small", "target": target}
        for number, target in enumerate(targets, start=1)
    ]
    assert len(config_file.parse_config({"targets": targets, "pick": picks}, "x").pick) == 2


@pytest.mark.parametrize(
    ("budget", "name"), [(1e6, "1000000"), (1234567, "1234567"), (1e13, "1e13"), ("6 %", "6pct")]
)
def test_every_budget_makes_a_name_of_its_own(budget, name):
    assert config.PickConfig(budget={"macs": budget}).package == f"macs-{name}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "is not YAML"),
        ("- a\n- b", "holds a list"),
        ("x" * (1 << 21), "larger than 1 MiB"),
        ("!!python/object/apply:os.system [echo]", "is not YAML"),
        (
            "data: {kind: digits}\nrun: a\nrun: b",
            "'run' appears twice, on lines 2 and 3; keep one",
        ),
        ("train:\n  seed: 1\n  epochs: 2\n  seed: 1", "'seed' .* on lines 2 and 4"),
        ("pick: [{rule: best, rule: knee}]", "'rule' appears twice on line 1"),
        (
            "",
            r"does not say what kind of data .* write `data: \{kind: image_folder, root: photos\}`",
        ),
        ("train: {epochs: 3}", "kind of data"),
        ("data: {root: photos}", "kind of data"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
                for old, new in zip("abcdefg", "bcdefgh", strict=True)
            ),
            "aliases .* more than 100,000 values",
        ),
        ("a: &a [*a]", "aliases .* more than 100,000 values"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path, text, message):
    path = tmp_path / "hwnas.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config_file.load_config(path)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="`hwnas init` writes one"):
        config_file.load_config(tmp_path / "none.yaml")


def test_overrides_replace_what_the_file_says(tmp_path):
    path = tmp_path / "hwnas.yaml"
    path.write_text("train: {epochs: 3, seed: 1}")
    changes = ["train.epochs=7", "space.resolutions=[8, 16]", "data.kind=digits"]
    found = config_file.load_config(path, changes)
    assert (found.train.epochs, found.train.seed) == (7, 1)
    assert found.space.resolutions == (8, 16)


def test_an_override_with_nothing_behind_it_is_the_empty_text(tmp_path):
    path = tmp_path / "hwnas.yaml"
    path.write_text("data: {kind: idx, root: photos}")
    assert config_file.load_config(path, ["data.root="]).data.root == ""


@pytest.mark.parametrize(
    "text", ["train.epochs", "run.x=1", "train.epochs=[1", "train={seed: 1, seed: 2}"]
)
def test_a_malformed_override_is_named(tmp_path, text):
    path = tmp_path / "hwnas.yaml"
    path.write_text("run: here")
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        config_file.load_config(path, [text])


@pytest.mark.parametrize(
    ("value", "whole", "expected"), [("60%", 2.0, 1.2), (0.5, 9.0, 0.5), ("12.5 %", 8, 1)]
)
def test_an_amount_is_a_number_or_a_share_of_the_whole(value, whole, expected):
    assert amounts.amount(value, whole) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0, 0.0, -1, float("inf"), float("nan"), "0%", "0.0 %", "x"])
def test_what_is_no_positive_amount_is_refused(value):
    with pytest.raises(ValueError, match=r"not a positive number|neither a number nor"):
        amounts.check_amount(value, "budget latency_ms")


@pytest.mark.pinned  # pydantic words schemas in ways of its own
def test_the_schema_for_editors_and_the_reference_are_those_of_the_code():
    assert SCHEMA.read_text(encoding="utf-8") == config_file.json_schema()
    assert REFERENCE.read_text(encoding="utf-8").endswith(config_file.reference())


@pytest.mark.parametrize(
    "path",
    [*sorted(ROOT.glob("examples/*.yaml")), ROOT / "hwnas" / "run" / "templates" / "hwnas.yaml"],
    ids=lambda path: path.name,
)
def test_every_settings_file_of_this_project_is_valid(path):
    assert config_file.load_config(path).targets


if __name__ == "__main__":
    SCHEMA.write_text(config_file.json_schema(), encoding="utf-8")
    words = REFERENCE.read_text(encoding="utf-8")
    introduction = words[: words.index("| setting |")]
    REFERENCE.write_text(introduction + config_file.reference(), encoding="utf-8")


@pytest.mark.parametrize(
    "settings",
    [
        {"space": {"resolutions": [True]}},
        {"search": {"budgets": {"latency_ms": True}}},
        {"pick": [{"budget": {"latency_ms": True}}]},
        {"check": {"min_accuracy": True}},
    ],
)
def test_true_is_neither_a_number_nor_a_text_wherever_it_stands(settings):
    with pytest.raises(ConfigError, match=r"must be a number \(given: .*true"):
        config_file.parse_config(settings, "hwnas.yaml")
    given = {"data": {"kind": "image_folder", "stream": True}}
    assert config_file.parse_config(given, "hwnas.yaml").data.stream
