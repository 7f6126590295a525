"""A published once-for-all supernet to a supernet file of ours.

Both historical spellings of its tensors are read (`hwnas.ofa.names`), every shape is checked, and
nothing is guessed: a name too many or too few is refused. Only kernel transforms may be missing,
which is how the file of a kernel-7 network says that they are the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.networks import spaces
from hwnas.networks.space import SearchSpace
from hwnas.ofa.dictionaries import SPACES, load_like
from hwnas.ofa.names import entries, theirs_of
from hwnas.supernet.files import about_space, write_supernet
from hwnas.supernet.pickles import read_tensors
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import sha256_file

# ofa/imagenet_classification/data_providers/imagenet.py
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IGNORED = ("num_batches_tracked", "total_ops", "total_params")  # counters, not weights
SEED = 0  # of a new classifier
SHOWN = 3  # names that a message lists


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        space: with the classes of the supernet.
        sha256: of the file that was read.
        identity: how many kernel transforms the file lacks, which are the identity then.
        new_classifier: whether the classifier was replaced by a fresh one.
    """

    space: SearchSpace
    sha256: str
    identity: int
    new_classifier: bool


def import_supernet(path: Path, space_name: str, out: Path, classes: int = 0) -> Imported:
    """Read a checkpoint of once-for-all and write it as a supernet file.

    Args:
        path: written by torch.save: tensors by name, or a dictionary with `state_dict`.
        space_name: of SPACES, or a user's own `module:NAME`.
        out: the file to write, `supernet.safetensors` of a run folder.
        classes: outputs of the classifier; another number than the file's replaces it by a fresh
            one; 0: those of the space, 1,000.

    Raises:
        ConfigError: the space is not once-for-all's, or the number of classes is not right.
        FileFormatError: the file cannot be read, would run code, or is of another space or width.
    """
    space = load_like(space_name)
    usual = space.n_classes
    given = {key: t for key, t in read_tensors(path).items() if not key.endswith(IGNORED)}
    found = _renamed(path, given, {entry.theirs for entry in entries(space)})
    space = replace(space, n_classes=_classes(path, space, found) or space.n_classes)
    _check(path, space, found)
    kept = {e.ours: found[e.theirs].float() for e in entries(space) if e.theirs in found}
    identity = {e.ours: torch.eye(e.shape[0]) for e in entries(space) if e.theirs not in found}
    tensors, space, fresh = _with_classes(path, space, {**kept, **identity}, classes, usual)
    imported = Imported(space, sha256_file(path), len(identity), fresh)
    write_supernet(tensors, _about(path, imported), out)
    return imported


def _renamed(path: Path, given: Mapping[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """The tensors under their expected names."""
    found: dict[str, Tensor] = {}
    for key, tensor in given.items():
        name = theirs_of(key, expected)
        if name in found:
            raise FileFormatError(f"{path} holds {name} twice, once as {key}")
        found[name] = tensor
    return found


def _classes(path: Path, space: SearchSpace, found: Mapping[str, Tensor]) -> int:
    """Outputs of a file's classifier; 0 if it has none."""
    name = next(e.theirs for e in entries(space) if e.ours == "slots.classifier.linear.bias")
    bias = found.get(name)
    if bias is not None and bias.ndim != 1:
        raise FileFormatError(f"{path}: {name} has shape {tuple(bias.shape)}, expected one axis")
    return len(bias) if bias is not None else 0


def _check(path: Path, space: SearchSpace, found: Mapping[str, Tensor]) -> None:
    """Refuse a file that is not a supernet of the space; name the right space if known."""
    problem = _problem(space, found)
    if not problem:
        return
    for name in SPACES:
        other = replace(spaces.load(name), n_classes=space.n_classes)
        renamed = {
            theirs_of(key, {e.theirs for e in entries(other)}): t for key, t in found.items()
        }
        if name != space.name and not _problem(other, renamed):
            raise FileFormatError(
                f"{path} is a supernet of space {name}, not of {space.name}; give --space {name}"
            )
    raise FileFormatError(f"{path} is not a supernet of space {space.name}: {problem}")


def _problem(space: SearchSpace, found: Mapping[str, Tensor]) -> str:
    """What is wrong with tensors as a supernet of a space; empty for nothing."""
    expected = {entry.theirs: entry.shape for entry in entries(space)}
    missing = [n for n in expected if n not in found and not n.endswith("_matrix")]
    extra = [name for name in found if name not in expected]
    parts = [f"it lacks {_some(missing)}"] if missing else []
    parts += [f"it holds unknown {_some(extra)}"] if extra else []
    for name, tensor in found.items():
        if name not in expected:
            continue
        if tuple(tensor.shape) != expected[name]:
            parts.append(f"{name} has shape {tuple(tensor.shape)}, expected {expected[name]}")
        elif not tensor.is_floating_point():
            parts.append(f"{name} holds {tensor.dtype}, expected floating point")
        elif not torch.isfinite(tensor).all():
            parts.append(f"{name} holds NaN or infinity")
    return "; ".join(parts[:SHOWN])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _with_classes(
    path: Path, space: SearchSpace, tensors: dict[str, Tensor], classes: int, usual: int
) -> tuple[dict[str, Tensor], SearchSpace, bool]:
    """Tensors and space with the classes asked for, and whether the classifier is a fresh one.

    Raises:
        ConfigError: the file's classes are neither the space's nor those asked for.
    """
    if classes in (0, space.n_classes):
        if not classes and space.n_classes != usual:
            raise ConfigError(
                f"{path} has {space.n_classes} classes, space {space.name} has {usual}: "
                f"--classes {space.n_classes} keeps its classifier, another number N of classes "
                "(--classes N) replaces it by one to be trained"
            )
        return tensors, space, False
    name = "slots.classifier.linear"
    shape = (classes, *tensors[f"{name}.weight"].shape[1:])
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.normal(0.0, 0.01, shape, generator=generator)  # as their init_model
    changed = {f"{name}.weight": weight, f"{name}.bias": torch.zeros(classes)}
    return {**tensors, **changed}, replace(space, n_classes=classes), True


def _about(path: Path, imported: Imported) -> dict[str, Any]:
    """The metadata of the supernet file."""
    return {
        **about_space(imported.space),
        "classes": [str(n) for n in range(imported.space.n_classes)],
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "data": None,
        "train": None,
        "imported": {
            "from": "once-for-all",
            "file": path.name,
            "sha256": imported.sha256,
            "new_classifier": imported.new_classifier,
        },
    }
