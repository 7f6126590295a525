"""Files and keys shared by host and device: atomic writes, broken lines, names that parse back."""

from __future__ import annotations

import errno
import os

import pytest

from profilers import schema
from profilers.errors import ConfigError, DiskFullError, FileFormatError
from profilers.schema import Target


@pytest.mark.parametrize(
    "target",
    [
        Target("host", "ort-cpu"),
        Target("pi5", "ort-cpu", "int8", 8, 4),
        Target("orin", "tensorrt", "fp16", optimisation="basic"),
        Target("host", "ort-cpu", threads=2, spinning=True),
        Target("host", "ort-cpu", threads=2, optimisation="basic", spinning=True),
    ],
)
def test_a_targets_name_says_all_that_changes_a_latency(target):
    assert schema.target_from_name(target.name) == target
    assert schema.target_from_json(target.to_json()) == target


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"device": "host"}, "lacks the key 'runtime'"),
        ({"device": "host", "runtime": "ort-cpu", "colour": 1}, "unknown key 'colour'"),
        ({"device": "-oProxy", "runtime": "ort-cpu"}, "may hold letters"),
        ({"device": "host", "runtime": "ort-cpu", "batch": 0}, "batch 0"),
        ({"device": "host", "runtime": "ort-cpu", "batch": True}, "batch True"),
        ({"device": "host", "runtime": "ort-cpu", "precision": "fp8"}, "fp8"),
        ({"device": "host", "runtime": "ort-cpu", "optimisation": "O3"}, "O3"),
        ({"device": "host", "runtime": "ort-cpu", "spinning": True}, "2 threads or more"),
        ({"device": "host", "runtime": "ort-cpu", "threads": 2, "spinning": "yes"}, "true or"),
    ],
)
def test_a_wrong_target_is_named(data, message):
    with pytest.raises(ConfigError, match=message):
        schema.target_from_json(data)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    schema.write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="free some space"):
        schema.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_half_a_line_of_a_killed_writer_costs_only_itself(tmp_path):
    path = tmp_path / "lines.jsonl"
    schema.append_lines(path, [{"n": 1}])
    with path.open("a") as handle:
        handle.write('{"n": 2, "trunc')
    schema.append_lines(path, [{"n": 3}])
    assert schema.read_lines(path) == ([{"n": 1}, {"n": 3}], [2])


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert schema.read_lines(tmp_path / "none") == ([], [])


@pytest.mark.parametrize("text", ["{", "[1]", '{"format": "other"}', "\x00"])
def test_json_of_another_kind_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"x\.json"):
        schema.read_json(path, "wanted-1")


def test_canonical_json_refuses_what_is_not_a_number():
    with pytest.raises(ValueError, match="JSON compliant"):
        schema.canonical_json({"a": float("nan")})


def test_a_file_that_cannot_be_hashed_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileFormatError, match=f"{path} cannot be read: "):
            schema.sha256_file(path)


def test_a_missing_json_file_says_what_to_do(tmp_path):
    with pytest.raises(FileFormatError, match=r"none does not exist; check the path"):
        schema.read_json(tmp_path / "none")
