"""Stage `train`: images to supernet. Uses torch."""

from __future__ import annotations

from hwnas.run import imported, versions
from hwnas.run.context import Context
from hwnas.run.data import checked_dataset
from hwnas.run.folder import Work, is_current, is_first_process, mark_current
from hwnas.supernet import training
from hwnas.supernet.files import save_supernet, set_aside
from hwnas.supernet.job import Job, training_inputs

TRAIN_VERSION = 1


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
