"""Stage `train`: images to supernet. Loads torch only when there is something to train."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hwnas.run import imported, own
from hwnas.run.context import Context, need
from hwnas.run.data import agreed, checked_dataset
from hwnas.run.folder import Work, begin, is_current, is_first_process, mark_current
from hwnas.settings import versions
from hwnas.settings.config import Config, TrainConfig
from hwnas.supernet.job import Job, training_inputs
from profilers.errors import ConfigError
from profilers.schema import sha256_file

if TYPE_CHECKING:
    from hwnas.networks.space import SearchSpace
    from hwnas.supernet.network import Supernet
    from hwnas.supernet.training import Teacher

TRAIN_VERSION = 1


def settings_of(config: Config) -> TrainConfig:
    """How a run's supernet is trained; that of a user's model is fine-tuned."""
    return config.finetune if config.space.model else config.train


def train_supernet(context: Context) -> bool:
    """Train the supernet, or go on where training was cut. Returns whether anything was to do.

    The supernet of a user's model starts from that model's weights, and the model teaches it.
    """
    if skips_training(context):
        return False
    imported.need_images(
        context.config,
        "there is nothing to train on; name images in hwnas.yaml"
        + imported.in_place_of_training(context.run),
    )
    config, run, work = context.config, context.run, train_work(context)
    # Rank 0 looks and writes, so that all ranks do the same.
    if not agreed(is_first_process() and not is_current(run, work, context.report.note)):
        return False
    from hwnas.supernet import training  # these import torch
    from hwnas.supernet.files import keep_old, save_supernet, set_aside

    images, is_own = checked_dataset(context), bool(config.space.model)
    start = sha256_file(run.start) if is_own else ""
    settings = settings_of(config)
    job = Job(settings, context.space, images, config.data.augment, run.root, start)
    if is_first_process() and (kept := set_aside(job)):
        context.report.warn(f"a checkpoint of other settings, space or data is kept as {kept}")
    if is_first_process() and (warning := enlarged(images.size, context.space)):
        context.report.warn(warning)
    given, teacher = _of_model(context) if is_own else (None, None)
    report = context.report

    def save(supernet: Supernet) -> None:
        if run.supernet.exists():
            kept = keep_old(run.supernet)
            report.note(f"train: the supernet of before is kept as {kept.name}")
        begin(run, work)
        save_supernet(supernet, job, run.supernet, own.origin(config.space, run))
        mark_current(run, work)

    training.train(job, report.progress("train"), given, teacher, report.note, save)
    return True


def enlarged(size: int, space: SearchSpace) -> str:
    """Why the resolutions of a space are too large for images of a size; empty if they are not.

    Args:
        size: of stored images, px, or of series, steps; 0: not known.
    """
    largest = max(space.resolutions)
    if not 0 < 2 * size < largest:
        return ""
    return (
        f"images of {size} {space.unit} are enlarged to {largest}, which takes time and shows "
        "nothing new; name smaller ones as space.resolutions"
    )


def _of_model(context: Context) -> tuple[Supernet, Teacher]:
    """The supernet of the user's model, and the model itself to teach it: the largest network at
    its own input size. Says how good that is.
    """
    from hwnas.images.tensors import compute_device  # these import torch
    from hwnas.supernet.evaluation import metric_of
    from hwnas.supernet.files import load_supernet
    from hwnas.supernet.network import channels_last, extract
    from hwnas.supernet.training import Teacher

    space, images, settings = context.space, checked_dataset(context), context.config.space
    net = load_supernet(context.run.start, space)
    whole = replace(space, resolutions=(settings.input[-1],)).largest
    model = channels_last(extract(net, whole)).requires_grad_(False).to(compute_device())
    if is_first_process():
        right = metric_of(model, images, images.val)
        context.report.note(
            f"train: {settings.model} as it came has a {images.task.metric} of {right:.2%} on "
            "validation images"
        )
    return net, Teacher(model, context.config.finetune.distill)


def skips_training(context: Context) -> bool:
    """Whether the run's supernet was imported, so that there is nothing to train.

    Raises:
        ConfigError: it was imported for other images: another space, channels or classes.
    """
    about = imported.imported(context.run)
    if about is None:
        return False
    space, path = context.space, context.run.supernet
    if about.get("space") != space.name:
        raise ConfigError(
            f"{path} is a supernet of {about.get('space')}, space.name is {space.name}; "
            "change one of them"
        )
    if about.get("geometry") != space.geometry:
        raise ConfigError(
            f"{path} was imported for {about.get('n_classes')} classes of "
            f"{about.get('in_channels')} channels, the images have {space.n_classes} and "
            f"{space.in_channels}; `hwnas finetune` gives it a classifier for them"
        )
    given = [context.data[key] for key in ("mean", "std")]
    if given != [about.get(key) for key in ("mean", "std")]:
        context.report.warn(
            "the imported supernet takes images normalised as ImageNet's are, these are not; set "
            "data.normalise: imagenet"
        )
    context.report.note(f"{path} was imported: training is skipped; delete the file to train")
    return True


def train_work(context: Context) -> Work:
    """What the supernet is trained from."""
    config, run = context.config, context.run
    inputs = training_inputs(
        settings_of(config), context.space, config.data.augment, context.data["fingerprint"]
    )
    if config.space.model:
        inputs["start"] = sha256_file(need(run.start, "space analyse"))
    made_by = versions.of("torch")
    return Work("train", TRAIN_VERSION, inputs, (run.supernet,), made_by, costly=True)
