"""Every stage for every target, in order, skipping what is up to date.

One target's failure does not stop the others: all are finished, then the smallest exit code that
occurred (but 1) is the run's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hwnas.measuring import connections, device_queues
from hwnas.run import imported, plan
from hwnas.run.context import Context
from hwnas.run.data import describe_data
from hwnas.run.devices import device_name, devices
from hwnas.run.evaluate import evaluate
from hwnas.run.export import choose, export
from hwnas.run.folder import LOCK, STAMPS, Work, begin, is_first_process, mark_current, state
from hwnas.run.profile import profile
from hwnas.run.refine import refine_front
from hwnas.run.search import search
from hwnas.run.space import make_space
from hwnas.run.train import settings_of, train_supernet
from hwnas.run.verify import verify, verify_or_next
from hwnas.settings import versions
from profilers.errors import FileFormatError, HwnasError, InfeasibleError
from profilers.schema import PACKAGE_FORMAT, canonical_json, read_json, sha256_text, write_json

STAGES = ("space", "data", "train", "profile", "evaluate", "refine", "search", "export", "verify",
          "report")  # fmt: skip
_PER_TARGET = ("profile", "search", "export", "verify")
SETTLE_TRIES = 5  # times that packages of several targets are made again after measuring
_ON_DEVICES = ("profile", "verify")  # of these; different devices work at the same time


@dataclass
class Outcome:
    """What a run did and what went wrong.

    Attributes:
        done: names of the pieces of work that were not up to date.
        skipped: names of those that were.
        failures: (name of the work, error).
        took_s: how long each piece of work took, seconds.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[tuple[str, HwnasError]] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or the smallest code but 1 that occurred, or 1 if nothing else did."""
        codes = {error.exit_code for _, error in self.failures}
        return min(codes - {1}, default=min(codes, default=0))

    def reached_export(self, target: str) -> bool:
        """Whether a target's packages, and all that they are made from, were made without
        failure."""
        later = ("verify", "report", "regression", "clean")
        stages = [name.partition(".") for name, _ in self.failures]
        own = ("", target, device_name(target))
        return not any(stage not in later and name in own for stage, _, name in stages)

    def left(self, targets: Iterable[str]) -> list[str]:
        """Targets without a failure of their own or of their device."""
        lost = {name.partition(".")[2] for name, _ in self.failures}
        return [t for t in targets if not {t, device_name(t)} & lost]


def stages_of(context: Context) -> tuple[str, ...]:
    """The stages of `hwnas run` but for the report."""
    left_out = {"report"} if context.config.refine.in_run else {"report", "refine"}
    left_out |= set() if context.config.space.model else {"space"}
    left_out |= set() if imported.has_weights(context.config, context.run) else {"train"}
    return tuple(stage for stage in STAGES if stage not in left_out)


def run_stages(
    context: Context, stages: Iterable[str], targets: Sequence[str], outcome: Outcome
) -> None:
    """Run stages in the order of STAGES.

    A failure of a stage that every target needs ends the run; one of a target's stages ends that
    target.

    Args:
        context: settings, run folder, reporter.
        stages: which ones.
        targets: their names.
        outcome: gets what was done; targets that it holds failures of are left out.
    """
    # Processes that torchrun started train together; all else is done by the first alone.
    wanted = set(stages) if is_first_process() else set(stages) & {"data", "train"}
    if "data" in wanted and context.config.space.model:
        wanted |= {"space"}
    if len(wanted) == len(STAGES):
        wanted = {*stages_of(context), "report"}
    per_device = context.config.export.per == "device"
    for stage in STAGES:
        if stage not in wanted:
            continue
        left = outcome.left(targets)
        context.lost.update(_lost(outcome, targets))
        if stage == "report":
            _keep_settings(context, outcome)
            always = wanted == {"report"}
            _attempt(context, outcome, stage, partial(_report, context, always))
        elif not left:
            continue
        elif stage == "export" and per_device:
            for device, mine in devices(left).items():
                _export_device(context, outcome, device, mine)
        elif stage in _PER_TARGET:
            work: dict[str, Callable[[], bool]] = {
                target: partial(_stage, outcome, context, stage, target, "export" in wanted)
                for target in left
            }
            if stage in _ON_DEVICES:
                work = _in_queues(context, work)
            for target, piece in work.items():
                _attempt(context, outcome, f"{stage}.{target}", piece)
            if stage == "verify" and "export" in wanted:
                _settle(context, outcome, list(work))
        elif not _attempt(context, outcome, stage, partial(_stage, outcome, context, stage)):
            break
    context.lost.update(_lost(outcome, targets))
    _keep_settings(context, outcome)


def _lost(outcome: Outcome, targets: Sequence[str]) -> dict[str, HwnasError]:
    """Targets that failed before their packages were made, and the first reason of each."""
    stages = ("check", "profile", "search", "export")
    parts = [(name.partition("."), error) for name, error in reversed(outcome.failures)]
    return {name: e for (stage, _, name), e in parts if stage in stages and name in targets}


def _export_device(context: Context, outcome: Outcome, device: str, targets: Sequence[str]) -> None:
    """Make the packages of a device, each in the folder of its target.

    What nothing on the device can meet fails once, for the device. A target whose model cannot be
    made fails by itself, and the packages go to the next best of the others.
    """
    left = list(targets)
    while left:
        try:
            choose(context, left[0])
        except HwnasError as error:
            outcome.failures.append((f"export.{device}", error))
            return
        for target in left:
            work = partial(_stage, outcome, context, "export", target)
            _attempt(context, outcome, f"export.{target}", work)
        if outcome.left(left) == left:
            return
        context.lost.update(_lost(outcome, left))
        left = outcome.left(left)


def _settle(context: Context, outcome: Outcome, targets: Sequence[str]) -> None:
    """Make the packages of fleets and devices again until none changes: what is measured on one
    target may change the network of another, or give a package to it.
    """
    has_fleet = any(rule.rule == "fleet" for rule in context.config.pick)
    if not (has_fleet or context.config.export.per == "device"):
        return
    for _ in range(SETTLE_TRIES):
        changed = [t for t in outcome.left(targets) if _attempt_change(outcome, context, t)]
        if not changed:
            return
    error = InfeasibleError(
        f"packages still changed after they were measured {SETTLE_TRIES} times; run the same "
        "command again to go on"
    )
    outcome.failures.append(("verify", error))


def _attempt_change(outcome: Outcome, context: Context, target: str) -> bool:
    """Whether the packages of a target are others than before; then they are verified."""
    changed = Outcome()
    if not _attempt(context, changed, f"export.{target}", lambda: export(context, target)):
        outcome.failures += changed.failures
    if not changed.done:
        return False
    return _attempt(context, outcome, f"verify.{target}", lambda: verify_or_next(context, target))


def _keep_settings(context: Context, outcome: Outcome) -> None:
    """Write the resolved settings, once something was made (or was already) with them."""
    settings = context.config.model_dump(mode="json")
    with contextlib.suppress(FileFormatError):
        if read_json(context.run.config) == settings:
            return
    if is_first_process() and set(outcome.done + outcome.skipped) - {"report"}:
        write_json(context.run.config, settings)


def _keep_durations(context: Context, outcome: Outcome) -> None:
    """Add how long work took to the file that `status` reads."""
    took = {name: s for name, s in outcome.took_s.items() if name in outcome.done}
    if "train" in took:
        took["epochs"] = settings_of(context.config).epochs
    known = plan.durations(context)
    if is_first_process() and took and {**known, **took} != known:
        write_json(context.run.durations, {**known, **took})


def _attempt(context: Context, outcome: Outcome, name: str, work: Callable[[], bool]) -> bool:
    """Do one piece of work; whether it succeeded."""
    try:
        if work():
            outcome.done.append(name)
            context.environments.clear()  # time has passed
            _keep_durations(context, outcome)
        else:
            outcome.skipped.append(name)
    except HwnasError as error:
        outcome.failures.append((name, error))
        return False
    return True


def _in_queues(
    context: Context, work: Mapping[str, Callable[[], bool]]
) -> dict[str, Callable[[], bool]]:
    """One stage's work on every target, done; each piece now says what came of it."""
    queues_of = {name: connections.queue(context.target(name)) for name in work}
    done = device_queues.drive(work, queues_of)
    return {name: future.result for name, future in done.items()}


