"""Energy in the stages: windows of a campaign, of packages, and budgets that are measured.

Without a meter nothing happens. If a meter gives no energy, hwnas says why, and keeps the
latencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.measuring import energy, here
from hwnas.measuring.records import open_log
from hwnas.networks.space import PlacedOp
from hwnas.run.context import Context
from hwnas.settings.config import Config
from hwnas.tables.table import load_table
from profilers.errors import MeterError
from profilers.schema import Target

if TYPE_CHECKING:
    from hwnas.measuring.kit import KitInfo


def is_wanted(config: Config) -> bool:
    """Whether a search is for energy, or has a budget of it."""
    return "energy_mj" in (*config.search.objectives, *config.search.budgets)


def is_metered(context: Context, target: Target) -> bool:
    """Whether energy is to be measured on a target."""
    return target.meter != "none" and context.config.profile.energy_budget_s > 0


def is_missing(context: Context, target: Target) -> bool:
    """Whether a table holds no energies although the target has a meter: what was missing, such
    as a permission, may be there now.
    """
    path = context.run.table(target.name)
    if not is_metered(context, target) or not path.exists():
        return False
    return "intercept_mj" not in load_table(path).energy


def profile_energy(
    context: Context, target: Target, info: KitInfo, environment: Mapping[str, Any]
) -> str:
    """Measure energy windows, if the target has a meter. Returns why there are no more, or "".

    Args:
        context: of the run.
        target: that was profiled.
        info: the kit that was measured.
        environment: that it was measured in.

    Raises:
        MeterError: there are none, and energy is wanted.
    """
    if not is_metered(context, target):
        return ""
    say = context.report.progress(f"energy of {target.name}")
    log = open_log(context.run.measurements(target.name), target, environment, info.hash)
    files = {item["sha256"]: info.folder / item["file"] for item in info.kit["items"]}
    found = energy.run_energy(
        target,
        info.kit,
        files,
        log,
        context.config.profile,
        lambda text, share: say(min(share, 0.999), text),
    )
    say(1.0, "")
    if found.reason:
        told = f"{target.name}: {found.windows} energy windows were measured: {found.reason}"
        if not found.windows and is_wanted(context.config):
            raise MeterError(told)
        context.report.warn(told)
    return found.reason


def package_energies(
    context: Context, target: Target, models: Sequence[Path], ops: Sequence[Sequence[PlacedOp]]
) -> list[dict[str, Any]]:
    """What a manifest says of the measured energy of each package; nothing without a meter.

    Args:
        context: of the run.
        target: that the packages are for.
        models: ONNX files.
        ops: what each is made of.
    """
    found = here.energy_fields(target, models, context.config.profile, ops)
    for reason in {each["energy"]["reason"] for each in found if each.get("energy_mj", 0) is None}:
        context.report.warn(f"{target.name}: the energy of packages is unknown: {reason}")
    return found
