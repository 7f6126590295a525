"""A user's own ONNX file as what can be sent and timed: one file, weights inside, inputs of fixed
shape.

What torch writes has its weights in a second file and a batch of any size. The file itself is sent
where nothing has to change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper

from profilers.errors import ConfigError, FileFormatError
from profilers.schema import write_atomic

MOST_BYTES = (1 << 31) - 1  # of one protobuf message
Shapes = Mapping[str, tuple[int, ...]]


class OwnModel(NamedTuple):
    """An ONNX file as it was given, and the file that is sent for it."""

    path: Path
    content: Path


Size = int | str | None  # of a dimension: fixed, named, or neither


def read_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input, of texts like `image=1x3x224x224`.

    Raises:
        ConfigError: a text is of another kind, or two name the same input.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if not name or not re.fullmatch(r"[1-9]\d{0,9}(x[1-9]\d{0,9})*", sizes):
            raise ConfigError(f"--input-shape {text!r}: expected NAME=SIZES, as image=1x3x224x224")
        if name in found:
            raise ConfigError(f"--input-shape names the input {name!r} twice")
        found[name] = tuple(int(size) for size in sizes.split("x"))
    return found


def prepare(path: Path, folder: Path, shapes: Shapes, batch: int) -> OwnModel:
    """A model with the file to send for it: the given one, or one in a folder with what it lacks.

    Args:
        path: of the ONNX file.
        folder: for the new file.
        shapes: of inputs, where the file leaves them open.
        batch: the first size of inputs, where nothing else is open.

    Raises:
        ConfigError: it is not an ONNX model, has nothing to time, or a shape stays open; it
            names the option that gives it.
    """
    model = _read(path)
    outside = _outside(model)
    if outside:
        _take_in(model, path, outside)
    if _fix_shapes(model.graph, path, shapes, batch) or outside:
        try:
            content = model.SerializeToString(deterministic=True)
        except (EncodeError, ValueError) as error:
            raise ConfigError(f"{path} cannot be written as one file: {error}") from None
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / path.name, content)
        return OwnModel(path, folder / path.name)
    return OwnModel(path, path)


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ConfigError(f"{path} {what}; name an ONNX file")
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except DecodeError:
        model = onnx.ModelProto()
    if not model.graph.output:
        raise FileFormatError(f"{path} is not an ONNX model, or is truncated; export it again")
    if not model.graph.node:
        raise ConfigError(f"{path} has no node: its outputs are its inputs, nothing can be timed")
    return model


# ---- weights in files of their own -------------------------------------------------------------


def _outside(model: onnx.ModelProto) -> set[str]:
    """Names of the files that hold weights of a model."""
    return {
        entry.value
        for tensor in external_data_helper._get_all_tensors(model)
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _take_in(model: onnx.ModelProto, path: Path, names: set[str]) -> None:
    """Put the weights that lie in files beside a model into it."""
    size = model.ByteSize()
    for name in sorted(names):
        beside = path.parent / name
        if not beside.is_file():
            raise ConfigError(
                f"{path} has weights in {name}, which is not beside it; copy it there"
            )
        size += beside.stat().st_size
    if size > MOST_BYTES:
        raise ConfigError(
            f"{path} has {size / 1e9:.1f} GB with its weights; one ONNX file, as it is sent to a "
            f"device, holds {MOST_BYTES / 1e9:.1f} GB at most"
        )
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FileFormatError(f"{path}: its weights cannot be read: {reason}") from None


# ---- shapes ------------------------------------------------------------------------------------


def _fix_shapes(graph: onnx.GraphProto, path: Path, shapes: Shapes, batch: int) -> bool:
    """Give every input a fixed shape; whether that changed anything."""
    held = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in held}
    for value in inputs.values():
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value")
            raise ConfigError(f"{path}: input {value.name!r} is a {kind}; only tensors can be fed")
    strange = sorted(set(shapes) - set(inputs))
    if strange:
        raise ConfigError(
            f"--input-shape names the input {strange[0]!r}; {path} has: {', '.join(inputs)}"
        )
    before = {name: _sizes(value) for name, value in inputs.items()}
    known: dict[str, int] = {}
    for name in sorted(shapes):
        known |= _bound(path, name, before[name], shapes[name])
    after: dict[str, list[Size] | None] = {
        name: list(shapes[name]) if name in shapes else _known(sizes, known)
        for name, sizes in before.items()
    }
    after = _with_batch(after, batch)
    for name, sizes in after.items():
        if sizes is None or not all(isinstance(size, int) for size in sizes):
            raise ConfigError(f"{path}: {_asked_for(name, sizes, batch)}")
        _set_sizes(inputs[name], [int(size or 0) for size in sizes])
    return before != after


def _sizes(value: onnx.ValueInfoProto) -> list[Size] | None:
    """Sizes of a tensor; None if even their number is unknown."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None
        for d in value.type.tensor_type.shape.dim
    ]


def _bound(
    path: Path, name: str, sizes: Sequence[Size] | None, given: Sequence[int]
) -> dict[str, int]:
    """What the names of sizes mean, by a shape that was given."""
    if sizes is None:
        return {}
    fits = len(sizes) == len(given)
    pairs = list(zip(sizes, given, strict=False))
    if not fits or any(isinstance(size, int) and size != n for size, n in pairs):
        raise ConfigError(
            f"{path}: input {name!r} has shape {_text(sizes)}, which --input-shape "
            f"{name}={_text(given)} does not fit"
        )
    return {size: n for size, n in pairs if isinstance(size, str)}


def _known(sizes: list[Size] | None, known: Mapping[str, int]) -> list[Size] | None:
    """Sizes with the names that are known replaced."""
    if sizes is None:
        return None
    return [known.get(size, size) if isinstance(size, str) else size for size in sizes]


def _with_batch(shapes: dict[str, list[Size] | None], batch: int) -> dict[str, list[Size] | None]:
    """The shapes with the target's batch as first size, where first sizes alone are open."""
    open_sizes = [
        (size, place)
        for sizes in shapes.values()
        for place, size in enumerate(sizes or ())
        if not isinstance(size, int)
    ]
    if None in shapes.values() or any(place for _, place in open_sizes):
        return shapes
    return {
        name: [batch if not isinstance(size, int) else size for size in sizes or ()]
        for name, sizes in shapes.items()
    }


def _asked_for(name: str, sizes: Sequence[Size] | None, batch: int) -> str:
    """The option that gives an input its shape, in words."""
    if sizes is None:
        return f"input {name!r} has no shape; give it one, as --input-shape {name}=1x3x224x224"
    first = [batch if place == 0 and not isinstance(n, int) else n for place, n in enumerate(sizes)]
    option = f"--input-shape {name}={_text(first)}"
    return f"input {name!r} has shape {_text(sizes)}; give it sizes: {option}"


def _text(sizes: Sequence[Size]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes)


def _set_sizes(value: onnx.ValueInfoProto, sizes: Sequence[int]) -> None:
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for size in sizes:
        shape.dim.add().dim_value = size
