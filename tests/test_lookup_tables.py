"""Tables of once-for-all's look-up files, generated as that project writes them."""

import importlib
import json
import re

import numpy as np
import ofa_oracle
import pytest
import yaml

from hwnas import cli
from hwnas.measuring import coverage
from hwnas.networks import spaces
from hwnas.ofa.lookup_tables import POOLING, import_tables, key_of, keys_of, max_network
from hwnas.report.page import write_report
from hwnas.settings.errors import ConfigError, MissingOpError, TableError
from hwnas.tables import about, table
from profilers.schema import target_from_name

W12 = spaces.load("ofa-mbv3-w12")
TARGET = target_from_name("note10.tflite.fp32.b1.t1")


def entries(size=224, space=W12, by_ratio=False):
    """Content of one file; the k-th op takes k + 1 tenths of a ms."""
    ops = coverage.distinct_ops(space.restricted([size])).values()
    return {
        key_of(op, by_ratio): {"count": 50, "mean": (k + 1) / 10, "std": 0.01}
        for k, op in enumerate(ops)
    }


PROXYLESS = spaces.load("ofa-proxyless-w13")


def proxyless_entries(size=224, space=PROXYLESS):
    """Content of a Proxyless file, as `entries`."""
    keys = keys_of(space.restricted([size])).values()
    named = [key for key in keys if key != POOLING]
    return {key: {"count": 50, "mean": (k + 1) / 10, "std": 0.01} for k, key in enumerate(named)}


def write(folder, size=224, content=None):
    path = folder / f"{size}_lookup_table.yaml"
    path.write_text(yaml.safe_dump(entries(size) if content is None else content))
    return path


def imported(*paths, space="ofa-mbv3-w12"):
    return import_tables(paths, space, TARGET)


def test_keys_are_those_of_the_public_files():
    known = entries()
    assert len(known) == 96  # a complete file of width 1.2
    for key in (
        "Conv-input:224x224x3-output:112x112x24",
        "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1"
        "-se:0-hs:0",
        "Conv_1-input:7x7x192-output:7x7x1152",
        "AvgPool2D-input:7x7x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    ):
        assert key in known
    older = entries(by_ratio=True)
    assert len(older) == 96
    ratios = {re.search(r"expand:(\d+)", key)[1] for key in older if "expand:" in key}
    assert ratios == {"1", "3", "4", "6"}
    assert not any("-se:" in key or "-hs:" in key for key in older)


@pytest.mark.parametrize("by_ratio", [False, True], ids=["mid channels", "ratio"])
def test_a_network_costs_the_sum_of_its_keys(tmp_path, by_ratio):
    content = entries(by_ratio=by_ratio)
    made = imported(write(tmp_path, content=content))
    for arch in (W12.restricted([224]).largest, W12.restricted([224]).smallest):
        expected = sum(content[key_of(op, by_ratio)]["mean"] for op in arch.ops)
        assert table.network_latency(made, arch) == pytest.approx(expected, rel=1e-12)
    assert {row["spread_ms"] for row in made.rows.values()} == {0.01}


@pytest.mark.parametrize(
    ("name", "last"), [("ofa-proxyless-w13", 1664), ("ofa-proxyless-w10", 1280)]
)
def test_a_proxyless_network_costs_what_once_for_all_says(tmp_path, name, last):
    space = spaces.load(name)
    content = proxyless_entries(space=space)
    path = tmp_path / "mobile_trim.yaml"  # the public file's name says no resolution
    path.write_text(yaml.safe_dump(content))
    assert f"Logits-input:7x7x{last}-output:1000" in content
    made = imported(path, space=name)
    assert all(row["latency_ms"] > 0 for row in made.rows.values())
    assert made.resolutions == (224,)
    net = ofa_oracle.supernet(name)
    tables = importlib.import_module("ofa.nas.efficiency_predictor.latency_lookup_table")
    theirs = tables.ProxylessNASLatencyTable.__new__(tables.ProxylessNASLatencyTable)
    theirs.lut = content
    space = space.restricted([224])
    for arch in (space.largest, space.smallest, space.random(np.random.default_rng(0))):
        ofa_oracle.activate(net, arch)
        expected = theirs.predict_network_latency_given_config(net.get_active_net_config(), 224)
        assert table.network_latency(made, arch) == pytest.approx(expected, rel=1e-12)


def test_a_proxyless_file_of_another_width_or_of_several_sizes_is_refused(tmp_path):
    content = proxyless_entries()
    content["Conv-input:224x224x3-output:112x112x32"] = content.pop(
        "Conv-input:224x224x3-output:112x112x40"
    )
    with pytest.raises(TableError, match="holds Conv-input:224x224x3-output:112x112x32"):
        imported(write(tmp_path, content=content), space="ofa-proxyless-w13")
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(proxyless_entries(224) | proxyless_entries(192)))
    with pytest.raises(ConfigError, match="or keys of one input size"):
        imported(path, space="ofa-proxyless-w13")


