"""Settings: bounds, unknown keys, overrides, and the documents made from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas import config
from profilers.errors import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trian": {}}, "unknown key 'trian'; did you mean 'train'"),
        ({"train": {"epoch": 3}}, "unknown key 'train.epoch'; did you mean 'epochs'"),
        ({"pick": [{"rul": "knee"}]}, "unknown key 'pick.0.rul'; did you mean 'rule'"),
        ({"train": {"epochs": 0}}, r"train.epochs: .*greater than or equal to 1 \(given: 0\)"),
        ({"train": {"epochs": "many"}}, "train.epochs"),
        ({"data": {"kind": "digit"}}, "data.kind"),
        ({"search": {"objectives": ["error"]}}, "search.objectives"),
        ({"pick": [{}]}, "either a budget or a rule"),
        ({"pick": [{"rule": "knee", "budget": {"macs": 5}}]}, "either a budget or a rule"),
        ({"pick": [{"budget": {"latency_ms": "fast"}}]}, "neither a number nor a share"),
        ({"search": {"budgets": {"latency_ms": -1}}}, "not a positive number"),
        ({"check": {"max_gap": "0%"}}, "max_gap"),
        ({"targets": []}, "targets"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(data, message):
    with pytest.raises(ConfigError, match=message):
        config.parse_config(data, "hwnas.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "is not YAML"),
        ("- a\n- b", "holds a list"),
        ("x" * (1 << 21), "larger than 1 MiB"),
        ("!!python/object/apply:os.system [echo]", "is not YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path, text, message):
    path = tmp_path / "hwnas.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.load_config(path)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="`hwnas init` writes one"):
        config.load_config(tmp_path / "none.yaml")


def test_overrides_replace_what_the_file_says(tmp_path):
    path = tmp_path / "hwnas.yaml"
    path.write_text("train: {epochs: 3, seed: 1}")
    found = config.load_config(path, ["train.epochs=7", "space.resolutions=[8, 16]"])
    assert (found.train.epochs, found.train.seed) == (7, 1)
    assert found.space.resolutions == (8, 16)


@pytest.mark.parametrize("text", ["train.epochs", "run.x=1"])
def test_a_malformed_override_is_named(tmp_path, text):
    path = tmp_path / "hwnas.yaml"
    path.write_text("run: here")
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        config.load_config(path, [text])


@pytest.mark.parametrize(
    ("value", "whole", "expected"), [("60%", 2.0, 1.2), (0.5, 9.0, 0.5), ("12.5 %", 8, 1)]
)
def test_an_amount_is_a_number_or_a_share_of_the_whole(value, whole, expected):
    assert config.amount(value, whole) == pytest.approx(expected)


def test_the_schema_for_editors_and_the_reference_are_those_of_the_code():
    schema = (ROOT / "hwnas" / "hwnas.schema.json").read_text(encoding="utf-8")
    assert schema == config.json_schema()
    reference = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert reference.endswith(config.reference())


@pytest.mark.parametrize(
    "path",
    [*sorted(ROOT.glob("examples/*.yaml")), ROOT / "hwnas" / "templates" / "hwnas.yaml"],
    ids=lambda path: path.name,
)
def test_every_settings_file_of_this_project_is_valid(path):
    assert config.load_config(path).targets
