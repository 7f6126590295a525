"""What a worker says is refused where it is not what was asked for."""

import pytest

from hwnas.measuring import answers
from profilers.errors import DeviceError

ENVIRONMENT = {"fingerprint": "0" * 64, "cpu": "x"}
END = {"left": ["b"], "failed": {}, "open_s": 0.1, "sample_s": 0.2, "profile_s": 0.0}


@pytest.mark.parametrize(
    "line",
    [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"ms": NaN}', b'{"ms": Infinity}', b'{"ms": 1e999}',
     b'"\\ud800"', b"\x1b[2J"],
)  # fmt: skip
def test_what_is_no_json_is_nothing(line):
    assert answers.parse(line) is None


def test_json_is_read():
    assert answers.parse(b'{"ms": 1.5}\n') == {"ms": 1.5}


def test_an_environment_with_a_fingerprint_is_taken():
    assert answers.check_environment(ENVIRONMENT) == ENVIRONMENT


@pytest.mark.parametrize(
    "found",
    [None, [], "x", {}, {"fingerprint": 7}, {"fingerprint": "../../x"}, {"fingerprint": "A" * 64},
     {**ENVIRONMENT, "cpu": "x" * 100_000}],
)  # fmt: skip
def test_another_environment_is_refused(found):
    with pytest.raises(DeviceError, match="worker sent an environment"):
        answers.check_environment(found)


def test_the_end_of_a_round_of_these_items_is_taken():
    answers.check_round(END, ["a", "b"])


@pytest.mark.parametrize(
    "change",
    [{"left": "b"}, {"left": [7]}, {"left": ["../x"]}, {"failed": []}, {"failed": {"c": {}}},
     {"failed": {"a": {"code": "DeviceError"}}}, {"open_s": -1}, {"sample_s": float("nan")},
     {"profile_s": "1"}, {"open_s": 1e30}, {"open_s": True}],
)  # fmt: skip
def test_another_end_of_a_round_is_refused(change):
    with pytest.raises(DeviceError, match="worker sent"):
        answers.check_round({**END, **change}, ["a", "b"])