def test_an_imported_table_says_that_nothing_validates_it_and_serves_with_a_warning(tmp_path):
    made = imported(write(tmp_path), write(tmp_path, 160, entries(160)))
    table.save(made, tmp_path / "t.json")
    found = table.load_table(tmp_path / "t.json")
    assert found == made
    assert found.resolutions == (160, 224)
    assert (found.verdict, found.marks, found.noise) == ("unvalidated", ("imported",), 0.0)
    told = about.describe(found)
    assert (told["error"], told["noise"], told["heldout"]) == (None, None, 0)
    assert json.loads(json.dumps(told)) == told
    (warning,) = table.check_serves(found, W12.restricted([224]))
    assert "was imported: nothing says how good it is" in warning
    with pytest.raises(TableError, match="not measured at 128 px"):
        table.check_serves(found, W12.restricted([128]))


def test_the_report_says_that_a_table_was_imported(tmp_path):
    made = imported(write(tmp_path))
    table.save(made, tmp_path / "run" / "tables" / f"{TARGET.name}.json")
    write_report(tmp_path / "run", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    told = "its table is unvalidated: it was imported without whole networks, so nothing says how"
    assert told in page
    assert "its table is imported" in page


def test_an_op_of_several_resolutions_costs_the_mean_of_the_files(tmp_path):
    first, second = entries(144), entries(160)  # both end at 5 px
    made = imported(write(tmp_path, 144, first), write(tmp_path, 160, second))
    key = "Conv_1-input:5x5x192-output:5x5x1152"
    (row,) = [row for op, row in made.rows.items() if op.startswith("conv(in=192x5x5,")]
    assert row["latency_ms"] == pytest.approx((first[key]["mean"] + second[key]["mean"]) / 2)


def test_older_files_give_a_variance_and_some_give_no_spread(tmp_path):
    content = entries()
    first, second, *_ = content
    content[first] = {"count": 1, "mean": 1, "var": 0.0004}
    content[second] = {"count": 1, "mean": 1}
    rows = list(imported(write(tmp_path, content=content)).rows.values())
    assert [row["spread_ms"] for row in rows[:3]] == [pytest.approx(0.02), None, 0.01]


def test_missing_keys_are_counted_and_named(tmp_path):
    content = entries()
    gone = [key for key in content if "kernel:7" in key]
    for key in gone:
        del content[key]
    with pytest.raises(MissingOpError) as refused:
        imported(write(tmp_path, content=content))
    assert f"lacks {len(gone)} of 96 keys" in str(refused.value)
    assert gone[0] in str(refused.value)


def test_a_file_of_another_width_resolution_or_space_is_refused_with_the_reason(tmp_path):
    narrow = entries(space=spaces.load("ofa-mbv3-w10"))
    path = write(tmp_path, content=narrow)
    with pytest.raises(TableError, match=r"another .* width .*-output:112x112x16, wanted: .*x24"):
        imported(path)
    assert imported(path, space="ofa-mbv3-w10").space == "ofa-mbv3-w10"
    with pytest.raises(TableError, match="holds Conv-input:224x224x3"):
        imported(write(tmp_path, 160, entries(224)))
    proxyless = {
        **entries(by_ratio=True),
        "Logits-input:7x7x1280-output:1000": {"count": 1, "mean": 1.0},
    }
    del proxyless["Logits-input:1x1x1536-output:1000"]
    with pytest.raises(TableError, match="holds Logits-input:7x7x1280-output:1000"):
        imported(write(tmp_path, content=proxyless))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lacks 96 of 96 keys"),
        ("- 1\n- 2\n", "holds a list"),
        ("[" * 9000, "is not YAML"),
        ("a: [1", "is not YAML"),
        ("a: {mean: 1}\nb: {mean: 1}\na: {mean: 2}\n", "the key 'a' appears twice"),
        ("a: {mean: 1, mean: 2}\n", "the key 'mean' appears twice"),
        ("#" * (1 << 21), "larger than 1 MiB"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
    ids=["empty", "list", "deep", "cut", "twice", "twice in one", "large", "python object"],
)
def test_what_is_no_look_up_file_is_refused(tmp_path, text, reason):
    path = tmp_path / "224_lookup_table.yaml"
    path.write_text(text)
    with pytest.raises((ConfigError, MissingOpError), match=reason):
        imported(path)


@pytest.mark.parametrize(
    "mean", ["fast", 0, 0.0, -1.0, float("nan"), float("inf"), True, None, 10**400]
)
def test_a_time_that_is_none_is_refused(tmp_path, mean):
    content = entries()
    content["Logits-input:1x1x1536-output:1000"] = {"count": 1, "mean": mean}
    with pytest.raises(ConfigError, match="mean of Logits-input:1x1x1536-output:1000"):
        imported(write(tmp_path, content=content))


@pytest.mark.parametrize("spread", ["wide", -0.1, float("nan"), float("inf"), True, None])
@pytest.mark.parametrize("name", ["std", "var"])
def test_a_spread_that_is_none_is_refused(tmp_path, name, spread):
    content = entries()
    content["Logits-input:1x1x1536-output:1000"] = {"count": 1, "mean": 1.0, name: spread}
    with pytest.raises(ConfigError, match=f"{name} of Logits-input:1x1x1536-output:1000"):
        imported(write(tmp_path, content=content))


def times(content, factor, only=""):
    """The content of a file with some of its times changed."""
    return {
        key: {**value, "mean": value["mean"] * (factor if only in key else 1)}
        for key, value in content.items()
    }


def test_times_that_no_device_takes_are_refused_and_others_said(tmp_path, capsys):
    usual = entries()
    total_ms = sum(usual[key_of(op)]["mean"] for op in W12.restricted([224]).largest.ops)
    scale = 60 / total_ms  # a phone's: 14 GMAC/s
    phone = imported(write(tmp_path, content=times(usual, scale)))
    assert max_network(phone, W12) == "the max network takes 60 ms at 224 px (14.05 GMAC/s)"
    for factor in (1000, 1e-9, 1e300):
        with pytest.raises(ConfigError, match=r"max network: .* are these times ms\?"):
            imported(write(tmp_path, content=times(usual, scale * factor)))
    slow_op = "expanded_conv-input:7x7x192-output:7x7x192-expand:576-kernel:3"
    for factor in (1e4, 1e300):  # an op that the max network has not
        with pytest.raises(ConfigError, match=r"the whole max network .* the file is damaged"):
            imported(write(tmp_path, content=times(usual, factor, slow_op)))
    path = write(tmp_path, content=times(usual, scale * 10))  # a slow device's, for all one knows
    given = ["--space", W12.name, "--target", TARGET.name, "--out", str(tmp_path / "t.json")]
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", "table", str(path), *given])
    assert ended.value.code == 0
    assert "the max network takes 600 ms at 224 px (1.405 GMAC/s)" in capsys.readouterr().out


def test_a_table_of_every_multiple_of_four_pixels_is_read(tmp_path):
    made = imported(*(write(tmp_path, size, entries(size)) for size in (140, 236)))
    assert made.resolutions == (140, 236)
    assert table.check_serves(made, W12.restricted([140, 236]))


def test_names_of_files_and_spaces_are_checked(tmp_path):
    path = write(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        imported(tmp_path / "192_lookup_table.yaml")
    with pytest.raises(ConfigError, match=r"expected a name like 224_lookup_table\.yaml"):
        imported(write(tmp_path, 225, {}))
    with pytest.raises(ConfigError, match="both for 224 px"):
        imported(path, path)
    with pytest.raises(ConfigError, match="unknown space of once-for-all 'tiny'"):
        imported(path, space="tiny")


def test_the_command_writes_the_table_and_show_prints_it(tmp_path, capsys):
    out = tmp_path / "t.json"
    said = ["--space", "ofa-mbv3-w12", "--target", TARGET.name, "--out", str(out)]
    made = ["import", "table", str(write(tmp_path)), *said]
    for arguments in (made, ["table", "show", str(out)]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert "unvalidated" in capsys.readouterr().out
