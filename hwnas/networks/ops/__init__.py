"""Op kinds by name: one file each, which defines `build(body, ...)` and EXAMPLES for the tests.

An `Op` is a kind, the shapes of what it reads, and parameters: whole numbers, words and truths, as
`build` declares them. Its key says all of it, and reads back. `build` writes the primitives; what
an op costs, emits and computes follows from these. A name with a colon, `module:NAME`, is a
function of the user's own with the same arguments.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwnas.networks.graph import INPUTS, Body, Graph, exported, peak_elements
from hwnas.networks.primitives import Primitive, Shape
from profilers.errors import ConfigError, FileFormatError
from profilers.plugins import load_part, names_in

BYTES = 4  # of one fp32 number
Value = int | str
_TYPES: Mapping[Any, type] = {t: t for t in (int, str, bool)} | {
    t.__name__: t for t in (int, str, bool)
}
_KEY = re.compile(r"([a-z_0-9.:A-Z-]+)\(in=([0-9x+]+)((?:,[a-z_0-9]+=[^,()=]+)*)\)")


@dataclass(frozen=True)
class Op:
    """One fully resolved op: what is measured and what is shipped. `op` makes it.

    Attributes:
        kind: of `names()`, or a user's own.
        inputs: shapes of what it reads, without the batch.
        args: its parameters, in the order in which `build` takes them.
    """

    kind: str
    inputs: tuple[Shape, ...]
    args: tuple[tuple[str, Value], ...]

    def __getitem__(self, name: str) -> Any:
        return dict(self.args)[name]

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.kind, self.inputs, self.args))

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def key(self) -> str:
        """Canonical text of the op; `parse_key` reads it back."""
        given = "+".join("x".join(map(str, shape)) for shape in self.inputs)
        args = "".join(f",{name}={_text(value)}" for name, value in self.args)
        return f"{self.kind}(in={given}{args})"

    @functools.cached_property
    def graph(self) -> Graph:
        """Its primitives."""
        body = Body(self.inputs)
        try:
            _builder(self.kind)(body, **dict(self.args))
            return body.graph()
        except ValueError as error:
            raise ConfigError(f"op {self.key}: {error}") from None

    @functools.cached_property
    def exported(self) -> tuple[Primitive, ...]:
        """Its primitives as exported, one for each ONNX node."""
        return exported(self.graph)

    @functools.cached_property
    def shape(self) -> Shape:
        """Of its output, without the batch."""
        return self.graph.shape

    # ---- counts, at batch 1 --------------------------------------------------------------------

    @functools.cached_property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(p.macs for p in self.graph.primitives)

    @functools.cached_property
    def params(self) -> int:
        """Trainable parameters: weights, biases, and scale and bias of each norm."""
        return sum(math.prod(shape) for p in self.graph.primitives for shape in p.weights.values())

    @functools.cached_property
    def weight_bytes(self) -> int:
        """Bytes of the weights in the exported fp32 model, BatchNorm folded."""
        return BYTES * sum(math.prod(s) for p in self.exported for s in p.weights.values())

    @functools.cached_property
    def peak_activation_bytes(self) -> int:
        """Most fp32 bytes of activations alive at once while it runs, its inputs included until
        their last reader.
        """
        return self.peak_bytes()

    def peak_bytes(self, keep: tuple[str, ...] = ()) -> int:
        """As `peak_activation_bytes`, where some inputs are alive to the end: others read them."""
        sizes = {n: math.prod(shape) for n, shape in zip(INPUTS, self.inputs, strict=False)}
        steps = [(p.name, math.prod(p.shape), p.inputs) for p in self.exported]
        return BYTES * peak_elements(sizes, steps, keep)

    @property
    def elements(self) -> int:
        """Numbers that it reads and gives: its ends."""
        return sum(map(math.prod, self.inputs)) + math.prod(self.shape)


def names() -> list[str]:
    """The op kinds that come with hwnas."""
    return names_in(__path__)


@functools.lru_cache(maxsize=1 << 16)
def op(kind: str, *inputs: Shape, **params: Value) -> Op:
    """The op of a kind over inputs of some shapes; equal ones are one object.

    Raises:
        ConfigError: no such kind, or parameters that it does not take.
    """
    declared = _declared(kind)
    unknown = sorted(set(params) - set(declared))
    missing = [n for n, (_, default) in declared.items() if default is None and n not in params]
    if unknown or missing:
        raise ConfigError(
            f"op kind {kind!r} {'has no parameter ' + unknown[0] if unknown else 'lacks '}"
            f"{'' if unknown else missing[0]}; it takes {', '.join(declared) or 'none'}"
        )
    values = tuple((name, params.get(name, default)) for name, (_, default) in declared.items())
    return Op(kind, inputs, values)


def parse_key(key: str) -> Op:
    """The op of a canonical key.

    Raises:
        FileFormatError: key is not canonical, or no op can be made of it.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise FileFormatError(
            f"op key {key[:120]!r} cannot be read; a key looks like 'pool(in=8x7x7)'"
        )
    try:
        inputs = [tuple(map(int, shape.split("x"))) for shape in match[2].split("+")]
        declared = _declared(match[1])
        given = [pair.split("=") for pair in match[3].split(",")[1:]]
        found = op(match[1], *inputs, **{n: _value(declared, n, text) for n, text in given})
        if found.key != key:
            raise ConfigError(f"it is not canonical; expected {found.key!r}")
        found.graph  # noqa: B018 -- whether its numbers make sense
    except (ConfigError, ValueError) as error:
        raise FileFormatError(f"op key {key[:120]!r} cannot be read: {error}") from None
    return found


def _value(declared: Mapping[str, tuple[type, Any]], name: str, text: str) -> Value:
    if name not in declared:
        raise ConfigError(f"it has no parameter {name}")
    kind = declared[name][0]
    return text if kind is str else kind(int(text))


def _text(value: Value) -> str:
    return value if isinstance(value, str) else str(int(value))


@functools.cache
def _builder(kind: str) -> Callable[..., None]:
    part = load_part(kind, __name__, __path__, "op kind")
    build: Callable[..., None] = part if ":" in kind else part.build
    return build


@functools.cache
def _declared(kind: str) -> dict[str, tuple[type, Any]]:
    """Type and default (None: there is none) of each parameter of a kind."""
    signature = inspect.signature(_builder(kind))
    out = {}
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.annotation not in _TYPES:
            raise ConfigError(
                f"op kind {kind!r}: parameter {parameter.name} is {parameter.annotation}; declare "
                "it int, str or bool"
            )
        default = None if parameter.default is parameter.empty else parameter.default
        out[parameter.name] = _TYPES[parameter.annotation], default
    return out
