"""Stage `profile`: kit, campaign, table. Uses onnx to build the kit; the worker does the timing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from hwnas.measuring import connections, kit, remote
from hwnas.run import energy, versions
from hwnas.run.context import Context
from hwnas.run.folder import Work, is_current, mark_current
from hwnas.tables import conditions, fit, table
from profilers.errors import TableError, UnstableMeasurementError
from profilers.schema import Target, read_lines

PROFILE_VERSION = 2
NOT_MEASURED = {"reconnect_s", "wait_s"}  # settings that change no number
_MAKING_KITS = threading.Lock()  # several queues may want the same kit


def profile(context: Context, target_name: str) -> bool:
    """Measure a target and fit its table. Returns whether anything was to do.

    Raises:
        DeviceError: the worker could not measure.
        UnstableMeasurementError: too few undisturbed rounds within the budget.
        TableError: the table is unreliable and not accepted.
    """
    run, space = context.run, context.space
    target = context.target(target_name)
    settings = context.config.profile
    with _MAKING_KITS:
        info = kit.make_kit(space, run.kit(target.batch), target.batch, settings)
    environment = remote.probe(target, settings)
    inputs = {
        "kit": info.hash,
        "target": connections.published(target),
        "profile": settings.model_dump(mode="json", exclude=NOT_MEASURED),
        "environment": environment["fingerprint"],
        **({"meter_options": target.meter_options} if target.meter_options else {}),
    }
    outputs = (run.table(target_name),)
    made_by = {**versions.of(), target.runtime: environment["engine_version"]}
    name = f"profile.{target_name}"
    work = Work(name, PROFILE_VERSION, inputs, outputs, made_by, costly=True)
    fresh = not is_current(run, work, context.report.note) or energy.is_missing(context, target)
    if fresh:
        if _measure_and_fit(context, target, info):
            mark_current(run, work)
        _say_what_stays(context, target)
    found = table.load_table(run.table(target_name))
    if found.verdict == "unreliable":
        reason = f"table of {target_name} is unreliable: {found.validation['reason']}"
        if "unreliable" not in context.accept:
            raise TableError(f"{reason}; profile again on a quiet machine, or --accept unreliable")
        if fresh:
            context.report.warn(f"{reason}; accepted by name")
    return fresh


def _say_what_stays(context: Context, target: Target) -> None:
    """Name the folder that is left on a board."""
    kept = connections.of(target).kept(target)
    if kept:
        context.report.note(
            f"{target.name}: worker and kit stay in {kept}; "
            f"`hwnas devices clean {target.device}` removes them"
        )


def _measure_and_fit(context: Context, target: Target, info: kit.KitInfo) -> bool:
    """Run the campaign, or the rest of it, and write the table; whether nothing is to be tried
    again.
    """
    run, settings = context.run, context.config.profile
    path = run.measurements(target.name)
    say = context.report.progress(f"profile {target.name}")
    result = remote.run_campaign(
        target, info.folder, path, settings, lambda text, share: say(min(share, 0.999), text)
    )
    say(1.0, "")
    for failure in result.failed:
        context.report.warn(f"{target.name} cannot run {failure}")
    for failure in result.passing:
        context.report.warn(f"{target.name}, tried again by the next run: {failure}")
    held = _held_back(path)
    if held:
        context.report.warn(f"{target.name}: {held}; see `hwnas devices show {target.device}`")
    if not result.stable and "unreliable" not in context.accept:
        raise UnstableMeasurementError(
            f"measurements on {target.name} are unstable: {result.reason}{held and f'; {held}'}; "
            "profile again on a quiet machine or with a larger profile.budget_s"
        )
    unmetered = energy.profile_energy(context, target, info, result.environment)
    records, broken = read_lines(path)
    if broken:
        context.report.warn(f"{path}: {len(broken)} broken lines were skipped")
    unstable = "" if result.stable else result.reason
    fitted = fit.fit_table(
        context.space, info.kit, records[0], records[1:], settings.seed, unstable
    )
    if unmetered and not fitted.energy:
        fitted = replace(fitted, energy={"reason": unmetered})
    table.save(fitted, run.table(target.name))
    return not result.passing


def _held_back(path: Path) -> str:
    """Why the device may have been slower than it can be, by the probes of its campaign."""
    records, _ = read_lines(path)
    return conditions.held_back(conditions.conditions(records[1:]))
