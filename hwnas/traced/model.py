"""A torch model of the user's own, with its weights: what the settings name, in evaluation mode.

The user's code runs here and nowhere else, and only where the settings name it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hwnas.settings.config import SpaceConfig
from hwnas.supernet.pickles import read_tensors
from profilers.errors import ConfigError, FileFormatError, RuntimeMissingError
from profilers.plugins import import_object

TIMM = "timm"  # the module of `timm:NAME`, which is no function's
SHOWN = 3  # names that a message lists
WITHIN = ("state_dict", "model")  # keys that checkpoints of trainings keep the weights under
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, of torch.compile
COUNTER = "num_batches_tracked"  # of a BatchNorm; no weight


def load(settings: SpaceConfig, base: Path) -> nn.Module:
    """The model of the settings with its weights, on the CPU, in evaluation mode, float32.

    Args:
        settings: of the space; `model` names a function, `weights` a file.
        base: folder of hwnas.yaml; modules there are found, and the file of weights.

    Raises:
        ConfigError: the function is not there, fails, or returns no model.
        RuntimeMissingError: timm is named and not installed.
        FileFormatError: the weights cannot be read, would run code, or do not fit.
    """
    model = _built(settings.model, base)
    if settings.weights:
        path = base / settings.weights
        _fill(model, _state(path), f"{path} does not fit {settings.model}")
    broken = [name for name, t in model.state_dict().items() if not t.isfinite().all()]
    if broken:
        raise FileFormatError(
            f"the weights of {settings.model} hold NaN or infinity ({broken[0]}); give it others "
            "as space.weights"
        )
    return model.cpu().float().requires_grad_(False).eval()


# ---- the user's function -------------------------------------------------------------------------


def _built(name: str, base: Path) -> nn.Module:
    """What the function of a name returns."""
    with _importable(base):
        function = _timm(name) if name.startswith(f"{TIMM}:") else _function(name)
        try:
            model = function()
        except Exception as error:  # whatever the user's code raises
            raise ConfigError(
                f"space.model {name} failed with {type(error).__name__}: {_one_line(error)}; it is "
                "called without arguments to make the model"
            ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"space.model {name} returned a {type(model).__name__}, expected a torch nn.Module"
        )
    return model


@contextmanager
def _importable(base: Path) -> Iterator[None]:
    """Modules beside hwnas.yaml are found, as those beside a script are."""
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code changed the path itself
            sys.path.remove(str(base))


def _function(name: str) -> Callable[[], Any]:
    """The user's function.

    Raises:
        ConfigError: it is not there, is none, or wants arguments.
    """
    found = import_object(name, "space.model")
    wanted = "expected a function without arguments that returns your model"
    if not callable(found) or isinstance(found, nn.Module):
        raise ConfigError(f"space.model {name} is a {type(found).__name__}, {wanted}")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ConfigError(f"space.model {name}: {error}; {wanted}") from None
    except ValueError:  # it has no signature that Python knows
        pass
    return found  # type: ignore[no-any-return]


def _timm(name: str) -> Callable[[], Any]:
    """What makes a model of timm, without weights."""
    try:
        timm: Any = importlib.import_module(TIMM)
    except Exception as error:  # with a torchvision of another torch it ends in many ways
        raise RuntimeMissingError(
            f"space.model {name} needs timm, which cannot be imported ({_one_line(error)}); pip "
            "install timm, or give a function of yours"
        ) from None
    return lambda: timm.create_model(name.partition(":")[2], pretrained=False)


# ---- weights -------------------------------------------------------------------------------------


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the model's names.

    Raises:
        FileFormatError: it cannot be read, or would run code.
    """
    if path.suffix == ".safetensors":
        found = _safetensors(path)
    else:
        new = path.with_name(f"{path.stem}.state.pt")
        found = read_tensors(
            path,
            WITHIN,
            "A model that was saved whole becomes a state dict, where you trust it, by: python -c "
            f'"import torch; torch.save(torch.load({path.name!r}, weights_only=False)'
            f'.state_dict(), {new.name!r})"',
        )
    for prefix in PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; check space.weights") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise FileFormatError(
            f"{path} cannot be read as safetensors ({_one_line(error)}); it was cut short or is of "
            "another kind: write it again"
        ) from error


def _fill(model: nn.Module, given: Mapping[str, Tensor], refusal: str) -> None:
    """Put tensors into a model.

    Raises:
        FileFormatError: some are missing, unknown, or of another shape; names the first ones.
    """
    known = model.state_dict()
    missing = [name for name in known if name not in given and not name.endswith(COUNTER)]
    strange = [name for name in given if name not in known]
    wrong = [
        f"{name} is {_shape(tensor)}, the model's {_shape(known[name])}"
        for name, tensor in given.items()
        if name in known and tensor.shape != known[name].shape
    ]
    parts = (("it lacks", missing), ("the model lacks", strange), ("other shapes have", wrong))
    told = [
        f"{words} {len(names)} tensor{'s' * (len(names) > 1)} ({_some(names)})"
        for words, names in parts
        if names
    ]
    if told:
        raise FileFormatError(f"{refusal}: {'; '.join(told)}")
    model.load_state_dict(given, strict=False)


def _some(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
