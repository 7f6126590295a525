"""Files of training: the supernet, and the checkpoint of a run that is not finished.

Both are safetensors with one metadata key, `hwnas`, that holds canonical JSON: what the weights
are, and their hash. Equal weights and equal settings that decide the result give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.supernet import depthwise
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet, channels_last
from hwnas.supernet.state import State
from profilers.errors import FileFormatError
from profilers.schema import canonical_json, check_format, write_atomic, write_error

FORMAT = "hwnas-supernet-1"
CHECKPOINT_FORMAT = "hwnas-checkpoint-1"
SUBNET_FORMAT = "hwnas-subnet-1"
MAX_THREADS = 4096  # as in the settings


# ---- supernet ----------------------------------------------------------------------------------


def save_supernet(
    net: Supernet, job: Job, path: Path, origin: Mapping[str, Any] | None = None
) -> None:
    """Write the supernet with what is needed to use it: space, classes and input normalisation;
    and of a model of the user's, what it comes from.
    """
    about = {
        **about_space(net.space),
        "classes": list(job.dataset.class_names),
        "mean": list(job.dataset.mean),
        "std": list(job.dataset.std),
        "data": job.dataset.fingerprint,
        "train": job.inputs["train"],
        "recipe": job.inputs["recipe"],
        **({"origin": origin} if origin else {}),
    }
    write_supernet(net.state_dict(), about, path)


def about_space(space: SearchSpace) -> dict[str, Any]:
    """What the metadata of a supernet says of its space."""
    return {
        "space": space.name,
        "geometry": space.geometry,
        "in_channels": space.in_channels,
        "n_classes": space.n_classes,
        "resolutions": list(space.resolutions),
    }


def write_supernet(tensors: Mapping[str, Tensor], about: Mapping[str, Any], path: Path) -> None:
    """Write a supernet file: tensors of `Supernet.state_dict` and metadata (docs/formats.md)."""
    write_atomic(path, _to_bytes(tensors, {"format": FORMAT, **about}))


def read_about(path: Path) -> dict[str, Any]:
    """The metadata of a supernet file.

    Raises:
        FileFormatError: missing, truncated or of another kind.
    """
    return _read_about(path, FORMAT)


def load_supernet(path: Path, space: SearchSpace) -> Supernet:
    """The supernet of a file, in evaluation mode, channels last.

    Raises:
        FileFormatError: missing, truncated, of another kind, or of another space.
    """
    tensors, about = _read(path, FORMAT)
    if about.get("geometry") != space.geometry:
        raise FileFormatError(
            f"{path} holds a supernet of space {about.get('space')!r} with another geometry than "
            f"{space.name!r} ({space.in_channels} channels, {space.n_classes} classes); train again"
        )
    net = Supernet(space)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise FileFormatError(
            f"{path} does not fit space {space.name}: {_one_line(error)}"
        ) from error
    channels_last(net).eval()
    return net


# ---- one subnet --------------------------------------------------------------------------------


def save_subnet(net: Subnet, about: Mapping[str, Any], path: Path) -> None:
    """Write the weights of one subnet that was trained on its own (docs/formats.md)."""
    known = {**about_space(net.arch.space), "arch": net.arch.to_json()}
    write_atomic(path, _to_bytes(net.state_dict(), {"format": SUBNET_FORMAT, **known, **about}))


def load_subnet(path: Path, arch: Architecture) -> tuple[Subnet, dict[str, Any]]:
    """The subnet of a file, in evaluation mode, and the file's metadata.

    Raises:
        FileFormatError: missing, truncated, of another kind, or of another network.
    """
    tensors, about = _read(path, SUBNET_FORMAT)
    if about.get("geometry") != arch.space.geometry or about.get("arch") != arch.to_json():
        raise FileFormatError(f"{path} holds another network than {arch.id}; delete it")
    net = Subnet(arch)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise FileFormatError(f"{path} does not fit {arch.id}: {_one_line(error)}") from error
    return channels_last(net).eval(), about


# ---- checkpoint --------------------------------------------------------------------------------


def save_checkpoint(job: Job, state: State, step: int) -> None:
    """Write the state of a run, the next step, and what sums depend on (see `Known`)."""
    net, optimizer = state.net, state.optimizer
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    for part, kept in (("average", state.average), ("teacher", state.teacher)):
        if kept is not None:
            tensors |= {f"{part}.{name}": value for name, value in kept.state_dict().items()}
    about = {
        "format": CHECKPOINT_FORMAT,
        "step": step,
        "threads": torch.get_num_threads(),
        "split_gradients": depthwise.in_use(),
        "identity": _identity(job, net),
    }
    write_atomic(job.checkpoint, _to_bytes(tensors, about))


def set_aside(job: Job, network: Supernet | Subnet | None = None) -> Path | None:
    """Rename a checkpoint that this run cannot go on from: other settings, space or data.

    Returns:
        its new path, `train.checkpoint.<n>.old.safetensors`; None where there was nothing to do.

    Raises:
        FileFormatError: the checkpoint cannot be read.
        ConfigError: it cannot be renamed.
    """
    if not job.checkpoint.exists():
        return None
    if _read_about(job.checkpoint, CHECKPOINT_FORMAT).get("identity") == _identity(job, network):
        return None
    return keep_old(job.checkpoint)


def keep_old(path: Path) -> Path:
    """Rename a file of weights to `<stem>.<n>.old.safetensors`, which nothing reads.

    Raises:
        ConfigError: it cannot be renamed.
    """
    n = 1
    while (kept := path.with_name(f"{path.stem}.{n}.old.safetensors")).exists():
        n += 1
    try:
        path.rename(kept)
    except OSError as error:
        raise write_error(kept, error) from error
    return kept


class Known(NamedTuple):
    """How the steps before were taken: CPU threads (0: there were none), and whether gradients of
    depthwise weights were taken in parts (see `depthwise`).
    """

    threads: int = 0
    split_gradients: bool = False


def restore(job: Job, state: State) -> tuple[int, Known]:
    """Take up the state of the checkpoint, if there is one (of this very run).

    Returns:
        the next step, and how those before it were taken.

    Raises:
        FileFormatError: it is truncated or edited.
    """
    if not job.checkpoint.exists():
        return 0, Known()
    tensors, about = _read(job.checkpoint, CHECKPOINT_FORMAT)
    step, threads, summed = (about.get(name) for name in ("step", "threads", "split_gradients"))
    if type(threads) is not int or not 0 < threads <= MAX_THREADS:
        raise _damaged(job.checkpoint, f"threads {threads!r}, expected a number of them")
    if not isinstance(summed, bool):
        raise _damaged(job.checkpoint, f"split_gradients {summed!r}, expected true or false")
    if type(step) is not int or not 0 <= step <= job.plan.steps:
        raise _damaged(job.checkpoint, f"step {step!r}, expected 0 to {job.plan.steps}")
    if any(name.startswith("teacher.") for name in tensors):
        state.freeze_teacher()
    for part, net in (("net", state.net), ("average", state.average), ("teacher", state.teacher)):
        if net is not None:
            kept = {n[len(part) + 1 :]: t for n, t in tensors.items() if n.startswith(f"{part}.")}
            try:
                net.load_state_dict(kept)
            except RuntimeError as error:
                raise _damaged(job.checkpoint, _one_line(error)) from error
    _restore_momentum(job, state, tensors)
    return step, Known(threads, summed)


def _restore_momentum(job: Job, state: State, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in state.net.named_parameters():
        momentum = tensors.get(f"momentum.{name}")
        if momentum is None:
            continue  # a parameter that no step has used yet
        if momentum.shape != parameter.shape:
            raise _damaged(job.checkpoint, f"momentum of {name} is {tuple(momentum.shape)}")
        stored = torch.empty_like(parameter).copy_(momentum)  # keep the memory format
        state.optimizer.state[parameter]["momentum_buffer"] = stored


def _identity(job: Job, net: Supernet | Subnet | None) -> str:
    return job.identity(net.arch if isinstance(net, Subnet) else None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"{path} does not hold what it should ({reason}); it is damaged or was edited: delete it, "
        "and train or import it again"
    )


# ---- bytes -------------------------------------------------------------------------------------


def _to_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    plain = {name: value.detach().cpu().contiguous() for name, value in sorted(tensors.items())}
    told = {**about, "weights_sha256": sha256_of(plain)}
    # One metadata key: with more, safetensors writes them in an order that differs between runs.
    return bytes(safetensors.torch.save(plain, {"hwnas": canonical_json(told)}))


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Of the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_about(path: Path, expected_format: str) -> dict[str, Any]:
    return _read(path, expected_format, tensors=False)[1]


def _read(
    path: Path, expected_format: str, tensors: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (none if they are not asked for) and metadata of a file."""
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            about = json.loads((handle.metadata() or {}).get("hwnas", "{}"))
            names = handle.keys() if tensors else ()
            found = {name: handle.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; `hwnas train` writes it") from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise FileFormatError(
            f"{path} cannot be read ({error}); it is truncated or no checkpoint: delete it and "
            "train again"
        ) from error
    check_format(path, about, expected_format)
    if tensors and about.get("weights_sha256") != sha256_of(found):
        raise _damaged(path, "its weights are not those that were written")
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise FileFormatError(
            f"{path} holds weights that are NaN or infinite ({broken[0]}); delete "
            "it and train again, with a lower train.learning_rate where training made it"
        )
    return found, about
