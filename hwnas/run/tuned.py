"""What is known of subnets that `hwnas finetune --subnet` trained: read without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwnas.networks.space import Architecture
from hwnas.run import imported
from hwnas.run.context import Context
from hwnas.supernet.header import read_header
from hwnas.supernet.job import training_inputs
from profilers.errors import FileFormatError
from profilers.schema import sha256_file


def finetuned(context: Context, arch: Architecture, supernet_sha256: str) -> dict[str, Any] | None:
    """The header of a subnet's fine-tuned weights; None if there are none of this supernet.

    Raises:
        FileFormatError: they cannot be read, or are another network's.
    """
    path = context.run.finetuned(arch.id)
    if not path.exists():
        return None
    about = read_header(path)
    if about.get("supernet_sha256") != supernet_sha256:
        return None
    if about.get("arch") != arch.to_json():
        raise FileFormatError(f"{path} holds another network than {arch.id}; delete it")
    known = {"val_accuracy_before", "val_accuracy", "finetuned"}
    if not known <= set(about):
        raise FileFormatError(f"{path} lacks {', '.join(sorted(known - set(about)))}; delete it")
    return {
        "sha256": sha256_file(path),
        "val_accuracy_before": about["val_accuracy_before"],
        "val_accuracy": about["val_accuracy"],
        "inputs": about["finetuned"],
    }


def are_due(context: Context, archs: Sequence[Architecture]) -> list[Architecture]:
    """Networks that the settings want fine-tuned before export, and that are not fine-tuned yet."""
    config = context.config
    if not config.finetune.in_run:
        return []
    start = sha256_file(imported.need_weights(context.run))
    wanted = training_inputs(
        config.finetune, context.space, config.data.augment, context.data["fingerprint"]
    )
    wanted["start"] = start
    due = []
    for arch in archs:
        known = finetuned(context, arch, start)
        if (known is None or known["inputs"] != wanted) and arch not in due:
            due.append(arch)
    return due


def of_networks(context: Context, archs: Sequence[Architecture]) -> dict[str, Any]:
    """What `finetuned` says of networks, by id; those without such weights are left out."""
    supernet = sha256_file(imported.need_weights(context.run))
    found = {arch.id: finetuned(context, arch, supernet) for arch in archs}
    return {name: about for name, about in found.items() if about is not None}
