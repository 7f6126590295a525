"""What holds for every op kind by its being there, and for every primitive, against torch, ONNX
Runtime and a walk over the file.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_onnx_graph import peak_bytes_of_graph
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hwnas.networks import ops, spaces
from hwnas.networks.graph import Body
from hwnas.networks.onnx_graph import NODES, build, inputs_of, to_bytes
from hwnas.networks.ops import Op, op, parse_key
from hwnas.networks.placed import PlacedOp
from hwnas.networks.primitives import ACTIVATIONS, RULES
from hwnas.supernet.forward import FORWARD
from hwnas.supernet.network import Layer, _exported, _layers, run
from profilers.errors import ConfigError, FileFormatError
from profilers.precisions import fp16


def _examples() -> list[Op]:
    """Every example of every kind, and every op of the smallest spaces."""
    found = []
    for kind in ops.names():
        module = __import__(f"hwnas.networks.ops.{kind.replace('-', '_')}", fromlist=["EXAMPLES"])
        found += [op(kind, *inputs, **args) for *inputs, args in module.EXAMPLES]
    for name in ("tiny", "mbv3-28", "ofa-resnet50d"):
        found += [placed.op for placed in spaces.load(name).smallest.ops]
    return list(dict.fromkeys(found))


# ---- ops of one primitive or two, so that every kind of primitive is in one ---------------------


def everything(body: Body, act: str = "silu") -> None:
    """One op that holds what no kind of op holds yet."""
    low = body.conv("low", "in", 8, kernel=(3, 5), stride=(2, 2), act=act)
    up = body.add("upsample", "up", low, factor=2)
    cut = body.add("slice", "cut", up, axis=1, start=0, stop=body.shapes["in"][1])
    cut = body.add("slice", "cut2", cut, axis=2, start=0, stop=body.shapes["in"][2])
    both = body.add("concat", "both", "in", cut, axis=0)
    last = body.add("batch_norm", "norm", both)
    last = body.add("pad", "padded", last, pads=((1, 0), (0, 2)))
    last = body.conv("causal", last, 8, "bias", kernel=3, pads=(2, 0), dilation=2, act="gelu")
    channels, height, width = body.shapes[last]
    last = body.add("reshape", "tokens", last, shape=(channels, height * width))
    last = body.add("transpose", "turned", last, axes=(1, 0))
    last = body.add("layer_norm", "level", last)
    q, k, v = (body.add("linear", n, last, out=8, bias=n != "k") for n in "qkv")
    last = body.add("add", "sum", last, body.add("attention", "attention", q, k, v, heads=2))
    scores = body.add("matmul", "scores", last, body.add("transpose", "key", k, axes=(1, 0)))
    shares = body.add("softmax", "shares", body.act("half", scores, "sigmoid"))
    last = body.add("matmul", "mixed", shares, v)
    last = body.add("affine", "scaled", last, factor=0.5, offset=0.0)
    last = body.add("erf", "erf", last)
    body.add("mean", "mean", last, axes=(0,), keep=False)


def two(body: Body) -> None:
    """Two inputs, of which one waits."""
    last = body.conv("conv", "in", body.shapes["in2"][0], act="relu6")
    body.add("mul", "product", last, "in2")


def _pairs(body: Body) -> None:
    """What takes two inputs and nothing else."""
    last = body.add("sub", "less", "in", "in2")
    last = body.add("div", "share", last, body.add("softplus", "more", "in2"))
    body.add("add", "sum", last, body.act("tanh", body.act("mish", "in", "mish"), "tanh"))


def line(body: Body, factor: int, offset: int) -> None:
    """A factor and an offset, which ONNX has no node for at once."""
    body.add("affine", "line", "in", factor=factor / 4, offset=offset / 4)


OWN = [
    op("test_ops:line", (4, 5, 5), factor=2, offset=1),
    op("test_ops:everything", (4, 9, 8)),
    op("test_ops:everything", (4, 5, 5), act="h_sigmoid"),
    op("test_ops:two", (4, 5, 5), (6, 5, 5)),
    op("test_ops:_pairs", (4, 5), (4, 5)),
]
EVERY = pytest.mark.parametrize("made", [*_examples(), *OWN], ids=lambda made: made.key)


def _filled(made: Op):
    """Layers of an op, no weight of which is what it started as."""
    torch.manual_seed(0)
    layers = _layers(made.graph, {}, 1e-5)
    with torch.no_grad():
        for name, value in [*layers.named_parameters(), *layers.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif not name.endswith("weight"):
                value.add_(0.2 * torch.randn_like(value))
            elif value.ndim == 2:
                value.normal_(0.0, value.shape[1] ** -0.5)
    return layers.eval()


def _inputs(made: Op, n: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn((n, *shape), generator=generator) for shape in made.inputs]


def _model(made: Op, layers, n: int = 2) -> onnx.ModelProto:
    weights: dict[str, torch.Tensor] = {}
    kept = {step.name: step for step in made.exported}
    for p in made.graph.primitives:
        if p.weights:
            given = _exported(p, layers[p.name], kept, weights, "at")
            weights |= {f"at/{name}": value for name, value in given.items()}
    arrays = {name: value.detach().float().numpy() for name, value in weights.items()}
    return build([_placed(made)], arrays, n)


@EVERY
def test_onnx_runtime_gives_what_torch_gives(made):
    layers, given = _filled(made), _inputs(made)
    with torch.no_grad():
        expected = run(made.graph, layers, given).numpy()
    assert expected.shape == (2, *made.shape)
    model = _model(made, layers)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(to_bytes(model))
    named = {name: x.numpy() for name, x in zip(inputs_of([_placed(made)]), given, strict=True)}
    found = session.run(None, named)[0]
    assert np.abs(found - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


@EVERY
def test_every_op_computes_in_fp16_as_well(made):
    layers, given = _filled(made), _inputs(made)
    data = fp16.to_half(to_bytes(_model(made, layers)))
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    named = {name: x.numpy() for name, x in zip(inputs_of([_placed(made)]), given, strict=True)}
    found = onnxruntime.InferenceSession(data).run(None, named)[0]
    with torch.no_grad():
        expected = run(made.graph, layers, given).numpy()
    assert np.abs(found - expected).max() <= 2e-2 * max(1.0, np.abs(expected).max())


def _placed(made: Op) -> PlacedOp:
    return PlacedOp("at", made, tuple(f"before{i}" for i in range(len(made.inputs))))


@EVERY
def test_macs_equal_torchs_own_counter(made):
    layers = _filled(made)
    counter = FlopCounterMode(display=False)  # it knows attention only by its matrix products
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        run(made.graph, layers, _inputs(made, 1))
    assert counter.get_total_flops() == 2 * made.macs
    assert sum(p.numel() for p in layers.parameters()) == made.params


@EVERY
def test_bytes_are_those_of_the_file(made):
    model = _model(made, _filled(made), 1)
    stored = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    floats = sum(math.prod(t.dims) for t in stored if t.dims and list(t.dims) not in ([0], [4]))
    wanted = sum(math.prod(s) for p in made.exported for s in p.weights.values())
    assert made.weight_bytes == 4 * wanted
    assert floats >= wanted
    assert peak_bytes_of_graph(model) == made.peak_activation_bytes


@EVERY
def test_a_key_reads_back_and_says_all(made):
    assert parse_key(made.key) == made
    assert parse_key(made.key).key == made.key


@EVERY
def test_the_leading_slice_of_a_larger_op_is_the_plain_op(made):
    """Layers twice as wide hold the op's as their leading part."""
    layers, given = _filled(made), _inputs(made)
    wide = torch.nn.ModuleDict()
    for p in made.graph.primitives:
        if p.weights:
            wide[p.name] = _widened(layers[p.name], p)
    wide.eval()
    with torch.no_grad():
        assert torch.equal(run(made.graph, wide, given), run(made.graph, layers, given))