def _stage(
    outcome: Outcome, context: Context, stage: str, target: str = "", retry: bool = False
) -> bool:
    """Do one stage; whether there was anything to do.

    Args:
        outcome: gets how long it took.
        retry: a package that misses its budget when it is verified is replaced.
    """
    shared = {"space": make_space, "data": describe_data, "train": train_supernet}
    of_target = {"profile": profile, "search": search, "export": export}
    of_target["verify"] = verify_or_next if retry else verify
    started_s = time.monotonic()
    if target:
        done = of_target[stage](context, target)
    else:
        done = {**shared, "evaluate": evaluate, "refine": refine_front}[stage](context)
    outcome.took_s[f"{stage}.{target}" if target else stage] = time.monotonic() - started_s
    return done


def _report(context: Context, always: bool) -> bool:
    """Write the report, if files that it shows changed since, or where it is asked for alone."""
    run, baselines = context.run, context.base / "baselines"
    left_out = {run.report, run.durations, run.root / LOCK}
    files = [
        path
        for path in sorted((*run.root.rglob("*"), *baselines.rglob("*")))
        if path.is_file() and path not in left_out and path.parent.name != STAMPS
    ]
    told = [[str(path.stat().st_mtime_ns), path.name, path.stat().st_size] for path in files]
    inputs = {"files": sha256_text(canonical_json(told))}
    work = Work("report", 1, inputs, (run.report,), versions.of())
    if not always and state(run, work).current:
        return False
    from hwnas.report.page import write_report

    begin(run, work)
    write_report(run.root, run.report, baselines)
    mark_current(run, work)
    return True


