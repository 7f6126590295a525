"""Stage `profile`: kit, campaign, table. Uses onnx to build the kit; the worker does the timing."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.measuring import connections, remote
from hwnas.measuring.kit_file import KIT_FILE, kit_hash, read_kit_file
from hwnas.measuring.windows import session_of
from hwnas.run import energy, imported
from hwnas.run.context import Context
from hwnas.run.folder import Work, begin, is_current, mark_current
from hwnas.settings import versions
from hwnas.tables import conditions, table
from profilers.errors import FileFormatError, TableError, UnstableMeasurementError
from profilers.schema import Target, read_lines

if TYPE_CHECKING:
    from hwnas.measuring.kit import KitInfo

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
    run, target = context.run, context.target(target_name)
    if imported.keeps_table(run, target_name):
        context.report.note(f"{run.table(target_name)} was imported; delete it to measure")
        return False
    work = profile_work(context, target_name)
    fresh = not is_current(run, work, context.report.note) or energy.is_missing(context, target)
    if fresh:
        from hwnas.measuring import kit  # imports onnx

        with _MAKING_KITS:
            info = kit.make_kit(
                context.space, run.kit(target.batch), target.batch, context.config.profile
            )
            mark_current(run, _kit_work(context, target.batch))
        if _measure_and_fit(context, target, info, work):
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


def profile_work(context: Context, target_name: str) -> Work:
    """Inputs of a target's table; asks the device what it is.

    Raises:
        DeviceError: it cannot be reached, or lacks the engine.
    """
    target, settings = context.target(target_name), context.config.profile
    environment = context.environment(target_name)
    inputs = {
        "kit": _kit_hash(context, target.batch),
        "target": connections.published(target),
        "profile": settings.model_dump(mode="json", exclude=NOT_MEASURED),
        "environment": environment["fingerprint"],
        **({"meter_options": target.meter_options} if target.meter_options else {}),
    }
    made_by = {**versions.of(), target.runtime: environment["engine_version"]}
    outputs = (context.run.table(target_name),)
    name = f"profile.{target_name}"
    return Work(name, PROFILE_VERSION, inputs, outputs, made_by, costly=True)


def _kit_work(context: Context, batch: int) -> Work:
    """What the kit for targets of one batch size is made from."""
    space, settings = context.space, context.config.profile
    inputs = {
        "geometry": space.geometry,
        "offered": space.offered(),
        "batch": batch,
        "heldout": settings.heldout,
        "seed": settings.seed,
    }
    outputs = (context.run.kit(batch) / KIT_FILE,)
    return Work(f"kit.b{batch}", 1, inputs, outputs, versions.of("onnx", "numpy"))


def _kit_hash(context: Context, batch: int) -> str:
    """Hash of the kit for targets of one batch size, as this version of hwnas makes it. The kit is
    planned only if its hash is not known yet; only its stamp is written.
    """
    run, work, folder = context.run, _kit_work(context, batch), context.run.kit(batch)
    with _MAKING_KITS, contextlib.suppress(FileFormatError):  # a damaged one is made again
        if is_current(run, work, lambda text: None):
            return kit_hash(read_kit_file(folder))
    from hwnas.measuring import kit  # imports onnx

    with _MAKING_KITS:
        planned = kit.plan_kit(context.space, folder, batch, context.config.profile)[0]
        if planned.is_there:
            mark_current(run, work)
    return planned.hash


def _say_what_stays(context: Context, target: Target) -> None:
    """Name the folder that is left on a board."""
    kept = connections.of(target).kept(target)
    if kept:
        context.report.note(
            f"{target.name}: worker and kit stay in {kept}; "
            f"`hwnas devices clean {target.device}` removes them"
        )


def _measure_and_fit(context: Context, target: Target, info: KitInfo, work: Work) -> bool:
    """Run the campaign, or the rest of it, and write the table. Returns whether nothing must be
    tried again.
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
    from hwnas.tables import fit  # imports onnx

    unstable = "" if result.stable else result.reason
    session = session_of(target) if energy.is_metered(context, target) else ""
    campaign = fit.Campaign(info.kit, records[0], records[1:], session)
    fitted = fit.fit_campaigns(context.space, [campaign], settings.seed, unstable)
    if unmetered and not fitted.energy:
        fitted = replace(fitted, energy={"reason": unmetered})
    begin(run, work)
    table.save(fitted, run.table(target.name))
    return not result.passing


def _held_back(path: Path) -> str:
    """Why the device may have run below its usual speed, by the probes of its campaign."""
    records, _ = read_lines(path)
    return conditions.held_back(conditions.conditions(records[1:]))