def _widened(layer: Layer, p) -> Layer:
    """A layer with more of everything behind what the primitive uses."""
    out = Layer(p, (), layer.eps)
    for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
        shape = list(value.shape)
        grown = 2 if name == "weight" and value.ndim > 1 else 1
        for axis in range(min(grown, value.ndim)):
            shape[axis] += 3
        larger = torch.full(shape, 7.0)
        larger[tuple(slice(n) for n in value.shape)] = value.detach()
        if name in dict(layer.named_buffers()):
            out.register_buffer(name, larger)
        else:
            out.register_parameter(name, torch.nn.Parameter(larger))
    return out


@pytest.mark.parametrize(("factor", "offset", "n"), [(2, 1, 2), (2, 0, 1), (4, 1, 1), (4, 0, 1)])
def test_a_factor_and_an_offset_are_two_nodes_and_one_of_them_is_one(factor, offset, n):
    assert len(op("test_ops:line", (4, 5, 5), factor=factor, offset=offset).exported) == n


def test_every_primitive_is_in_an_example_and_can_be_computed_and_written():
    used = {p.kind for made in [*_examples(), *OWN] for p in made.graph.primitives}
    written = {p.kind for made in [*_examples(), *OWN] for p in made.exported}
    trained = set(RULES) - {"product", "level"}  # of the exported form alone
    assert used == trained == set(FORWARD) | {"batch_norm"}
    assert written == set(NODES)
    assert {name for name in ACTIVATIONS if name != "none"} <= trained


