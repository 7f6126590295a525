import itertools
import json
import math

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas.measuring import coverage, kit
from hwnas.networks import onnx_graph, spaces
from hwnas.networks.ops import parse_key
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import ConfigError, FileFormatError
from profilers import schema, weights

SETTINGS = ProfileConfig(heldout=8, seed=3)
TINY = spaces.load("tiny").restricted([8, 12])


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _kit(tmp_path, space=TINY, settings=SETTINGS, batch=1):
    return kit.make_kit(space, tmp_path / "kit", batch, settings)


def test_a_kit_is_a_flat_folder_of_its_graphs_and_its_description(tmp_path):
    info = _kit(tmp_path)
    files = _files(info.folder)
    assert set(files) == {"kit.json"} | {item["file"] for item in info.kit["items"]}
    for item in info.kit["items"]:
        assert schema.sha256_file(info.folder / item["file"]) == item["sha256"]
        onnx.load_model_from_string(files[item["file"]])
    value = json.loads(files["kit.json"])
    assert value == info.kit == kit.load_kit(info.folder).kit
    assert info.hash == schema.sha256_text(schema.canonical_json(value))
    assert list(tmp_path.iterdir()) == [info.folder]


def test_the_same_settings_give_the_same_bytes_and_another_seed_another_kit(tmp_path):
    first = kit.make_kit(TINY, tmp_path / "first", 1, SETTINGS)
    second = kit.make_kit(TINY, tmp_path / "second", 1, SETTINGS)
    other = kit.make_kit(TINY, tmp_path / "third", 1, SETTINGS.model_copy(update={"seed": 4}))
    assert _files(first.folder) == _files(second.folder)
    assert first.hash == second.hash != other.hash


def test_a_kit_holds_every_role_and_no_network_in_two_roles(tmp_path):
    info = _kit(tmp_path)
    found = info.counts()
    assert found["anchor"] == 1
    assert found["heldout"] == 8
    assert found["calibration"] >= 10
    ops = coverage.distinct_ops(TINY)
    assert found["micro"] == len(ops)
    by_role: dict = {}
    for item in info.kit["items"]:
        if item["arch"]:
            by_role.setdefault(item["role"], set()).add(TINY.from_json(item["arch"]))
    for role in ("calibration", "heldout", "anchor"):
        others = set().union(*(archs for name, archs in by_role.items() if name != role))
        assert not by_role[role] & others
    covered = {placed.op.key for arch in by_role["covering"] for placed in arch.ops}
    assert covered == set(ops)


def test_more_held_out_networks_leave_covering_and_calibration_as_they_are(tmp_path):
    few = kit.make_kit(TINY, tmp_path / "few", 1, SETTINGS)
    more = kit.make_kit(TINY, tmp_path / "more", 1, ProfileConfig(heldout=20, seed=3))
    kept = ("covering", "calibration")
    assert [i["arch"] for i in few.kit["items"] if i["role"] in kept] == [
        i["arch"] for i in more.kit["items"] if i["role"] in kept
    ]


def test_items_say_what_their_graph_is(tmp_path):
    info = _kit(tmp_path, batch=4)
    assert info.kit["batch"] == 4
    for item in info.kit["items"]:
        graph = onnx.load_model(info.folder / item["file"], load_external_data=False).graph
        shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        assert item["inputs"] == {"image": shape}
        assert shape[0] == 4
        nodes = [
            f"{op['slot']}/{step.name}"
            for op in item["ops"]
            for step in parse_key(op["key"]).exported
        ]
        assert [node.name for node in graph.node] == nodes
        if item["arch"]:
            arch = TINY.from_json(item["arch"])
            assert item["resolution"] == arch.resolution
            assert item["ops"] == [{"slot": o.slot, "key": o.op.key} for o in arch.ops]


def test_weight_regions_are_aligned_and_do_not_overlap_and_no_bias_is_random(tmp_path):
    table = _kit(tmp_path).kit["weights"]
    regions = sorted(
        (offset, offset + 4 * math.prod(shape), name, scale)
        for name, entries in table["tensors"].items()
        for offset, shape, scale in entries
    )
    assert all(start % 64 == 0 for start, *_ in regions)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(regions))
    assert regions[-1][1] <= table["bytes"]
    assert all((scale == 0) == name.endswith("/bias") for _, _, name, scale in regions)
    assert table["sha256"] == weights.digest(table, SETTINGS.seed)


def test_a_kit_that_is_there_is_kept_and_a_damaged_or_other_one_is_replaced(tmp_path):
    info = _kit(tmp_path)
    marker = info.folder / "weights.bin"
    marker.write_bytes(b"made by the device")
    _kit(tmp_path)
    assert marker.exists()
    good = (info.folder / "micro-000.onnx").read_bytes()
    (info.folder / "micro-000.onnx").write_bytes(good[:-1])
    _kit(tmp_path)
    assert (info.folder / "micro-000.onnx").read_bytes() == good
    assert not marker.exists()
    other = _kit(tmp_path, settings=SETTINGS.model_copy(update={"seed": 9}))
    assert kit.load_kit(tmp_path / "kit").hash == other.hash != info.hash
    assert list(tmp_path.iterdir()) == [info.folder]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not a kit"):
        _kit(tmp_path)
    assert (tmp_path / "kit" / "thesis.tex").read_text() == "precious"


def test_a_damaged_description_is_named(tmp_path):
    info = _kit(tmp_path)
    path = info.folder / "kit.json"
    text = path.read_text()
    for damaged, message in (
        (text[: len(text) // 2], "truncated"),
        (text.replace("hwnas-kit-1", "hwnas-kit-9"), "hwnas-kit-9"),
        (text.replace('"geometry"', '"geometri"'), "unknown field 'geometri'"),
    ):
        path.write_text(damaged)
        with pytest.raises(FileFormatError, match=message):
            kit.load_kit(info.folder)
    path.unlink()
    with pytest.raises(FileFormatError, match="does not exist"):
        kit.load_kit(info.folder)


def test_the_kit_of_once_for_all_is_small_and_covers_its_ops(tmp_path):
    space = spaces.load("ofa-mbv3-w10").restricted([224])
    info = kit.make_kit(space, tmp_path / "kit", 1, ProfileConfig(heldout=40))
    assert sum(path.stat().st_size for path in info.folder.iterdir()) < 10e6
    assert info.counts()["micro"] == len(coverage.distinct_ops(space))
    assert info.counts()["heldout"] == 40


@pytest.mark.parametrize(("name", "resolution"), [("tiny", 16), ("ofa-mbv3-w10", 128)])
def test_generated_weights_keep_the_extreme_networks_finite(tmp_path, name, resolution):
    space = spaces.load(name).restricted([resolution])
    info = kit.make_kit(space, tmp_path / "kit", 1, SETTINGS)
    table = info.kit["weights"]
    assert weights.generate(info.folder / "weights.bin", table, SETTINGS.seed) == table["sha256"]
    for arch in (space.largest, space.smallest):
        offsets = {
            weight.name: offset
            for weight in onnx_graph.weights_of(arch.ops)
            for offset, shape, _ in table["tensors"][weight.name]
            if tuple(shape) == weight.shape
        }
        path = info.folder / "extreme.onnx"
        path.write_bytes(onnx_graph.to_bytes(onnx_graph.build_external(arch.ops, offsets)))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shape = session.get_inputs()[0].shape
        image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        (logits,) = session.run(None, {"image": image})
        assert np.isfinite(logits).all()
        assert 1e-3 < np.abs(logits).max() < 1e3
