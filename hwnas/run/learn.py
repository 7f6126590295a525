"""Stages `data`, `train` and `evaluate`: images to supernet to accuracy predictor. Uses torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.images.readers import fingerprint_source
from hwnas.images.readers.listing import SUFFIXES, left_out, readable
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors import kinds, predictor
from hwnas.predictors.mlp import MlpPredictor
from hwnas.predictors.results import read_results
from hwnas.run import imported, versions
from hwnas.run.context import DATA_FORMAT, Context, need
from hwnas.run.folder import Work, is_current, is_first_process, mark_current
from hwnas.settings.config import DataConfig
from hwnas.supernet import threads, training, training_free
from hwnas.supernet.evaluation import Evaluator, measure_all, read_accuracies, to_measure
from hwnas.supernet.files import load_supernet, save_supernet, set_aside
from hwnas.supernet.job import Job, training_inputs
from hwnas.supernet.network import Subnet, channels_last
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import sha256_file, write_json

TRIAL = 32  # images of a forward pass that is timed to choose the threads
FEW = 50  # measured subnets below which untrained networks' scores are asked too
DATA_VERSION, TRAIN_VERSION, EVALUATE_VERSION = 2, 1, 2


@functools.lru_cache(maxsize=1)
def dataset(config: DataConfig, index: Path) -> tensors.Dataset:
    """The images; kept, because every stage of a run reads the same ones."""
    return tensors.load(config, index)


def checked_dataset(context: Context) -> tensors.Dataset:
    """The images that the supernet of this run was trained on.

    Raises:
        ConfigError: they changed since.
    """
    images = dataset(context.data_config, context.run.contents)
    if images.fingerprint != context.data["fingerprint"]:
        raise ConfigError(
            f"the data changed since {context.run.data} was written; delete that file and "
            "run `hwnas train`, or restore the data"
        )
    return images


def describe_data(context: Context) -> bool:
    """Write what networks must know of the data. Returns whether anything was to do.

    Of processes that train together the first writes; the others wait for it.
    """
    done = is_first_process() and _describe_data(context)
    return training.agreed(done)


def _describe_data(context: Context) -> bool:
    run = context.run
    if not imported.has_images(context):
        imported.describe(context)  # or says what is missing
        return False
    config = context.data_config
    dataset.cache_clear()  # a session may run this again, and the images may be others by then
    inputs = {
        "data": context.config.data.model_dump(mode="json"),  # paths as given: a folder may move
        "source": dataset(config, run.contents).fingerprint
        if config.kind == "factory"
        else fingerprint_source(config),
    }
    work = Work("data", DATA_VERSION, inputs, (run.data,), versions.of("pillow"))
    if is_current(run, work, context.report.note):
        return False
    if config.stream and not run.contents.exists():
        context.report.note("data: every file is read once, to know it again when it changes")
    images = dataset(config, run.contents)
    description = {
        "format": DATA_FORMAT,
        "channels": images.in_channels,
        "size": images.size,
        "preparation": images.preparation,
        "classes": list(images.class_names),
        "mean": list(images.mean),
        "std": list(images.std),
        "fingerprint": images.fingerprint,
        "images": {"train": len(images.train), "val": len(images.val), "test": len(images.test)},
    }
    if config.kind == "image_folder":
        description["left_out"] = _left_out(context)
    write_json(run.data, description)
    mark_current(run, work)
    return True


def _left_out(context: Context) -> dict[str, Any]:
    """Files of the folder that are not read; says so if there are any."""
    found = left_out(Path(context.data_config.root))
    if found.n:
        context.report.warn(
            f"{found.n} file(s) below {readable(context.data_config.root)} are left out, for "
            f"example {', '.join(found.examples[:3])}; images of a class are in its folder and end "
            f"in {', '.join(SUFFIXES)}"
        )
    return {"files": found.n, "examples": list(found.examples)}


def train_supernet(context: Context) -> bool:
    """Train the supernet, or go on where training was cut. Returns whether anything was to do."""
    if imported.skips_training(context):
        return False
    config, run, space = context.config, context.run, context.space
    augment = config.data.augment
    inputs = training_inputs(config.train, space, augment, context.data["fingerprint"])
    work = Work("train", TRAIN_VERSION, inputs, (run.supernet,), versions.of("torch"), costly=True)
    # The first process alone looks and writes, so that all of them do the same.
    say = context.report.note
    if not training.agreed(is_first_process() and not is_current(run, work, say)):
        return False
    job = Job(config.train, space, checked_dataset(context), augment, run.root)
    if is_first_process() and (kept := set_aside(job)):
        context.report.warn(f"a checkpoint of other settings, space or data is kept as {kept}")
    supernet = training.train(job, context.report.progress("train"))
    if is_first_process():
        save_supernet(supernet, job, run.supernet)
        mark_current(run, work)
    return True


def evaluate(context: Context) -> bool:
    """Measure subnets and fit the accuracy predictor. Returns whether anything was to do."""
    if keeps_predictor(context):
        return False
    config, work = context.config.accuracy, evaluate_work(context)

    def say(text: str) -> None:
        kept = "" if config.results else f"; {context.run.accuracies.name} is used again"
        context.report.note(f"{text}{kept}")

    if is_current(context.run, work, say):
        return False
    if config.results:
        rows = read_results(results_path(context), context.space, context.report.note)
    else:
        evaluator = make_evaluator(context)
        _warn_of_bad_lines(context, evaluator)
        rows = first_rows(context, evaluator)
    write_predictor(context, rows)
    mark_current(context.run, work)
    return True


def keeps_predictor(context: Context) -> bool:
    """Whether the run's predictor was imported, so that no subnet need be measured."""
    path = context.run.predictor
    if context.config.accuracy.results or not path.exists():
        return False
    found = predictor.load(path, context.space)
    if not isinstance(found, MlpPredictor):
        return False
    context.report.note(f"{path} was imported ({found.source}); delete it to measure subnets")
    return True


