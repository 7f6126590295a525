"""Everything a report shows, as plain data, from the files of a run folder.

What is missing or damaged is said in the data, with the command that makes it; nothing is guessed.
Files: docs/formats.md. Needs neither torch nor scikit-learn.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.report import facts
from hwnas.report.baselines import read_baselines
from hwnas.report.curve import training_curve
from hwnas.report.devices import devices_of
from hwnas.report.packages import Allowed, packages_of
from hwnas.report.pieces import METRICS, number, shown
from hwnas.run.folder import RunFolder
from hwnas.run.public import public_settings, public_text
from hwnas.run.results import margins_of
from hwnas.search.front import Front, Point
from hwnas.search.front import load as load_front
from hwnas.tables import energy_section
from hwnas.tables.table import CostTable, load_table
from profilers import __version__
from profilers.errors import ConfigError, FileFormatError, TableError
from profilers.schema import read_lines, target_from_json

Data = dict[str, Any]

_TOLD = (  # of a table's validation
    "ratio",
    "worst",
    "within_5",
    "kendall_tau",
    "kendall_tau_repeat",
    "kendall_tau_near",
    "bias_fast",
    "bias_front",
)
_TAIL = ("expand", "pool", "mix", "classifier")  # slots after the stages, shown as one


def collect(
    folder: Path, out: Path, baselines: Path | None = None, config: Data | None = None
) -> Data:
    """The data of a report.

    Args:
        folder: run folder.
        out: where the report will be written; links to packages are relative to it.
        baselines: folder of what `hwnas measure --save` kept, if it is there.
        config: settings of a run that has not written them yet; None: those of the folder only.

    Raises:
        ConfigError: there is no such folder.
    """
    run = RunFolder(Path(folder))
    if not run.root.is_dir():
        raise ConfigError(f"run folder {run.root} does not exist; `hwnas run` makes it")
    missing: list[str] = []
    if config is None or run.config.is_file():
        config = facts.read(run.config, "the settings", missing)
    supernet = facts.supernet_of(run, missing)
    data = facts.images_of(run, config, missing)
    space = facts.space_of(run, config, data)
    predictor, doubts = facts.predictors_words(run, config, space, missing)
    base = quote(os.path.relpath(run.root, Path(out).parent).replace(os.sep, "/"))
    others = read_baselines(baselines, missing)
    made = Made({}, {}, config.get("check", {}))
    targets = [
        {**_target(run, name, made, space, base), "baselines": others.get(name, [])}
        for name in _target_names(run, config)
    ]
    return {
        "title": run.root.name,
        "version": __version__,
        "facts": facts.facts(run, config, data, supernet, space),
        "missing": [public_text(words) for words in missing],
        "warnings": doubts,
        "targets": targets,
        "devices": devices_of(targets, made.fronts, made.tables),
        "training": training_curve(read_lines(run.root / "events.jsonl")[0]),
        "supernet": facts.origin(supernet) if supernet.get("imported") else "",
        "predictor": predictor,
        "settings": _settings(config, targets),
    }


def _settings(config: Data, targets: Iterable[Data]) -> list[list[str]]:
    """Blocks of text: the settings, and of each table what it was measured on and how."""
    blocks = []
    if config:
        text = yaml.safe_dump(public_settings(config), sort_keys=False, allow_unicode=True)
        blocks.append(["Settings of this run", text])
    for target in targets:
        if target["table"]:
            text = yaml.safe_dump(target["table"]["origin"], sort_keys=False, allow_unicode=True)
            blocks.append([f"Table of {target['name']}: environment, protocol, hashes", text])
    return blocks


# ---- targets ------------------------------------------------------------------------------------


def _target_names(run: RunFolder, config: Data) -> list[str]:
    """Targets of the settings in their order, then others that the folder holds."""
    files = [path for part in ("tables", "fronts") for path in (run.root / part).glob("*.json")]
    found = {path.stem for path in files}
    found |= {path.name for path in (run.root / "packages").glob("*") if path.is_dir()}
    wanted = list(config.get("targets", ()))
    return [*wanted, *sorted(found - set(wanted))]


class Made(NamedTuple):
    """Fronts and tables of targets by name, as they are read; limits of the settings."""

    fronts: dict[str, Front]
    tables: dict[str, CostTable]
    check: Data


def _target(run: RunFolder, name: str, made: Made, space: SearchSpace | None, base: str) -> Data:
    """All that is known of one target."""
    missing: list[str] = []
    warnings: list[str] = []
    table = _table(run.table(name), missing)
    front = _front(run.front(name), space, missing)
    if table is not None:
        made.tables[name] = table
    if front is not None:
        made.fronts[name] = front
    return {
        "name": name,
        "where": _where(table) if table else "",
        "table": _trust(table) if table else None,
        "energy": _energy(table) if table else None,
        "front": front and _front_data(front, table, facts.uncertain(run, table, space)),
        "packages": packages_of(run, name, base, Allowed(margins_of(table), made.check), warnings),
        "warnings": [public_text(words) for words in warnings],
        "missing": [public_text(words) for words in missing],
    }


def _table(path: Path, missing: list[str]) -> CostTable | None:
    if not path.is_file():
        missing.append("it was not profiled: `hwnas profile`")
        return None
    try:
        return load_table(path)
    except FileFormatError as error:
        missing.append(str(error))
        return None


def _where(table: CostTable) -> str:
    """Hardware, engine and how it is driven, in one line."""
    said, target = table.environment, _driven(table.target)
    cores = f"{said['cores']} cores" if said.get("cores") else ""
    engine = " ".join(str(said[key]) for key in ("engine", "engine_version") if said.get(key))
    hardware = [said.get("board") or said.get("device"), said.get("cpu"), cores, engine]
    return f"{', '.join(str(part) for part in hardware if part)}; {target}"


def _driven(given: Mapping[str, Any]) -> str:
    target = target_from_json(dict(given))
    threads = "1 thread" if target.threads == 1 else f"{target.threads} threads"
    return f"{target.precision}, batch {target.batch}, {threads}"


def _trust(table: CostTable) -> Data:
    """Verdict, error, noise floor and held-out networks of a table (docs/formats.md, "Table")."""
    said = table.validation
    origin = {
        "environment": table.environment,
        "protocol": table.protocol,
        "kit": table.kit,
        "measurements": table.source,
        "table": table.sha256,
    }
    return {
        "verdict": table.verdict,
        "reason": str(said["reason"]),
        "marks": [mark for mark in table.marks if mark != "measured"],
        "error": _interval(said.get("error")),
        "noise": _interval(said.get("noise")),
        **{key: said.get(key) for key in _TOLD},
        "estimator": table.calibration.get("estimator"),
        "heldout": said.get("points", []),
        "origin": origin,
    }


def _energy(table: CostTable) -> Data | None:
    """What a table's energies rest on, how good they are, and their held-out networks as those of
    latency; None where there are none. A network has several windows: `a` and `b` lie as far apart
    as two of them do.
    """
    told = energy_section.describe(table.energy)
    if told.get("energy_error") is None:
        return {"words": told["energy"], "heldout": []} if told else None
    rails = f" ({', '.join(told['rails'])})" if told["rails"] else ""
    words = [
        f"Energies are {told['energy']}.",
        f"Meter {told['meter']}{rails}: {told['windows']} windows of {told['window_s']:g} s, "
        f"a reading every {told['period_s']:.3g} s.",
    ]
    if told["idle_w"] is not None:
        words.append(f"The device takes {told['idle_w']:.3g} W at rest.")
    if told["energy_tau_latency"] is not None:
        words.append(
            f"Kendall's tau of energy and latency is {told['energy_tau_latency']:.3f}; with 1, "
            "latency would rank networks as energy does."
        )
    heldout = [
        [name, predicted, ms * (1 - noise / 2), ms * (1 + noise / 2)]
        for name, predicted, ms, noise in table.energy["validation"]["points"]
    ]
    return {"words": " ".join(words), "heldout": heldout}


def _interval(given: Mapping[str, Any] | None) -> Data | None:
    if given is None:
        return None
    low, high = given["interval"]
    return {"value": given["value"], "low": low, "high": high}


# ---- fronts and packages ------------------------------------------------------------------------


def _front(path: Path, space: SearchSpace | None, missing: list[str]) -> Front | None:
    """The front of a file, if it can be drawn."""
    if not path.is_file():
        missing.append("it was not searched: `hwnas search`")
        return None
    if space is None:
        missing.append("its front: of what space and data it is cannot be told")
        return None
    try:
        front = load_front(path, space)
    except (ConfigError, TableError) as error:
        missing.append(f"its front: {error}")
        return None
    if any("error" not in point.predicted for point in front.points):
        missing.append("its front is not drawn: error is not among its objectives")
        return None
    return front


def _front_data(front: Front, table: CostTable | None, uncertain: Data) -> Data:
    """What is drawn of a front; `uncertain`: how far predictions may be off, 95 %; `only`: what the
    search was held to.
    """
    return {
        "costs": [name for name in front.objectives if name != "error"],
        "choices": front.space.offered(),
        "unit": front.space.unit,
        "only": front.settings.get("only", {}),
        "uncertain": uncertain,
        "noise": margins_of(table),
        "points": [_point(point, table) for point in front.points],
        "search": _search_words(front),
    }


def _search_words(front: Front) -> str:
    reference = zip(front.objectives, front.reference_point, strict=True)
    point = ", ".join(f"{METRICS[name].label} {shown(name, value)}" for name, value in reference)
    return (
        f"{front.evaluations:,} networks were priced by {front.settings['algorithm']}; "
        f"hypervolume {number(front.hypervolume)} against {point}."
    )


def _point(point: Point, table: CostTable | None) -> Data:
    return {
        "id": point.id,
        "options": point.arch.to_json()["choices"],
        "predicted": point.predicted,
        "measured": point.measured,
        "stages": stage_times(point.arch, table),
    }


def stage_times(arch: Architecture, table: CostTable | None) -> list[list[Any]] | None:
    """[name, ms] of each stage of a network, as its table predicts them, in order.

    What the network costs beside its ops is "fixed"; everything after the stages is "head". None
    when there is no table of its geometry, or it lacks what the network needs.
    """
    if table is None or table.geometry != arch.space.geometry:
        return None
    try:
        totals = {"fixed": table.intercept(arch.resolution)}
        for slot, op, *_ in arch.ops:
            stage = "head" if slot in _TAIL else slot.partition(".")[0]
            totals[stage] = totals.get(stage, 0.0) + table.row(op.key)
        bent = table.latency(arch.resolution, [placed.op.key for placed in arch.ops])
    except TableError:
        return None
    factor = bent / sum(totals.values()) if bent else 0.0  # so that the parts add up to the latency
    return [[name, round(factor * ms, 6)] for name, ms in totals.items() if ms > 0]
