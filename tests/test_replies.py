"""What a worker says is refused where it has another shape, or is not what was asked for."""

import math

import numpy as np
import pytest

from hwnas.measuring import replies
from profilers import errors, protocol
from profilers.devices import host
from profilers.environment import describe
from profilers.errors import DeviceError
from profilers.schema import Target

SAMPLE = {"item": "a", "role": "micro", "order": 0, "t_s": 1.0, "warm": 1, "loops": 3, "ms": 1.0}
PROFILE = {"item": "a", "role": "micro", "order": 2, "t_s": 3.0, "loops": 3, "profile": [["s", 1]]}
ROUND = [SAMPLE, {**SAMPLE, "item": "b", "order": 1}, PROFILE]
ROLES = {"a": "micro", "b": "micro", "c": "micro"}
END = {"left": ["c"], "failed": {}}
WINDOW = {
    **{"item": "a", "role": "heldout", "order": 0, "t_s": 1.0, "loops": 9, "window_s": 2.0},
    **{"run_ms": 1.0, "energy_mj": 3.0, "net_energy_mj": None, "power_w": 1.5, "idle_w": None},
    **{"idle_before_w": None, "idle_after_w": None, "rails": {"x": 3.0}, "samples": 9},
    "period_s": 0.1,
}
DONE = {
    "measure": {"left": [], "failed": {}, "open_s": 0.1, "sample_s": 0.2, "profile_s": 0.0},
    "cold": {
        **{"load_ms": 1.0, "first_run_ms": 2.0, "engine_bytes": 1, "resident_bytes": 2},
        "wait_ms": 0.5,
        "input_shape": [1, 3, 8, 8],
    },
    "kit": {"missing": ["0" * 64]},
    "clean": {"folder": "/x", "freed_bytes": 7},
    "run": {"shape": [1, 10]},
    "energy": {"energy_s": 3.0},
    "put": {"have": 7},
    "built": {"sizes": [7, 0]},
}
HOSTILE = (-1, None, True, [], {}, math.inf, math.nan, 10**400, "../../etc", "\x1b[2J", "é" * 10**6)


def done(kind, **changes):
    return {"type": "done", "seq": 5, "re": 1, **DONE[kind], **changes}


def record(kind, value):
    return {"type": "record", "seq": 5, "re": 1, "record": value}


@pytest.mark.parametrize(
    "line",
    [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"ms": NaN}', b'{"ms": Infinity}', b'{"ms": 1e999}',
     b'"\\ud800"', b"\x1b[2J"],
)  # fmt: skip
def test_what_is_no_json_is_nothing(line):
    assert protocol.parse(line) is None


def test_json_is_read_and_its_text_is_one_line_that_no_terminal_obeys():
    assert protocol.parse(b'{"ms": 1.5}\n') == {"ms": 1.5}
    line = '{"a\\n\\u001b[2J": ["x\\ty", "\u202eevil"]}'.encode()
    assert protocol.parse(line) == {"a ?[2J": ["x y", "?evil"]}


@pytest.mark.parametrize("kind", DONE)
def test_every_field_of_every_answer_is_checked(kind):
    assert protocol.wrong_reply(done(kind), kind, 1) == ""
    for name in DONE[kind]:
        taken = [
            value
            for value in HOSTILE
            if not protocol.wrong_reply(done(kind, **{name: value}), kind, 1)
        ]
        allowed = {"left": [[]], "failed": [{}], "missing": [[]], "shape": [[]], "sizes": [[]]}
        allowed |= {"input_shape": [None, []], "wait_ms": [None], "folder": ["../../etc"]}
        assert taken == allowed.get(name, [])
        short = done(kind)
        del short[name]
        assert f"lacks {name!r}" in protocol.wrong_reply(short, kind, 1)
    assert "unknown field 'x'" in protocol.wrong_reply(done(kind, x=1), kind, 1)
    assert "to request 2, not 1" in protocol.wrong_reply(done(kind, re=2), kind, 1)


@pytest.mark.parametrize(
    ("kind", "whole"),
    [("measure", SAMPLE), ("measure", {**SAMPLE, "probe": host.state()}), ("measure", PROFILE),
     ("energy", WINDOW), ("run", {"offset": 0, "data": "AAAA"})],
)  # fmt: skip
def test_every_field_of_every_record_is_checked(kind, whole):
    assert protocol.wrong_reply(record(kind, whole), kind, 1) == ""
    for name in whole:
        wrong = [value for value in HOSTILE if value not in (None, [], {}, "../../etc")]
        for value in wrong[name == "net_energy_mj" :]:
            assert protocol.wrong_reply(record(kind, {**whole, name: value}), kind, 1)
    for name, value in (("id", ["k", "a", 0, "x"]), ("failed", {}), ("ms", 9.0), ("extra", 1)):
        if name not in whole:
            assert protocol.wrong_reply(record(kind, {**whole, name: value}), kind, 1)
    assert protocol.wrong_reply(record("probe", whole), "probe", 1)


