"""Fine-tuning on the user's images: of an imported supernet, or of one subnet. Uses torch.

The supernet keeps its weights but, where the images have other classes, its classifier; it is
trained by the sandwich rule. One subnet learns from the labels and from the max network of the
same resolution. Both go on where they were cut, through the checkpoints of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.run import imported
from hwnas.run.context import Context, need
from hwnas.run.data import checked_dataset
from hwnas.run.folder import is_first_process
from hwnas.run.tuned import finetuned
from hwnas.run.weights import make_evaluator
from hwnas.supernet import training
from hwnas.supernet.evaluation import Evaluator, metric_of
from hwnas.supernet.files import (
    about_space,
    load_supernet,
    read_about,
    save_subnet,
    set_aside,
    write_supernet,
)
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet, extract
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import sha256_file, write_atomic

# ---- the whole supernet -------------------------------------------------------------------------


def finetune_supernet(context: Context) -> bool:
    """Train the imported supernet of a run on its images. Returns whether anything was to do.

    Raises:
        ConfigError: the supernet was not imported, or takes images of other channels.
    """
    imported.need_images(context.config, "nothing can be fine-tuned; name images of yours as data")
    run, config = context.run, context.config
    path, start = need(run.supernet, "import supernet"), run.start
    about = read_about(path)
    if not about.get("imported"):
        raise ConfigError(
            f"{path} was trained on these images already; raise "
            f"{'finetune' if config.space.model else 'train'}.epochs and run `hwnas train`"
        )
    # Rank 0 keeps the copy; the other ranks wait.
    if training.agreed(is_first_process() and "finetuned" not in about):
        _keep_start(path, start)
    images = checked_dataset(context)
    job = Job(
        config.finetune, context.space, images, config.data.augment, run.root, sha256_file(start)
    )
    if about.get("finetuned") == job.inputs:
        return False
    if list(images.mean) != about.get("mean") or list(images.std) != about.get("std"):
        context.report.warn(
            "the imported supernet was trained on images normalised as ImageNet's are, these are "
            "not; set data.normalise: imagenet"
        )
    torch.manual_seed(config.finetune.seed)  # of a fresh classifier
    net = _starting_net(start, context.space)
    if is_first_process() and (kept := set_aside(job, net)):
        context.report.warn(f"a checkpoint of other settings, space or data is kept as {kept}")
    report, say = context.report, context.report.progress("finetune")

    def save(net: Supernet) -> None:
        _save(net, job, about, path)

    training.train(job, say, net, note=report.note, save=save)
    return True


def _keep_start(path: Path, start: Path) -> None:
    """Copy the imported supernet, so that every fine-tuning starts from it."""
    if is_first_process():
        write_atomic(start, path.read_bytes())
    training.agreed(False)


def _starting_net(start: Path, space: SearchSpace) -> Supernet:
    """The imported supernet for the images of a space; with a fresh classifier where its classes
    are others.
    """
    about = read_about(start)
    if about.get("in_channels") != space.in_channels:
        raise ConfigError(
            f"{start} takes images of {about.get('in_channels')} channels, these have "
            f"{space.in_channels}; convert them to colour"
        )
    n_classes = about.get("n_classes")
    if type(n_classes) is not int:
        raise FileFormatError(f"{start} has n_classes {n_classes!r}; import the supernet again")
    given = load_supernet(start, replace(space, n_classes=n_classes))
    if n_classes == space.n_classes:
        return given
    net = Supernet(space)
    kept = {k: v for k, v in given.state_dict().items() if not k.startswith("slots.classifier.")}
    net.load_state_dict(kept, strict=False)
    return net


def _save(net: Supernet, job: Job, about: Mapping[str, Any], path: Path) -> None:
    images = job.dataset
    changed = {
        "classes": list(images.class_names),
        "mean": list(images.mean),
        "std": list(images.std),
        "data": images.fingerprint,
        "finetuned": job.inputs,
    }
    kept = {key: value for key, value in about.items() if key != "format"}
    write_supernet(net.state_dict(), {**kept, **about_space(net.space), **changed}, path)


# ---- one subnet ---------------------------------------------------------------------------------


def finetune_subnet(context: Context, arch: Architecture) -> bool:
    """Train one subnet of the run's supernet on its own. Returns whether anything was to do.

    `hwnas export` takes the weights up; a supernet that is made anew makes them worthless.
    """
    evaluator = make_evaluator(context)
    job = _subnet_job(context, evaluator, arch)
    known = finetuned(context, arch, evaluator.supernet_sha256)
    # Rank 0 looks and writes, so that all ranks do the same.
    if not training.agreed(is_first_process() and (known is None or known["inputs"] != job.inputs)):
        return False
    largest = arch.space.largest_at(arch.resolution)
    teacher = evaluator.calibrated(extract(evaluator.supernet, largest)).requires_grad_(False)
    subnet = evaluator.calibrated(extract(evaluator.supernet, arch))
    before = _validated(evaluator, subnet)
    if is_first_process() and (kept := set_aside(job, subnet)):
        context.report.warn(f"a checkpoint of other settings or data is kept as {kept}")
    told = training.Teacher(teacher, context.config.finetune.distill)
    say = context.report.progress(f"finetune {arch.id}")

    def save(net: Subnet) -> None:
        net = evaluator.calibrated(net)
        _save_subnet(context, job, net, before, _validated(evaluator, net))

    training.train(job, say, subnet, told, note=context.report.note, save=save)
    return True


def _save_subnet(context: Context, job: Job, net: Subnet, before: float, after: float) -> None:
    arch = net.arch
    about = {
        "supernet_sha256": job.start,
        "finetuned": job.inputs,
        "val_accuracy_before": before,
        "val_accuracy": after,
    }
    save_subnet(net.cpu(), about, subnet_path(context, arch))
    context.report.note(
        f"{arch.id}: {job.dataset.task.metric} on validation images {before:.2%} before, "
        f"{after:.2%} after fine-tuning"
    )


def _subnet_job(context: Context, evaluator: Evaluator, arch: Architecture) -> Job:
    config = context.config
    folder = subnet_path(context, arch).parent
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        config.finetune,
        context.space,
        evaluator.dataset,
        config.data.augment,
        folder,
        evaluator.supernet_sha256,
    )


@torch.no_grad()
def _validated(evaluator: Evaluator, subnet: Subnet) -> float:
    return metric_of(subnet.eval(), evaluator.dataset, evaluator.validation)


def subnet_path(context: Context, arch: Architecture) -> Path:
    """Where the fine-tuned weights of a subnet are kept."""
    return context.run.finetuned(arch.id)
