"""A torch model as a graph of aten calls: exported, free of writes in place, and made plain.

What cannot be a search space is refused here: control flow that depends on values, shapes that do,
operators of others, several inputs or outputs, parameters that overlap, buffers that are written.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from hwnas.settings.errors import ConfigError
from hwnas.traced.plain import made_plain
from profilers.plugins import place

STATE = (InputKind.PARAMETER, InputKind.BUFFER)
AUTOCASTS = ("torch.autocast", "torch.amp.autocast", "torch.cpu.amp.autocast")


class Program(NamedTuple):
    """A model as a graph.

    Attributes:
        graph: every node is a placeholder, a get_attr, an aten call, a getitem, or the output.
        tensors: parameters, buffers and constants by the name of their node; one that two nodes
            share is the same object.
        names: what the model calls each of `tensors` that is in its state dict.
    """

    graph: fx.GraphModule
    tensors: dict[str, Tensor]
    names: dict[str, str]


def exported(model: nn.Module, shape: tuple[int, ...]) -> Program:
    """A model in eval mode as a graph, for one input of a shape.

    The batch is 1, as it is deployed: a model that specialises on its batch (a window of it, a
    squeeze) then specialises on the right one.

    Args:
        shape: of an input, without the batch.

    Raises:
        ConfigError: the model does not run on such an input, or cannot be exported.
    """
    example = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    floats = (p for p in itertools.chain(model.parameters(), model.buffers()))
    like = next((p for p in floats if p.is_floating_point()), example)
    example = example.to(like)
    _check_inputs(model)
    with _evaluated(model):
        _check_output(
            _attempt(lambda: model(example), f"does not run on {_text(shape)} (space.input)")
        )
        program = _attempt(lambda: _export(model, example), "cannot be exported")
    _check_writes(program)
    tensors, names = _state(program)
    made_plain(program.graph_module, tensors, names)
    _check_nodes(program.graph_module)
    return Program(program.graph_module, tensors, names)


def _export(model: nn.Module, example: Tensor) -> ExportedProgram:
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")  # torch warns of its own use of what it deprecates
        program: ExportedProgram = torch.export.export(model, (example,), strict=False)
        plain: ExportedProgram = program.run_decompositions({})  # values in place of writes
    return plain


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what torch logs and prints of an export that fails: the whole graph."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _NoAutocast(contextlib.ContextDecorator):
    """In place of torch.autocast: its block would become a graph of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __enter__(self) -> _NoAutocast:
        return self

    def __exit__(self, *args: Any) -> None:
        pass


_APPLY: Any = torch.autograd.Function.__dict__["apply"]


@classmethod  # type: ignore[misc]
def _applied(cls: type, *args: Any, **kwargs: Any) -> Any:
    """In place of `Function.apply`: a function of the user's own loses its gradient in a graph."""
    if not cls.__module__.startswith("torch."):
        raise ConfigError(
            f"the model calls {cls.__name__}, an autograd function of your own, whose gradient a "
            "graph does not have: write it with torch's functions, or leave it out of this forward"
        )
    return _APPLY.__get__(None, cls)(*args, **kwargs)


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, without gradients, autocast, and fused attention; then as it was."""
    training = [module for module in model.modules() if module.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name in AUTOCASTS:
            stack.enter_context(mock.patch(name, _NoAutocast))
        stack.enter_context(mock.patch.object(torch.autograd.Function, "apply", _applied))
        try:
            model.eval()
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module in training:
                module.training = True


def _attempt(action: Callable[[], Any], what: str) -> Any:
    """What an action of the user's model gives, or one line that says what went wrong and where."""
    try:
        return action()
    except ConfigError:
        raise
    except Exception as error:  # it is the user's code: any error may come
        raise ConfigError(f"the model {what}: {_explained(error)}{place(error)}") from error


ADVICE = {
    "data-dependent": "its control flow depends on values: compute both ways and choose with "
    "torch.where, or trace the one you need",
    "DataDependent": "its control flow depends on values: compute both ways and choose with "
    "torch.where, or trace the one you need",
    "DynamicOutputShape": "a shape depends on values: fix its size",
}


def _explained(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".strip()
    for mark, advice in ADVICE.items():
        if mark in text:
            return advice
    return text.splitlines()[0][:200]


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, (1, *shape)))


def _check_inputs(model: nn.Module) -> None:
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    given = [p for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    needed = [p.name for p in given if p.default is inspect.Parameter.empty]
    if len(needed) > 1:
        raise ConfigError(
            f"the model takes {len(needed)} inputs ({', '.join(needed)}) where one image is "
            "given: wrap it in a module whose forward takes the image only"
        )


def _check_output(output: Any) -> None:
    if isinstance(output, Tensor):
        return
    what = type(output).__name__
    if isinstance(output, dict):
        what += f" with {', '.join(map(str, output))}"
    raise ConfigError(
        f"the model returns a {what}: wrap it in a module whose forward returns one tensor"
    )


def _check_writes(program: ExportedProgram) -> None:
    signature = program.graph_signature
    written = {**signature.buffers_to_mutate, **getattr(signature, "parameters_to_mutate", {})}
    for name in written.values():
        raise ConfigError(
            f"the model writes to its own {name!r} while it runs: an exported network has no "
            "memory; take the write out of forward"
        )


def _check_nodes(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            _check_call(node)
        values = node.meta.get("val")
        for value in values if isinstance(values, (list, tuple)) else [values]:
            _check_value(node, value)


def _check_value(node: fx.Node, value: Any) -> None:
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        raise ConfigError(
            f"{_where(node)}: node {node.name} makes a Python number of a tensor: keep it a tensor"
        )
    if isinstance(value, Tensor) and not all(type(size) is int for size in value.shape):
        raise ConfigError(
            f"{_where(node)}: the shape of node {node.name} depends on values: fix its size"
        )


def _where(node: fx.Node) -> str:
    return module_of(node) or "the model's own forward"


def _check_call(node: fx.Node) -> None:
    if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
        return
    raise ConfigError(
        f"{_where(node)}: node {node.name} calls {node.target}, an operator that torch does not "
        "have: write it with torch's functions"
    )


def module_of(node: fx.Node) -> str:
    """Path of the module that made a node, '' in the model's own forward."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return str(path)


def _state(program: ExportedProgram) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by node, and the names of those that are in the model's state dict."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    values = {**program.state_dict, **program.constants}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            continue
        name, target = spec.arg.name, str(spec.target)
        tensors[name] = values[target].detach()
        if spec.kind in STATE and spec.persistent is not False:
            names[name] = target
    return _shared(tensors, names), names


def _shared(tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Tensors, one object for all nodes of the same memory; those that overlap are refused."""
    known: dict[tuple[Any, ...], Tensor] = {}
    ends: list[tuple[int, int, str]] = []
    for name, tensor in tensors.items():
        start = tensor.data_ptr()
        key = (start, tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and key not in known:
            ends.append((start, start + _bytes(tensor), names.get(name, name)))
        tensors[name] = known.setdefault(key, tensor) if tensor.numel() else tensor
    ends.sort()
    for (_, stop, a), (start, _, b) in itertools.pairwise(ends):
        if start < stop:
            raise ConfigError(f"{a} and {b} share a part of their memory: make one of them a copy")
    return tensors


def _bytes(tensor: Tensor) -> int:
    reach = sum((s - 1) * step for s, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (reach + 1) * tensor.element_size()