@pytest.mark.parametrize("change", [{"probe": {"heat": 1}}, {"probe": "x"}, {"ms": 0}, {"ms": 4e6}])
def test_a_sample_out_of_bounds_is_refused(change):
    assert protocol.wrong_reply(record("measure", {**SAMPLE, **change}), "measure", 1)


def test_the_environment_of_this_machine_is_taken_and_another_one_is_not():
    found = describe(Target("host", "ort-cpu"))
    assert protocol.ENVIRONMENT(found) == ""
    for change in ({"fingerprint": "../../x"}, {"cpu": "x" * 1000}, {"cores": -1}, {"user": "me"}):
        assert protocol.ENVIRONMENT({**found, **change})


# ---- what was asked for ------------------------------------------------------------------------


def check(records, end=END, profile=("a",)):
    replies.check_round(end, records, ["a", "b", "c"], profile, ROLES)


def test_a_round_as_it_was_asked_for_is_taken():
    check(ROUND)
    check(ROUND[:2])


@pytest.mark.parametrize(
    "records",
    [ROUND[:1], [*ROUND, SAMPLE], ROUND[::-1], [*ROUND, PROFILE], [],
     [SAMPLE, {**SAMPLE, "item": "c", "order": 1}], [{**SAMPLE, "role": "anchor"}, ROUND[1]],
     [SAMPLE, SAMPLE], [*ROUND[:2], {**PROFILE, "item": "b"}],
     [{**SAMPLE, "order": 1}, {**ROUND[1], "order": 0}]],
)  # fmt: skip
def test_another_round_is_refused(records):
    with pytest.raises(DeviceError, match="worker sent"):
        check(records)


@pytest.mark.parametrize("end", [{"left": ["x"], "failed": {}}, {"left": [], "failed": {"x": {}}}])
def test_an_end_of_other_items_is_refused(end):
    with pytest.raises(DeviceError, match="of other items"):
        check(ROUND, end)


def test_windows_are_one_of_each_item():
    replies.check_windows([WINDOW], ["a"], {"a": "heldout"})
    for records in ([], [WINDOW, WINDOW], [{**WINDOW, "role": "micro"}], [{**WINDOW, "item": "b"}]):
        with pytest.raises(DeviceError, match="worker sent"):
            replies.check_windows(records, ["a"], {"a": "heldout", "b": "heldout"})


def test_files_that_are_not_the_kits_are_not_sent():
    replies.check_missing(["a"], {"a": 1})
    with pytest.raises(DeviceError, match="not of its kit"):
        replies.check_missing(["a", "b"], {"a": 1})


def test_outputs_are_put_together_or_refused():
    pieces = [{"offset": 0, "data": "AACAPw=="}, {"offset": 4, "data": "AAAAQA=="}]
    np.testing.assert_array_equal(replies.outputs(pieces, [2, 1], 2), [[1.0], [2.0]])
    for records, shape in (
        (pieces[::-1], [2, 1]), (pieces, [1, 2]), (pieces, [2, 1 << 40]), (pieces[:1], [2, 1]),
        ([{"offset": 0, "data": "AAA"}], [2, 1]), (pieces, []),
    ):  # fmt: skip
        with pytest.raises(DeviceError, match="worker sent"):
            replies.outputs(records, shape, 2)


def test_files_come_apart_again_or_are_refused():
    pieces = [{"offset": 0, "data": "AACAPw=="}, {"offset": 4, "data": "AAAAQA=="}]
    assert replies.files(pieces, [3, 5], 2) == [b"\0\0\x80", b"?\0\0\0@"]
    assert replies.files([], [0], 1) == [b""]
    for records, sizes, count in (
        (pieces[::-1], [8], 1), (pieces, [8], 2), (pieces, [4], 1), (pieces, [8, 1 << 50], 2),
        ([{"offset": 0, "data": "AAA"}], [2], 1),
    ):  # fmt: skip
        with pytest.raises(DeviceError, match="worker sent"):
            replies.files(records, sizes, count)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("ConfigError", errors.ConfigError), ("DeviceBusyError", errors.DeviceBusyError),
     ("MeterError", errors.MeterError), ("ProtocolError", DeviceError), ("MOST", DeviceError),
     ("InfeasibleError", DeviceError), ("VerificationError", DeviceError), ("", DeviceError),
     ("LostDeviceError", DeviceError), ("EngineCrashError", DeviceError)],
)  # fmt: skip
def test_a_board_names_errors_about_itself_only(code, kind):
    found = replies.error_from_fields({"code": code, "text": "t"})
    assert type(found) is kind
    assert str(found) == "t"