# ---- what is refused ----------------------------------------------------------------------------


def _unknown(body: Body) -> None:
    body.add("convolve", "c", "in")


def _cycle(body: Body) -> None:
    body.add("add", "a", "in", "b")
    body.add("relu", "b", "a")


def _two_outputs(body: Body) -> None:
    body.add("relu", "a", "in")
    body.add("sigmoid", "b", "in")


def _deaf(body: Body) -> None:
    body.add("relu", "a", "in")


def _nothing(body: Body) -> None:
    pass


def _twice(body: Body) -> None:
    body.add("relu", "a", "in")
    body.add("relu", "a", "a")


def _misfit(body: Body) -> None:
    body.add("add", "a", "in", body.add("slice", "s", "in", axis=0, start=0, stop=2))


def _pair(body: Body) -> None:
    body.add("relu", "a", "in", "in2")


def _thin(body: Body) -> None:
    window = {"kernel": (0, 3), "stride": (1, 1), "dilation": (1, 1), "pads": ((0, 0), (1, 1))}
    body.add("max_pool", "p", "in", **window)


def _shaped(body: Body, size: float) -> None:
    body.add("relu", "a", "in")


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("_unknown", 1, "primitive 'convolve' is not one of add, affine"),
        ("_cycle", 1, "a reads b, which does not exist; .* no cycle"),
        ("_two_outputs", 1, "it has the outputs a and b; read the first one"),
        ("_deaf", 2, "its input in2 is not read"),
        ("_nothing", 1, "it has no primitive"),
        ("_twice", 1, "a is the name of two tensors"),
        ("_misfit", 1, "do not match"),
        ("_pair", 2, "relu reads 1 tensors, 2 are named"),
        ("_thin", 1, r"kernel \(0, 3\) is less than 1"),
    ],
)
def test_an_op_kind_that_is_no_graph_is_refused_by_name(kind, inputs, message):
    with pytest.raises(ConfigError, match=rf"op test_ops:{kind}\(.*{message}"):
        op(f"test_ops:{kind}", *[(4, 5, 5)] * inputs).graph  # noqa: B018


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: op("conv", (3, 8, 8)), "'conv' lacks out; it takes out, kernel"),
        (lambda: op("conv", (3, 8, 8), out=4, size=3), "'conv' has no parameter size"),
        (lambda: op("cnov", (3, 8, 8)), "did you mean 'conv'"),
        (lambda: op("test_ops:_shaped", (3, 8, 8), size=1), "declare it int, str or bool"),
    ],
)
def test_an_op_of_wrong_parameters_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv",
        "pool(in=08x7x7)",
        "pool(in=8x7x7,size=3)",
        "conv(in=8x7x7,out=4,kernel=0,stride=1,act=relu,residual=0)",
        "conv(in=8x7x7,out=4,kernel=3,stride=1,act=rleu,residual=0)",
        "conv(in=8x7x7,kernel=3,out=4,stride=1,act=relu,residual=0)",
        "conv(in=8x7x7,out=4,kernel=3,stride=1,act=relu,residual=2)",
        "mbconv(in=8x7x7,mid=8,out=4,kernel=3,stride=1,se=0,act=relu,residual=1)",
    ],
)
def test_a_key_that_is_not_canonical_or_makes_no_op_is_refused(key):
    with pytest.raises(FileFormatError, match="cannot be read"):
        parse_key(key)
