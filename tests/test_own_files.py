"""A user's own ONNX file on its way to a device: weights beside it, open sizes, kinds of inputs."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_commands_measure import ORT, hwnas

from hwnas.measuring import onnx_files
from hwnas.measuring.onnx_files import prepare, read_shapes
from hwnas.settings.errors import ConfigError


def save(path, nodes, inputs, weights=(), **outside):
    """A model of some nodes whose output is `y`; inputs: {name: (element type, shape)}."""
    sources = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(value, name) for name, value in weights]
    graph = helper.make_graph(nodes, "g", sources, [output], held)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path, **outside)
    return path


def relu(path, shape, kind=TensorProto.FLOAT):
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (kind, shape)})


def with_weights_beside(path):
    """What torch.onnx.export writes by default since 2.9."""
    weights = [("w", np.arange(8 * 3 * 3 * 3, dtype=np.float32).reshape(8, 3, 3, 3))]
    inputs = {"x": (TensorProto.FLOAT, ("n", 3, 8, 8))}
    beside = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 0}
    return save(path, [helper.make_node("Conv", ["x", "w"], ["y"])], inputs, weights, **beside)


def text_encoder(path):
    """Two inputs of integers and one of booleans, batch and length open."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Gather", ["table", "kinds"], ["more"]),
        helper.make_node("Add", ["words", "more"], ["sum"]),
        helper.make_node("Cast", ["mask"], ["shown"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["shown", "last"], ["wide"]),
        helper.make_node("Mul", ["sum", "wide"], ["y"]),
    ]
    weights = [("table", np.ones((10, 4), np.float32)), ("last", np.array([2]))]
    sizes = ["batch", "length"]
    inputs = {"ids": (TensorProto.INT64, sizes), "kinds": (TensorProto.INT32, sizes)}
    return save(path, nodes, {**inputs, "mask": (TensorProto.BOOL, sizes)}, weights)


def shapes_of(path):
    session = onnxruntime.InferenceSession(str(path))
    return {source.name: source.shape for source in session.get_inputs()}


def test_weights_beside_a_model_are_put_into_it(tmp_path):
    path = with_weights_beside(tmp_path / "m.onnx")
    found = prepare(path, tmp_path / "made", {}, 2)
    assert found.path == path
    assert found.content == tmp_path / "made" / "m.onnx"
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    beside, inside = (
        onnxruntime.InferenceSession(str(file)).run(None, {"x": x})[0] for file in found
    )
    np.testing.assert_array_equal(beside, inside)
    again = prepare(path, tmp_path / "again", {}, 2)
    assert again.content.read_bytes() == found.content.read_bytes()


def test_weights_that_are_missing_or_elsewhere_or_too_many_are_refused(tmp_path, monkeypatch):
    path = with_weights_beside(tmp_path / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(onnx_files, "MOST_BYTES", 900)
        with pytest.raises(ConfigError, match=r"m\.onnx has 0\.0 GB with its weights; one ONNX"):
            prepare(path, tmp_path, {}, 1)
    secret = tmp_path / "secret"
    secret.write_bytes((tmp_path / "m.onnx.data").read_bytes())
    (tmp_path / "in").mkdir()
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../secret"
    (tmp_path / "in" / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"m\.onnx: its weights cannot be read: "):
        prepare(tmp_path / "in" / "m.onnx", tmp_path, {}, 1)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ConfigError, match=r"weights in m\.onnx\.data, which is not beside it"):
        prepare(path, tmp_path, {}, 1)


def test_a_model_that_lacks_nothing_is_sent_as_it_is(tmp_path):
    path = relu(tmp_path / "m.onnx", [1, 8])
    assert prepare(path, tmp_path / "made", {}, 4).content == path
    assert not (tmp_path / "made").exists()


def test_an_open_first_size_is_the_batch_of_the_target(tmp_path):
    for number, shape in enumerate((["n", 3], [None, 3])):
        path = relu(tmp_path / f"{number}.onnx", shape)
        found = prepare(path, tmp_path / "made", {}, 4)
        assert shapes_of(found.content) == {"x": [4, 3]}


