"""Stage `evaluate`: supernet to accuracy predictor. Loads torch only where subnets are measured."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.networks.space import Architecture
from hwnas.ofa.results import read_results
from hwnas.predictors import choice, predictor
from hwnas.predictors.fit import FEWEST, Prior, fit_predictor
from hwnas.predictors.mlp import MlpPredictor
from hwnas.predictors.nonlinear import NonlinearPredictor
from hwnas.predictors.results import repeats_text
from hwnas.run import imported
from hwnas.run.context import Context
from hwnas.run.data import checked_dataset
from hwnas.run.folder import Work, begin, is_current, mark_current
from hwnas.settings import versions
from profilers.errors import DeviceError, FileFormatError
from profilers.schema import Target, sha256_file

if TYPE_CHECKING:
    from hwnas.supernet.evaluation import Evaluator, Measurer

EVALUATE_VERSION = 2
BY_WHOM = {"workers", "cluster"}  # settings of who measures: accuracies are the same
FEW = 50  # with fewer measured subnets, scores of untrained networks help


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
    evaluator = None
    if config.results:
        rows = results(context)
    else:
        from hwnas.run.weights import make_evaluator, measuring  # import torch

        evaluator = make_evaluator(context)
        _warn_of_bad_lines(context, evaluator)
        with measuring(context, evaluator) as measurer:
            rows = first_rows(context, measurer)
    begin(context.run, work)
    write_predictors(context, rows, evaluator)
    mark_current(context.run, work)
    return True


def keeps_predictor(context: Context) -> bool:
    """Whether the run's predictor was imported, so that no subnet need be measured."""
    path = context.run.predictor
    if context.config.accuracy.results or not path.exists():
        return False
    found = predictor.load(path, context.space)
    is_mlp = isinstance(found, MlpPredictor)
    if not is_mlp and imported.has_weights(context.config, context.run):
        return False
    told = f"was imported ({found.source})" if isinstance(found, MlpPredictor) else "is kept"
    context.report.note(f"{path} {told}; delete it to measure subnets")
    return True


def results_path(context: Context) -> Path:
    """The CSV of subnets measured elsewhere that the settings name."""
    return context.base / context.config.accuracy.results


def results(context: Context) -> dict[Architecture, float]:
    """Top-1, a fraction, of each network that was measured elsewhere; reports which were averaged.

    Raises:
        ConfigError, FileFormatError: the file or a line of it cannot be used.
    """
    path = results_path(context)
    found = read_results(path, context.space)
    if told := repeats_text(found):
        context.report.note(f"{path}: {told}")
    return {result.arch: result.top1 for result in found}


def evaluate_work(context: Context) -> Work:
    """What `evaluate` makes the predictor from.

    Raises:
        ConfigError: neither a supernet nor a CSV of measured subnets is there.
    """
    config, run, space = context.config.accuracy, context.run, context.space
    decides = config.model_dump(mode="json", exclude=BY_WHOM)
    inputs: dict[str, Any] = {
        "accuracy": {**decides, "measure": n_first(context)},
        "offered": space.offered(),
    }
    if config.results:
        path = results_path(context)
        if not path.exists():
            raise FileFormatError(f"{path} does not exist; accuracy.results names a CSV")
        inputs |= {"results": sha256_file(path), "geometry": space.geometry}
        made_by = versions.of("scikit-learn")
    else:
        imported.need_images(context.config, imported.UNMEASURED)
        supernet = sha256_file(imported.need_weights(run))
        inputs |= {"supernet": supernet, "data": context.data["fingerprint"]}
        if context.task.version:
            inputs["metric"] = context.task.version
        made_by = versions.of("scikit-learn", "torch")
    others = [] if config.results else sorted(ways(context))
    if others:
        settings = context.config.int8.model_dump(mode="json", exclude={"tune_above"})
        inputs["int8"] = {**settings, "ways": others}
    outputs = (run.predictor, *(run.predictor_in(written) for written in others))
    return Work("evaluate", EVALUATE_VERSION, inputs, outputs, made_by)


def ways(context: Context) -> dict[str, Target]:
    """Ways of writing networks that change what they compute, such as `int8-u8s8`, each with a
    target of the settings that needs it; targets that cannot be asked are left out.
    """
    found: dict[str, Target] = {}
    for name in context.config.targets:
        with contextlib.suppress(DeviceError):
            if recipe := context.recipe(name):
                target = context.target(name)
                found.setdefault(f"{target.precision}-{recipe}", target)
    return found


def n_first(context: Context) -> int:
    """How many subnets are measured first: fewer where the run goes on measuring."""
    config = context.config
    return config.refine.first if config.refine.in_run else config.accuracy.measure


