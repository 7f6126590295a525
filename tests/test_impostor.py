"""A worker that lies, as a real process: nothing of it is kept, one line says what was refused."""

import impostor
import pytest

from profilers.errors import DeviceError
from profilers.schema import read_lines

FORGED = {"id": ["k", "a", 0, "anchor-000"], "ms": 1e-3}
LIES = [
    ("energy", [{"type": "record", "record": FORGED}, {"type": "done"}]),
    ("energy", [{"type": "record", "record": {"ms": 1e-3}}, {"type": "done"}]),
    ("measure", [{"type": "record", "record": {"item": "@item", **FORGED}}]),
    ("measure", [{"type": "record", "record": {"item": "../../x"}}]),
    ("measure", [{"type": "record", "record": {"energy_mj": 1.0}}]),
    ("measure", [{"type": "record", "record": {"failed": {"code": "", "text": ""}}}]),
    ("measure", [{"type": "progress", "item": "heldout-999", "opened": 1, "of": 2}]),
    ("measure", [{"type": "done", "failed": {"anchor-000": {"code": "X", "text": "\x1b[2J"}}}]),
    ("kit", [{"type": "done", "missing": ["f" * 64]}]),
    ("kit", [{"type": "done", "missing": "everything"}]),
    ("probe", [{"type": "done", "environment": {"fingerprint": "\x1b[2J"}}]),
    ("cold", [{"type": "done", "load_ms": -1}]),
    ("cold", [{"type": "done", "input_shape": "wide"}]),
    ("run", [{"type": "record", "record": {"offset": -1}}]),
    ("run", [{"type": "done", "shape": [1 << 40, 1 << 40]}]),
    ("clean", [{"type": "done", "folder": 7}]),
    ("clean", [{"type": "error", "code": "InfeasibleError", "text": "a\x1b[2J\nb" + "x" * 500}]),
    ("hello", [1 << 20, {"type": "done"}]),
]


@pytest.mark.parametrize("request_", {request: 0 for request, _ in LIES})
def test_an_impostor_that_tells_the_truth_is_believed(tmp_path, request_):
    assert impostor.asked(request_, tmp_path)([]) is not None


@pytest.mark.parametrize(("request_", "lies"), LIES)
def test_a_lie_is_refused_in_one_line_and_not_kept(tmp_path, request_, lies):
    with pytest.raises(DeviceError) as refused:
        impostor.asked(request_, tmp_path)(lies)
    words = str(refused.value)
    assert refused.value.exit_code == 4
    assert words.isprintable()
    assert len(words) <= 1100
    records, broken = read_lines(tmp_path / "m.jsonl")
    assert not broken
    assert not [each for each in records if "kit" not in each]
    assert {path.name for path in tmp_path.iterdir()} <= {"kit", "m.jsonl"}