def results_path(context: Context) -> Path:
    """The CSV of subnets measured elsewhere that the settings name."""
    return context.base / context.config.accuracy.results


def evaluate_work(context: Context) -> Work:
    """What `evaluate` makes the predictor from.

    Raises:
        ConfigError: neither a supernet nor a CSV of measured subnets is there.
    """
    config, run, space = context.config.accuracy, context.run, context.space
    inputs: dict[str, Any] = {
        "accuracy": config.model_dump(mode="json"),
        "offered": space.offered(),
    }
    if config.results:
        path = results_path(context)
        if not path.exists():
            raise FileFormatError(f"{path} does not exist; accuracy.results names a CSV")
        inputs |= {"results": sha256_file(path), "geometry": space.geometry}
        made_by = versions.of("scikit-learn")
    else:
        supernet = sha256_file(need(run.supernet, "train"))
        inputs |= {"supernet": supernet, "data": context.data["fingerprint"]}
        made_by = versions.of("scikit-learn", "torch")
    return Work("evaluate", EVALUATE_VERSION, inputs, (run.predictor,), made_by)


def first_rows(context: Context, evaluator: Evaluator) -> dict[Architecture, float]:
    """Accuracies of the first subnets of a run, measured now or before."""
    config, space = context.config.accuracy, context.space
    archs = to_measure(space, config.measure, np.random.default_rng(config.seed))
    say = context.report.progress("evaluate")
    rows: dict[Architecture, float] = {}

    def tell(done: int, total: int) -> None:
        text = f"{len(rows)} of {len(archs)} subnets, then {done:,} of {total:,} images"
        say((len(rows) + done / total) / len(archs), text)

    for arch, accuracy in measure_all(archs, evaluator, context.run.accuracies, tell):
        rows[arch] = accuracy
        say(len(rows) / len(archs), f"{len(rows)} of {len(archs)} subnets")
    return rows


def write_predictor(context: Context, rows: Mapping[Architecture, float]) -> None:
    """Fit the predictor of measured subnets and write it; say so if it cannot rank."""
    config, run = context.config.accuracy, context.run
    supernet = "" if config.results else sha256_file(run.supernet)
    prior = None
    if len(rows) < FEW and config.training_free and not config.results:
        prior = training_free_prior(context)
    fitted = kinds.fit(context.space, rows.items(), config.seed, supernet, config.predictor, prior)
    predictor.save(fitted, run.predictor)
    doubts = kinds.doubts(fitted.scores)
    if doubts:
        context.report.warn(doubts)


def training_free_prior(context: Context) -> np.ndarray:
    """(F,) what each option adds to the error that untrained networks' scores suggest."""
    config, space, images = context.config.accuracy, context.space, checked_dataset(context)
    say = context.report.progress("score untrained networks")
    genome = space.sample(config.training_free, np.random.default_rng([config.seed, 2]))
    archs = list(dict.fromkeys(space.architectures(genome)))
    scored = training_free.score_all(archs, images, config.seed, progress=say)
    return -training_free.option_scores(space, scored)


def _warn_of_bad_lines(context: Context, evaluator: Evaluator) -> None:
    path = context.run.accuracies
    bad = read_accuracies(path, evaluator).n_bad
    if bad:
        context.report.warn(f"{path}: {bad} lines are broken or malformed and were not used")


def make_evaluator(context: Context) -> Evaluator:
    """The trained supernet with the images of its subnets' calibration and measurement."""
    imported.need_images(
        context,
        "subnets cannot be measured; put an imported predictor into the run folder (`hwnas import "
        "predictor`), or name a CSV of measured subnets as accuracy.results",
    )
    config, run = context.config, context.run
    supernet = load_supernet(need(run.supernet, "train"), context.space)
    images = checked_dataset(context)
    found = Evaluator(supernet, images, config.accuracy, sha256_file(run.supernet))
    passes = config.accuracy.measure * (len(found.validation) + config.accuracy.bn_images)
    torch.set_num_threads(config.train.threads or _threads(context.space, passes))
    return found


@functools.lru_cache(maxsize=1)
def _threads(space: SearchSpace, passes: int) -> int:
    """CPU threads that measure subnets fastest, for as many forward passes of one image."""
    if tensors.compute_device().type != "cpu":
        return torch.get_num_threads()
    with torch.random.fork_rng(devices=()):  # weights of no importance, nobody's random numbers
        net = channels_last(Subnet(space.largest).eval())
    px = space.largest.resolution
    shape = (TRIAL, space.in_channels, px, px)
    return threads.fastest(net, shape, passes / TRIAL, learns=False)
