"""net.config files and CSV of measured subnets: other tools' spellings to architectures."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import ofa_oracle
import pytest
import typer
import yaml

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.ofa.dictionaries import to_dictionary
from hwnas.ofa.net_config import read_net_config
from hwnas.ofa.results import read_results, write_results
from hwnas.settings.config import Config
from profilers.errors import ConfigError, FileFormatError

W10 = spaces.load("ofa-mbv3-w10")


# ---- net.config ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    """Their supernets; the MobileNets with the plain configuration of the active subnet."""
    return {name: ofa_oracle.supernet(name) for name in ofa_oracle.CLASSES}


def config_of(networks, arch):
    """The configuration that once-for-all writes for an architecture."""
    net = networks[arch.space.name]
    ofa_oracle.activate(net, arch)
    found = net.get_active_net_config()
    if arch.space.name == "ofa-resnet50d":  # a module object is embedded: their own fault
        net = net.get_active_subnet(preserve_weight=False)
        found = net.config
    return json.loads(json.dumps(found))


def write(folder, config, size):
    (folder / "net.config").write_text(json.dumps(config))
    (folder / "run.config").write_text(json.dumps({"image_size": size}))
    return folder


@pytest.mark.parametrize("name", list(ofa_oracle.CLASSES))
def test_the_configuration_of_a_subnet_gives_its_architecture(tmp_path, networks, name):
    space, rng = spaces.load(name), np.random.default_rng(0)
    for arch in (space.largest, space.smallest, *(space.random(rng) for _ in range(5))):
        folder = write(tmp_path, config_of(networks, arch), arch.resolution)
        assert read_net_config(folder, space) == arch
        assert read_net_config(folder / "net.config", space, 128).resolution == 128


def old_spelling(config):
    """The configuration as older files spell it."""
    for block in config["blocks"]:
        block["name"] = "MobileInvertedResidualBlock"
        block["mobile_inverted_conv"] = block.pop("conv")
        block["mobile_inverted_conv"]["name"] = "MBInvertedConvLayer"
        block["mobile_inverted_conv"]["mid_channels"] = None
        if block["shortcut"]:
            for key in ("in_channels", "out_channels"):
                block["shortcut"][key] = [block["shortcut"][key]]
    for name in ("first_conv", "final_expand_layer", "feature_mix_layer"):
        del config[name]["use_se"]  # as in all that were published
    return config


def test_older_names_of_layers_and_widths_that_are_not_said_are_read(tmp_path, networks):
    arch = W10.random(np.random.default_rng(1))
    config = old_spelling(config_of(networks, arch))
    assert read_net_config(write(tmp_path, config, arch.resolution), W10) == arch


def changed(config, place, **values):
    config["blocks"][place]["conv"].update(values)
    return config


def test_a_network_that_is_not_in_the_space_is_refused_with_the_number(tmp_path, networks):
    def refused(config, reason, space=W10, size=224):
        with pytest.raises(ConfigError, match=reason):
            read_net_config(write(tmp_path, config, size), space)

    def given():
        return config_of(networks, W10.largest)

    refused(given(), r"resolutions \[141\] not offered .* multiples of 4 from 128 to 260", size=141)
    refused(given(), "stage1 has width 24, ofa-mbv3-w12 has 32", spaces.load("ofa-mbv3-w12"))
    refused(given(), r"5 stages, ofa-proxyless-w13 has 6", spaces.load("ofa-proxyless-w13"))
    refused(changed(given(), 1, kernel_size=9), r"stage1\.block1\.kernel_size = 9 is not offered")
    refused(changed(given(), 1, expand_ratio=5), r"stage1\.block1\.expand_ratio = 5 is not offered")
    refused(
        changed(given(), 6, mid_channels=99),
        "stage2.block2.conv.mid_channels is 99, expected 240 in ofa",
    )
    refused(changed(given(), 2, use_se=True), "stage1.block2.conv.use_se is True, expected False")
    short = given()
    del short["blocks"][2:5]
    refused(short, r"stage1\.depth = 1 is not offered")
    refused({"blocks": 3}, "is not a network of ofa-mbv3-w10")
    with pytest.raises(ConfigError, match="tiny is not one of once-for-all's"):
        read_net_config(tmp_path, spaces.load("tiny"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["first_conv"].update(out_channels=999), "first_conv.out_channels is 999"),
        (lambda c: c["first_conv"].update(use_bn=False), "first_conv.use_bn is False"),
        (lambda c: c["classifier"].update(out_features=10), "classifier.out_features is 10"),
        (lambda c: changed(c, 0, kernel_size=7), "stage0.block1.conv.kernel_size is 7, expected 3"),
        (lambda c: c["final_expand_layer"].update(out_channels=7), "final_expand_layer.out_chan"),
        (lambda c: c["final_expand_layer"].update(groups=2), "final_expand_layer.groups is 2"),
        (lambda c: changed(c, 3, groups=1), "stage1.block3.conv.groups is 1, expected None"),
        (lambda c: c.update(name="ResNets"), "name is ResNets, expected MobileNetV3"),
        (lambda c: c["blocks"][2].update(shortcut=None), "stage1.block2.shortcut is None"),
        (lambda c: c["blocks"][2]["shortcut"].update(in_channels=9), "shortcut.in_channels is 9"),
        (lambda c: c["bn"].update(eps=1.0), "bn.eps is 1.0, expected 1e-05"),
        (
            lambda c: c["bn"].update(gn_channel_per_group=8),
            "bn.gn_channel_per_group is not a field there",
        ),
        (lambda c: c["classifier"].pop("in_features"), "classifier.in_features is None"),
        (lambda c: c.pop("feature_mix_layer"), "feature_mix_layer is None, expected a layer"),
        (lambda c: changed(c, 1, expand_ratio=float("inf")), "Infinity is not a number"),
        (lambda c: changed(c, 1, expand_ratio=1e308), "block1.expand_ratio = "),
        (lambda c: changed(c, 1, kernel_size=1e308), "kernel_size = 10+109 is not offered"),
        (lambda c: changed(c, 1, kernel_size=3.5), "'3.5' is not a whole number"),
        (lambda c: changed(c, 1, name=["x"]), "is not a network of"),
    ],
)
def test_every_number_of_a_file_is_compared(tmp_path, networks, change, reason):
    config = config_of(networks, W10.largest)
    change(config)
    with pytest.raises(ConfigError, match=reason):
        read_net_config(write(tmp_path, config, 224), W10)


def test_networks_of_every_multiple_of_four_pixels_are_read(tmp_path, networks):
    config = config_of(networks, W10.largest)
    for size in range(128, 261, 4):
        assert read_net_config(write(tmp_path, config, size), W10).resolution == size


def test_files_that_are_missing_or_cut_short_are_named(tmp_path, networks):
    folder = write(tmp_path, config_of(networks, W10.smallest), 224)
    text = (folder / "net.config").read_text()
    (folder / "net.config").write_text(text[:100])
    with pytest.raises(FileFormatError, match=r"net\.config is not JSON"):
        read_net_config(folder, W10)
    (folder / "net.config").write_text(text)
    (folder / "run.config").unlink()
    with pytest.raises(ConfigError, match="say the input size with --resolution"):
        read_net_config(folder, W10)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_net_config(tmp_path / "none", W10)


# ---- measured subnets ---------------------------------------------------------------------------


def dynast_csv(path, archs, top1, dialect=repr, wid=None, unit=1.0):
    """A file as DyNAS-T writes it; its counter of MACs adds normalisation."""
    header = ["Sub-network", "Date", "Model Parameters", "Latency (ms)", "MACs", "Top-1 Acc (%)"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for arch, accuracy in zip(archs, top1, strict=True):
            given = to_dictionary(arch)
            given = {"wid": wid, **given, "r": [given.pop("image_size")]}
            costs = exact_costs(arch)
            counts = (costs["params"] * unit, 39, 1.06 * costs["macs"] * unit)
            writer.writerow([dialect(given), "2022-07-07 03:13:06.306540", *counts, accuracy])
    return path


@pytest.fixture
def archs():
    rng = np.random.default_rng(0)
    return [W10.largest, W10.smallest, *(W10.random(rng) for _ in range(8))]


@pytest.mark.parametrize("dialect", [repr, json.dumps], ids=["Python", "JSON"])
def test_rows_of_dynast_become_architectures_and_fractions(tmp_path, archs, dialect):
    top1 = [75 + n / 8 for n in range(len(archs))]
    found = read_results(dynast_csv(tmp_path / "r.csv", archs, top1, dialect), W10)
    assert [r.arch for r in found] == archs
    assert [r.top1 for r in found] == [value / 100 for value in top1]
    assert [r.lines for r in found] == [(n,) for n in range(2, 12)]


def test_once_for_alls_dict_and_our_own_columns_are_read(tmp_path, archs):
    path = tmp_path / "224.dict"
    path.write_text(json.dumps({json.dumps(to_dictionary(a)): 75.5 for a in archs}))
    assert [(r.arch, r.top1) for r in read_results(path, W10)] == [(a, 0.755) for a in archs]
    path = tmp_path / "ours.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("arch", "top1"), *((json.dumps(a.to_json()), 0.5) for a in archs)]
        )
    assert [(r.arch, r.top1) for r in read_results(path, W10)] == [(a, 0.5) for a in archs]


def test_imported_subnets_are_what_a_predictor_is_fitted_from(tmp_path, archs):
    path = dynast_csv(tmp_path / "r.csv", archs, [75.0] * len(archs))
    write_results(read_results(path, W10), path, tmp_path / "ours.csv", "")
    found = read_results(tmp_path / "ours.csv", W10)
    assert {r.arch: r.top1 for r in found} == dict.fromkeys(archs, 0.75)


def test_an_architecture_without_input_size_takes_the_one_that_is_said(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('arch,top1\n"{""ks"": 7, ""e"": 6, ""d"": 4}",0.76\n')
    assert read_results(path, W10, 224)[0].arch == W10.largest
    with pytest.raises(ConfigError, match=r"r\.csv: line 2: .* input size"):
        read_results(path, W10)


def test_rows_that_cannot_be_used_are_named_by_line(tmp_path, archs):
    path = tmp_path / "r.csv"
    for top1, reason in (
        (
            [75.0, "nan", *[70.0] * 8],
            r"line 3: Top-1 Acc .%. is 'nan', expected a number of 0 or more",
        ),
        ([75.0, "", *[70.0] * 8], r"line 3: Top-1 Acc .%. is '', expected"),
        ([75.0, 101.0, *[70.0] * 8], r"line 3: accuracy 101 is not in 0 to 100 %"),
        ([75.0, -1.0, *[70.0] * 8], r"line 3: Top-1 Acc .%. is '-1.0', expected"),
        ([75.0, 0.7468, *[70.0] * 8], r"line 3: accuracy 0\.7468 of 1 rows .* 'Top-1 Acc \(%\)'"),
        ([0.75, 0.7468, *[0.7] * 8], r"line 2: accuracy 0\.75 of 10 rows at most 1, where 'Top"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_results(dynast_csv(path, archs, top1), W10)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("arch", "top1"),
                (json.dumps(archs[0].to_json()), 0.7),
                (json.dumps(archs[1].to_json()), 70),
            ]
        )
    with pytest.raises(ConfigError, match=r"0\.7 in line 2, 70 in line 3: fraction or percent"):
        read_results(path, W10)
    other = spaces.load("ofa-resnet50d").largest
    with pytest.raises(ConfigError, match="line 2: architecture lacks 'ks'"):
        read_results(dynast_csv(path, [other], [75.0]), W10)
    path.write_text("arch,top1\n__import__('os').system('false'),0.5\n")
    with pytest.raises(ConfigError, match=r"line 2: .* is not an architecture"):
        read_results(path, W10)
    path.write_text("arch,top1\n{},0.5,3\n")
    with pytest.raises(ConfigError, match="line 2: 3 values, the header names 2"):
        read_results(path, W10)


def test_a_file_that_was_cut_inside_its_last_number_is_refused(tmp_path, archs):
    path = dynast_csv(tmp_path / "r.csv", archs, [77.432] * len(archs))
    whole = path.read_bytes()
    for cut in range(3, 8):
        path.write_bytes(whole[:-cut])
        with pytest.raises(ConfigError, match=r"does not end with a whole line .* cut short"):
            read_results(path, W10)
    write_results(read_results(dynast_csv(path, archs, [75.0] * 10), W10), path, path, "")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="does not end with a whole line"):
        read_results(path, W10)


def test_counts_say_what_space_a_file_is_of(tmp_path, archs):
    path = tmp_path / "r.csv"
    w12, w13 = spaces.load("ofa-mbv3-w12"), spaces.load("ofa-proxyless-w13")
    for top1, unit in ((75.0, 1.0), (75.0, 1e-6), (75.0, 0.0)):  # counts, millions, not counted
        rows = dynast_csv(path, archs, [top1] * len(archs), unit=unit)
        assert len(read_results(rows, W10)) == len(archs)
        if unit:
            with pytest.raises(ConfigError, match=r"line 2: .* of ofa-mbv3-w12 has .*: name"):
                read_results(rows, w12)
    ten = spaces.load("ofa-proxyless-w10")
    with pytest.raises(ConfigError, match=r"line 2: (macs|params)"):
        read_results(dynast_csv(path, [ten.smallest], [75.0]), w13)
    odd = dynast_csv(path, archs, [75.0] * len(archs)).read_text().replace(",39,", ",39,x")
    path.write_text(odd)
    with pytest.raises(ConfigError, match=r"line 2: MACs is 'x[0-9.]+', expected a number"):
        read_results(path, W10)


def test_networks_of_another_width_are_refused_where_the_file_says_it(tmp_path, archs):
    path = tmp_path / "r.csv"
    with pytest.raises(ConfigError, match=r"line 2: architecture has wid 1\.2, ofa-mbv3-w10 has 1"):
        read_results(dynast_csv(path, archs, [75.0] * len(archs), wid=1.2), W10)
    rows = dynast_csv(path, archs, [75.0] * len(archs), wid=1.0)
    assert len(read_results(rows, W10)) == len(archs)


def test_networks_measured_more_than_once_are_averaged_and_all_listed(tmp_path, archs, capsys):
    path = tmp_path / "r.csv"
    small = W10.architecture([128, *archs[1].values[1:]])
    given = [archs[0], small, archs[0], archs[2], small]
    dynast_csv(path, given, [75.0, 70.0, 75.5, 72.0, 70.2])
    found = read_results(path, W10)
    assert [(r.lines, r.arch) for r in found] == [
        ((2, 4), archs[0]),
        ((3, 6), small),
        ((5,), archs[2]),
    ]
    assert [r.top1 for r in found] == pytest.approx([0.7525, 0.701, 0.72])
    assert ran("results", path, "--space", W10.name, "--out", tmp_path / "a.jsonl") == 0
    told = "2 networks were measured more than once and averaged: lines 2, 4 (0.50% apart); lines 3"
    assert told in capsys.readouterr().out
    dynast_csv(path, given, [75.0, 70.0, 65.0, 72.0, 60.0])
    with pytest.raises(FileFormatError, match=r"more than 2% apart: lines 2, 4 .*; lines 3, 6"):
        read_results(path, W10)


def test_measured_networks_of_every_multiple_of_four_pixels_are_read(tmp_path):
    sizes = [W10.restricted([size]).largest for size in (140, 188, 236, 260)]
    whole = W10.restricted(W10.every_resolution)
    found = read_results(dynast_csv(tmp_path / "r.csv", sizes, [75.0] * 4), whole)
    assert [r.arch.resolution for r in found] == [140, 188, 236, 260]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no column named top1"),
        (b"arch,top1\n", "holds no measured network"),
        (b"arch,latency\n1,2\n", "no column named top1"),
        (b"arch,subnet,top1\n", "several columns of one thing, arch and subnet"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_what_is_no_file_of_measured_subnets_is_refused(tmp_path, content, reason):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=reason):
        read_results(path, W10)


# ---- commands -----------------------------------------------------------------------------------


def ran(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", *map(str, arguments)])
    return ended.value.code


def test_commands_write_accuracies_and_architectures(tmp_path, archs, networks, capsys):
    source = dynast_csv(tmp_path / "r.csv", archs, [75.0] * len(archs))
    out = tmp_path / "accuracy.jsonl"
    assert ran("results", source, "--space", W10.name, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["subnets"] == 10
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [W10.from_json(row["arch"]) for row in rows] == archs
    assert {(row["split"], row["accuracy"]) for row in rows} == {("imported", 0.75)}
    folder = write(tmp_path, config_of(networks, W10.smallest), 128)
    made = tmp_path / "arch.json"
    assert ran("architecture", folder, "--space", W10.name, "--out", made) == 0
    assert f"hwnas finetune hwnas.yaml --subnet {made}" in capsys.readouterr().out
    assert W10.from_json(json.loads(made.read_text())) == W10.smallest
    assert ran("results", tmp_path / "none.csv", "--space", W10.name) == 2


# ---- docs/ofa.md --------------------------------------------------------------------------------

GUIDE = (Path(__file__).parent.parent / "docs" / "ofa.md").read_text()


def test_settings_of_the_guide_are_settings():
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    config = Config(**yaml.safe_load(text))
    assert config.data.stream
    assert spaces.load(config.space.name).restricted(config.space.resolutions)


def test_commands_of_the_guide_are_commands():
    named = set(re.findall(r"(?m)(?:^    |`)hwnas ([a-z-]+)", GUIDE))
    group = typer.main.get_command(cli.app)
    assert named <= set(group.commands)
    below = set(re.findall(r"hwnas (import|table|devices) ([a-z-]+)", GUIDE))
    assert all(sub in group.commands[name].commands for name, sub in below)


def test_settings_that_the_guide_translates_to_are_settings():
    """Dotted names in the right columns, as search.population."""
    schema = Config.model_json_schema()["$defs"]
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    known = {
        f"{section}.{name}"
        for section, kind in sections.items()
        for name in schema.get(getattr(kind, "__name__", ""), {}).get("properties", {})
    }
    theirs = ("training.", "search.acc_delta", "search.num_evals", "accuracy.jsonl")
    for name in re.findall(r"`([a-z]+\.[a-z_]+)[`:]", GUIDE):
        if name.split(".")[0] in sections and not name.startswith(theirs):
            assert name in known, name


# ---- a space of the user's own ------------------------------------------------------------------


def test_files_of_once_for_all_are_read_for_a_space_of_the_users_own_of_its_families(
    tmp_path, networks, archs, monkeypatch, capsys
):
    """Of another name and fewer blocks."""
    (tmp_path / "my_ofa.py").write_text(
        "from dataclasses import replace\nfrom hwnas.networks import spaces\n"
        "SPACE = replace(spaces.load('ofa-mbv3-w10'), name='mine')\n"
        "TINY = spaces.load('tiny')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = dynast_csv(tmp_path / "r.csv", archs, [75.0] * len(archs), wid=1.7)
    own = ("--space", "my_ofa:SPACE")
    assert ran("results", rows, *own, "--out", tmp_path / "a.jsonl") == 0
    folder = write(tmp_path, config_of(networks, W10.smallest), 140)
    assert ran("architecture", folder, *own, "--out", tmp_path / "a.json") == 0
    assert json.loads((tmp_path / "a.json").read_text())["space"] == "mine"
    capsys.readouterr()
    assert ran("results", rows, "--space", "my_ofa:TINY", "--out", tmp_path / "b.jsonl") == 2
    assert "module:NAME of your own of their families" in capsys.readouterr().err
