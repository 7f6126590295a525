"""A torch model of the user's own, with its weights: what the settings name, in evaluation mode.

The user's code runs here and nowhere else, and only where the settings name it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hwnas.settings.config import SpaceConfig
from hwnas.supernet import pickles
from profilers.errors import ConfigError, FileFormatError, RuntimeMissingError
from profilers.plugins import code_of_others, import_object, one_line

TIMM = "timm"  # the module of `timm:NAME`, which is no function's
SHOWN = 3  # names that a message lists
# Keys that checkpoints of trainings keep the weights under, the likeliest first.
WITHIN = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
COUNTER = "num_batches_tracked"  # of a BatchNorm; no weight


def load(settings: SpaceConfig, base: Path, note: Callable[[str], None]) -> nn.Module:
    """The model of the settings with its weights, on the CPU, in evaluation mode, float32.

    Args:
        settings: of the space; `model` names a function, `weights` a file.
        base: folder of hwnas.yaml; modules there are found, and the file of weights.
        note: where to say what was chosen of several.

    Raises:
        ConfigError: the function is not there, fails, or returns no model.
        RuntimeMissingError: timm is named and not installed.
        FileFormatError: the weights cannot be read, would run code, or do not fit.
    """
    model = _built(settings.model, base)
    if settings.weights:
        path = base / settings.weights
        known = model.state_dict().keys()
        _fill(model, _state(path, known, note), f"{path} does not fit {settings.model}")
    broken = [name for name, t in model.state_dict().items() if not t.isfinite().all()]
    if broken:
        raise FileFormatError(
            f"the weights of {settings.model} hold NaN or infinity ({broken[0]}); give it others "
            "as space.weights"
        )
    model = model.cpu().float().requires_grad_(False).eval()
    if training := [name or "itself" for name, m in model.named_modules() if m.training]:
        raise ConfigError(
            f"{settings.model} stays in training mode after eval() ({training[0]}); let its "
            "train() take the mode that it is given"
        )
    return model


# ---- the user's function -------------------------------------------------------------------------


def _built(name: str, base: Path) -> nn.Module:
    """What the function of a name returns."""
    with _importable(base):
        function = _timm(name) if name.startswith(f"{TIMM}:") else _function(name)
        with code_of_others(name, "space.model"):
            model = function()
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(
            f"space.model {name} returned a {type(model).__name__}, expected a torch nn.Module "
            "that is not scripted or traced"
        )
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.is_meta or is_lazy(value):
            raise ConfigError(
                f"space.model {name} returned a model whose {key} has no values; run it "
                "once where layers are lazy, and return it on the CPU, not quantised"
            )
    return model


@contextmanager
def _importable(base: Path) -> Iterator[None]:
    """Modules beside hwnas.yaml are found, as those beside a script are; what the user's code sets
    for all of torch is set back.
    """
    dtype, device, learns = (
        torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    )  # fmt: skip
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code changed the path itself
            sys.path.remove(str(base))
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(learns)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


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
            f"space.model {name} needs timm, which cannot be imported ({one_line(error)}); pip "
            "install timm, or give a function of yours"
        ) from None
    wanted, known = name.partition(":")[2], timm.list_models()
    if not timm.is_model(wanted):
        close = difflib.get_close_matches(wanted, known, n=1, cutoff=0)
        raise ConfigError(f"timm has no model {wanted!r}; the nearest is {close[0]!r}")
    return lambda: timm.create_model(wanted, pretrained=False)


# ---- weights -------------------------------------------------------------------------------------


def _state(path: Path, wanted: Collection[str], note: Callable[[str], None]) -> dict[str, Tensor]:
    """The tensors of a file by the model's names.

    Raises:
        FileFormatError: it cannot be read, or would run code.
    """
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path, note)
    while not found.keys() & wanted and all("." in name for name in found):
        if len({name.partition(".")[0] for name in found}) != 1:
            break  # else a wrapper's: module. of DataParallel, _orig_mod. of torch.compile, ...
        found = {name.partition(".")[2]: tensor for name, tensor in found.items()}
    return found


def _pickled(path: Path, note: Callable[[str], None]) -> dict[str, Tensor]:
    """The tensors of a file of torch.save, or of a checkpoint of a training in it."""
    new = path.with_name(f"{path.stem}.state.pt").name
    found = pickles.read(
        path,
        "A model or checkpoint that was saved whole becomes a state dict, where you trust it, by: "
        f'python -c "import torch; m = torch.load({path.name!r}, weights_only=False); torch.save('
        f"m.state_dict() if isinstance(m, torch.nn.Module) else m['state_dict'], {new!r})\"",
    )
    sets = {key: value for key, value in found.items() if isinstance(value, dict)
            and value and all(isinstance(t, Tensor) for t in value.values())
            } if isinstance(found, dict) else {}  # fmt: skip
    if sets:
        key = next((key for key in WITHIN if key in sets), next(iter(sets)))
        if len(sets) > 1:
            note(f"space: {path.name} holds {', '.join(sets)}; {key} is read")
        found = sets[key]
    return pickles.tensors_by_name(found, path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; check space.weights") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise FileFormatError(
            f"{path} cannot be read as safetensors ({one_line(error)}); it was cut short or is of "
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
    kinds = [
        f"{name} is {tensor.dtype}, the model's {known[name].dtype}".replace("torch.", "")
        for name, tensor in given.items()
        if name in known and known[name].is_floating_point() > tensor.is_floating_point()
    ]
    parts = (
        ("it lacks", missing), ("the model lacks", strange), ("other shapes have", wrong),
        ("other kinds of numbers have", kinds),
    )  # fmt: skip
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
