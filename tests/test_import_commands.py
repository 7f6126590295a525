"""`hwnas import`: a file of every kind given to every subcommand."""

import json

import numpy as np
import pytest
import torch
import yaml

from hwnas import cli
from hwnas.networks import spaces
from hwnas.ofa.dictionaries import to_dictionary
from hwnas.ofa.kinds import WORDS, subcommands_of

SPACE = spaces.load("ofa-mbv3-w12")


@pytest.fixture
def files(tmp_path):
    """A file of each kind by the subcommand that reads it, some in two spellings."""
    arch = json.dumps(to_dictionary(SPACE.largest))
    (tmp_path / "net.config").write_text(json.dumps({"name": "MobileNetV3", "blocks": []}))
    (tmp_path / "r.csv").write_text(f"Sub-network,Top-1 Acc (%)\n'{arch}',75\n")
    (tmp_path / "l.csv").write_text(f"subnet,Latency (ms)\n'{arch}',75\n")
    (tmp_path / "ops.csv").write_text("key,ms\nnetwork,1\n")
    (tmp_path / "ops.json").write_text('{"network": {"ms": 1}}')
    (tmp_path / "224.dict").write_text(json.dumps({arch: 75.0}))
    keys = {"Conv-input:224x224x3-output:112x112x24": {"count": 1, "mean": 1.0, "std": 0.1}}
    (tmp_path / "224_lookup_table.yaml").write_text(yaml.safe_dump(keys))
    zeros = torch.zeros(1)
    torch.save({"0.weight": zeros, "0.bias": zeros}, tmp_path / "acc_predictor.pth")
    library = {"state_dict": {"layers.0.0.weight": zeros, "base_acc": zeros}}
    torch.save(library, tmp_path / "library.pth")
    torch.save({"state_dict": {"first_conv.conv.weight": zeros}}, tmp_path / "ofa_mbv3")
    named = {
        "supernet": ["ofa_mbv3"],
        "predictor": ["acc_predictor.pth", "library.pth"],
        "results": ["r.csv", "224.dict"],
        "architecture": ["net.config", "."],
        "table": ["224_lookup_table.yaml", "ops.csv", "ops.json"],
        "latencies": ["l.csv"],
    }
    return {kind: [tmp_path / name for name in names] for kind, names in named.items()}


def test_the_subcommand_that_reads_a_file_is_told_by_its_content(files, tmp_path):
    for kind, paths in files.items():
        for path in paths:
            assert kind in subcommands_of(path)
    strange = {
        "none": None,
        "empty": b"",
        "cut": b"PK\x03\x04",
        "json": b"{",
        "list": b"[1]",
        "{}": b"{}",
    }
    strange |= {
        "empty map": b"{}",
        "map": b'{"a": "b"}',
        "csv": b"a,b\n1,2\n",
        "png": b"\x89PNG\r\n",
        "none.json": b"{}",
    }
    for name, content in strange.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert subcommands_of(tmp_path / name) == []
    np.savez(tmp_path / "predictor.npz", weight=np.ones(3))
    assert subcommands_of(tmp_path / "predictor.npz") == []


@pytest.mark.parametrize("subcommand", WORDS)
def test_a_file_of_another_kind_is_told_which_subcommand_reads_it(
    files, tmp_path, capsys, subcommand
):
    out = tmp_path / "out"
    said = ["--space", SPACE.name, "--out", str(out)]
    said += ["--target", "note10.tflite.fp32.b1.t1"] if subcommand in ("table", "latencies") else []
    for kind in files.keys() - {subcommand}:
        for path in files[kind]:
            with pytest.raises(SystemExit) as ended:
                cli.main(["import", subcommand, str(path), *said])
            assert ended.value.code == 2
            told = capsys.readouterr().err
            assert told.startswith(f"hwnas: {path} is ")
            assert told.endswith(f"`hwnas import {kind}` reads it\n")
            assert not out.exists()


@pytest.mark.parametrize("subcommand", WORDS)
def test_the_file_that_is_read_is_not_written_over(files, tmp_path, capsys, subcommand):
    path = files[subcommand][0]
    before, link = path.read_bytes(), tmp_path / "link"
    link.hardlink_to(path)
    for out in (path, link):
        said = ["--space", SPACE.name, "--out", str(out)]
        said += (
            ["--target", "note10.tflite.fp32.b1.t1"] if subcommand in ("table", "latencies") else []
        )
        with pytest.raises(SystemExit) as ended:
            cli.main(["import", subcommand, str(path), *said])
        assert ended.value.code == 2
        assert f"--out {out} is the file that is read" in capsys.readouterr().err
        assert path.read_bytes() == before


def test_help_of_every_subcommand_has_an_example(capsys):
    for subcommand in WORDS:
        with pytest.raises(SystemExit):
            cli.main(["import", subcommand, "--help"])
        assert f"Example: hwnas import {subcommand} " in capsys.readouterr().out


@pytest.mark.parametrize("old", [["import-ofa"], ["import", "accuracies"], ["table", "import-ofa"]])
def test_the_commands_before_are_gone(old, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*old, "file"])
    assert ended.value.code == 2
    assert "No such command" in capsys.readouterr().err
