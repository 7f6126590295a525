"""Files of torch.save as plain tensors: the restricted loader, so that no code in them runs.

Source: "weights_only" in https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from profilers.errors import FileFormatError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a file, or of the `state_dict` in it, on the CPU.

    Raises:
        FileFormatError: missing, cut short, no file of torch, something else than tensors by name,
            or a pickle that wants to run code; the code did not run.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; give the downloaded file") from None
    except pickle.UnpicklingError as error:
        raise FileFormatError(f"{path} {_refused(error)}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError,
            AttributeError, AssertionError) as error:  # fmt: skip
        raise FileFormatError(
            f"{path} cannot be read as a file of torch ({_one_line(error)}); it was cut short or "
            "is of another kind: download it again"
        ) from error
    tensors = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(tensors, dict):
        raise FileFormatError(f"{path} holds a {type(tensors).__name__}, expected tensors by name")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileFormatError(
                f"{path} holds {name!r}: {type(value).__name__}, expected tensors by name"
            )
    return tensors


def _refused(error: Exception) -> str:
    """Why the restricted loader refused a file: the code it names, or that it is no pickle."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return (
            f"is a pickle that wants to run {named.group(1)}; it was not run. Weights need no "
            "code: get the file from its authors"
        )
    # torch's own message is left out: it advises to load the file without the restriction.
    return "is no file of weights as torch.save writes it; download it again"


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