def first_rows(context: Context, measurer: Measurer) -> dict[Architecture, float]:
    """Accuracies of the first subnets of a run, measured now or before."""
    from hwnas.supernet.evaluation import to_measure  # imports torch

    config, space = context.config.accuracy, context.space
    archs = to_measure(space, n_first(context), np.random.default_rng(config.seed))
    say = context.report.progress("evaluate")
    rows: dict[Architecture, float] = {}

    def tell(done: int, total: int) -> None:
        text = f"{len(rows)} of {len(archs)} subnets, then {done:,} of {total:,} images"
        say((len(rows) + done / total) / len(archs), text)

    for arch, accuracy in measurer.measure(archs, tell):
        rows[arch] = accuracy
        say(len(rows) / len(archs), f"{len(rows)} of {len(archs)} subnets")
    return rows


def write_predictors(
    context: Context, rows: Mapping[Architecture, float], evaluator: Evaluator | None
) -> None:
    """Fit the predictor to measured subnets and write it. Do the same for each way in which
    networks are written for targets, with some subnets that are measured in that way.

    Args:
        rows: accuracies in fp32.
        evaluator: measures others; None: the rows were measured elsewhere.
    """
    fitted, config = write_predictor(context, rows), context.config
    for written, target in ways(context).items():
        if evaluator is None:
            context.report.warn(
                f"networks were measured elsewhere: error in {written} is predicted as in fp32"
            )
            continue
        from hwnas.run.quantised import measure_along  # imports torch

        measured = measure_along(context, evaluator, target, written, rows)
        prior = _fp32_prior(context, fitted, {a: t for a, t in rows.items() if a not in measured})
        space, sha256 = context.space, evaluator.supernet_sha256
        kind, seed = config.accuracy.predictor, config.accuracy.seed
        own = choice.fit(space, measured.items(), seed, sha256, kind, prior)
        predictor.save(own, context.run.predictor_in(written))
        lost = np.array([rows[arch] - top1 for arch, top1 in measured.items()])
        context.report.note(
            f"{written}: {len(lost)} networks lose {100 * lost.mean():.2f} points of accuracy on "
            f"average, {100 * lost.max():.2f} at most; error is predicted within "
            f"{100 * own.scores['mae']:.2f} points"
        )


def _fp32_prior(
    context: Context,
    fitted: predictor.Predictor | NonlinearPredictor,
    others: Mapping[Architecture, float],
) -> Prior | None:
    """What fp32 tells of the error in int8.

    Args:
        fitted: the predictor in fp32; kinds that are no sum tell nothing.
        others: accuracies of the subnets that are not measured in int8.
    """
    if not isinstance(fitted, predictor.Predictor):
        return None
    apart, seed = None, context.config.accuracy.seed
    if len(others) >= FEWEST:
        known = fit_predictor(context.space, others.items(), seed, fitted.supernet_sha256)
        apart = known.weights
    return Prior(fitted.weights, apart)


def write_predictor(
    context: Context, rows: Mapping[Architecture, float]
) -> predictor.Predictor | NonlinearPredictor:
    """Fit the predictor of measured subnets and write it; say so if it cannot rank."""
    config, run = context.config.accuracy, context.run
    supernet = "" if config.results else sha256_file(run.supernet)
    prior = None
    if len(rows) < FEW and config.training_free and not config.results:
        prior = Prior(*2 * (training_free_prior(context),))
    fitted = choice.fit(context.space, rows.items(), config.seed, supernet, config.predictor, prior)
    predictor.save(fitted, run.predictor)
    doubts = choice.doubts(fitted.scores)
    if doubts:
        context.report.warn(doubts)
    return fitted


def training_free_prior(context: Context) -> np.ndarray:
    """(F,) what each option adds to the error, estimated from scores of untrained networks."""
    from hwnas.supernet import training_free  # imports torch

    config, space, images = context.config.accuracy, context.space, checked_dataset(context)
    say = context.report.progress("score untrained networks")
    genome = space.sample(config.training_free, np.random.default_rng([config.seed, 2]))
    archs = list(dict.fromkeys(space.architectures(genome)))
    scored = training_free.score_all(archs, images, config.seed, progress=say)
    return -training_free.option_scores(space, scored)


def _warn_of_bad_lines(context: Context, evaluator: Evaluator) -> None:
    from hwnas.supernet.evaluation import read_accuracies  # imports torch

    path = context.run.accuracies
    bad = read_accuracies(path, evaluator).n_bad
    if bad:
        context.report.warn(f"{path}: {bad} lines are broken or malformed and were not used")
