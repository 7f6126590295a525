"""Files of torch.save as plain tensors: the restricted loader, so that no code in them runs.

Source: "weights_only" in https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from profilers.errors import FileFormatError

SCANNED_BYTES = 1 << 20  # of a bare pickle, for the name of what it wants to run


NO_CODE = "Weights need no code: get the file from its authors"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a file, or of its `state_dict`, on the CPU.

    Raises:
        FileFormatError: as `read`; something else than tensors by name.
    """
    found = read(path, NO_CODE)
    nested = isinstance(found, dict) and "state_dict" in found
    return tensors_by_name(found["state_dict"] if nested else found, path)


def tensors_by_name(found: Any, path: Path) -> dict[str, Tensor]:
    """What a file holds, if that is tensors by name.

    Raises:
        FileFormatError: it is something else.
    """
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} must hold tensors by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileFormatError(f"{path} must hold tensors by name; {name!r} is something else")
    return found


def read(path: Path, remedy: str) -> Any:
    """What a file of torch.save holds, on the CPU.

    Args:
        path: of the file.
        remedy: what to do where the file wants to run code.

    Raises:
        FileFormatError: missing, cut short, no file of torch, or a pickle that wants to run code;
            the code did not run.
    """
    try:
        with warnings.catch_warnings():  # of torch, about the pickle's protocol
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; check its path") from None
    except pickle.UnpicklingError as error:
        raise FileFormatError(f"{path} {_refused(path, error, remedy)}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError,
            AttributeError, AssertionError) as error:  # fmt: skip
        raise FileFormatError(
            f"{path} cannot be read as a file of torch ({_one_line(error)}); it was cut short or "
            "is of another kind: write or download it again"
        ) from error


def _refused(path: Path, error: Exception, remedy: str) -> str:
    """Why the restricted loader refused a file: the code it names, or that it is no pickle."""
    told = re.search(r"GLOBAL ([\w.]+)", str(error))
    named = told.group(1) if told else _code_of(path)
    if named:
        return f"is a pickle that wants to run {named}; it was not run. {remedy}"
    # torch's own message is left out: it advises to load the file without the restriction.
    return "is not a file of weights as torch.save writes it; write or download it again"


def _code_of(path: Path) -> str:
    """The first object, not torch's own, that a bare pickle names; empty if there is none.

    Its opcodes are read, never executed.
    """
    texts = ["", ""]  # of the stack's top: newer protocols name an object by two of them
    with path.open("rb") as handle, contextlib.suppress(ValueError, OSError):
        for opcode, value, _ in pickletools.genops(handle.read(SCANNED_BYTES)):
            if "UNICODE" in opcode.name:
                texts = [texts[1], str(value)]
            elif opcode.name in ("GLOBAL", "STACK_GLOBAL"):
                module, _, name = str(value).partition(" ") if value else (texts[0], "", texts[1])
                known = module.split(".")[0] in ("torch", "collections")
                if not known and re.fullmatch(r"[\w.]+", f"{module}.{name}"):
                    return f"{module}.{name}"
    return ""


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