def test_a_size_that_is_given_for_one_input_holds_wherever_its_name_is(tmp_path):
    path = text_encoder(tmp_path / "m.onnx")
    found = prepare(path, tmp_path / "made", {"ids": (1, 16)}, 1)
    assert shapes_of(found.content) == {name: [1, 16] for name in ("ids", "kinds", "mask")}


@pytest.mark.parametrize(
    ("shape", "shapes", "reason"),
    [
        (["n", 3, "h", "w"], {}, r"has shape nx3xhxw; give it sizes: --input-shape x=1x3xhxw$"),
        ([1, None], {}, r"has shape 1x\?; give it sizes: --input-shape x=1x\?$"),
        (None, {}, r"has no shape; give it one, as --input-shape x=1x3x224x224$"),
        (["n", 3], {"x": (1, 4)}, r"has shape nx3, which --input-shape x=1x4 does not fit$"),
        (["n", 3], {"x": (1, 3, 1)}, r"has shape nx3, which --input-shape x=1x3x1 does not fit$"),
        (["n", 3], {"z": (1, 3)}, r"names the input 'z'; .*m\.onnx has: x$"),
    ],
)
def test_sizes_that_stay_open_are_asked_for_by_the_option_that_gives_them(
    tmp_path, shape, shapes, reason
):
    path = relu(tmp_path / "m.onnx", shape)
    with pytest.raises(ConfigError, match=reason):
        prepare(path, tmp_path / "made", shapes, 1)


def test_what_cannot_be_fed_or_has_nothing_to_time_is_refused(tmp_path):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    source = helper.make_value_info("x", kind)
    node = helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    sequence = helper.make_model(helper.make_graph([node], "g", [source], [out]))
    empty = helper.make_model(helper.make_graph([], "g", [out], [out]))
    for model, reason in ((sequence, "'x' is a sequence_type; only tensors"), (empty, "no node")):
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ConfigError, match=reason):
            prepare(tmp_path / "m.onnx", tmp_path, {}, 1)


@pytest.mark.parametrize(
    "texts", [["x"], ["=1x3"], ["x=1xn"], ["x=0x3"], ["x=1x3x"], ["x=-1"], ["x=1", "x=2"]]
)
def test_a_shape_that_cannot_be_read_is_refused(texts):
    with pytest.raises(ConfigError, match="--input-shape"):
        read_shapes(texts)


def test_shapes_are_read_by_the_name_of_their_input():
    assert read_shapes(["a=b=1x3", "ids=8"]) == {"a=b": (1, 3), "ids": (8,)}


def test_any_model_is_measured_and_one_that_fails_when_run_does_not_stop_the_others(
    tmp_path, capsys
):
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    wrong = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
             helper.make_node("Gather", ["table", "i"], ["y"])]  # fmt: skip
    table = [("table", np.zeros((1, 4), np.float32))]
    good = [
        with_weights_beside(tmp_path / "torch.onnx"),
        save(tmp_path / "bytes.onnx", [cast], {"x": (TensorProto.UINT8, (1, 3, 8, 8))}),
        save(tmp_path / "half.onnx", [cast], {"x": (TensorProto.FLOAT16, (1, 8))}),
    ]
    bad = save(tmp_path / "bad.onnx", wrong, {"x": (TensorProto.FLOAT, (1, 8))}, table)
    assert hwnas("measure", *good, bad, "--target", ORT, "--budget", 10, "--json") == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [model["file"] for model in found["models"]] == list(map(str, good))
    assert found["models"][0]["input_shape"] == [1, 3, 8, 8]
    assert [failure["exit_code"] for failure in found["failures"]] == [2]
    assert err.splitlines()[-1].startswith(f"hwnas: {bad}: ONNX Runtime cannot run it: ")
    assert "run the same command again" not in err
    encoder = text_encoder(tmp_path / "text.onnx")
    words = ("measure", encoder, "--target", ORT, "--budget", 10)
    assert hwnas(*words) == 2
    assert "--input-shape ids=1xlength" in capsys.readouterr().err
    assert hwnas(*words, "--input-shape", "ids=1x16") == 0