def package_rows(
    context: Context, outcome: Outcome, targets: Iterable[str]
) -> list[dict[str, Any]]:
    """One row for every package of the targets: what a summary shows.

    `current` is false for the packages of an earlier run, where this one failed before its own.
    A package that cannot be read has no row: the stage that needs it says what is wrong.
    """
    rows = []
    for target in targets:
        for path in sorted(context.run.packages(target).glob("*/manifest.json")):
            with contextlib.suppress(HwnasError, KeyError, TypeError, OSError):
                row = _package_row(path)
                rows.append({"target": target, "current": outcome.reached_export(target), **row})
    return rows


def _package_row(path: Path) -> dict[str, Any]:
    manifest = read_json(path, PACKAGE_FORMAT)
    measured, predicted = manifest["measured"] or {}, manifest["predicted"]
    return {
        "package": path.parent.name,
        "id": manifest["id"],
        "resolution": manifest["input"]["size"],
        "predicted_error": predicted["error"],
        "metric": manifest["task"]["metric"],
        "test_accuracy": measured.get("test_accuracy"),
        "test_images": measured.get("test_images"),
        "test_interval": measured.get("test_interval"),
        "accuracy_on": measured.get("accuracy_on"),
        "predicted_latency_ms": predicted["latency_ms"],
        "latency_ms": measured.get("latency_ms"),
        "median_ms": measured.get("median_ms"),
        "verdict": measured.get("verdict"),
        "predicted_energy_mj": predicted.get("energy_mj"),
        "energy_mj": measured.get("energy_mj"),
        "macs": predicted["macs"],
        "size_bytes": (path.parent / manifest["model"]).stat().st_size,
        "parity": manifest["parity"]["max_relative_difference"],
        "path": str(path.parent),
    }
