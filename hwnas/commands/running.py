"""What every stage command does: settings, lock, stages, then what was made and what failed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hwnas.commands import console, device_table, pipeline
from hwnas.commands.pipeline import Outcome
from hwnas.measuring import connections
from hwnas.networks.narrowing import narrowed
from hwnas.run import accuracy, ci, devices, leftovers, lock, picking, plan, results
from hwnas.run.context import Context, Reporter, mutes
from hwnas.run.folder import RunFolder, is_first_process, locked
from hwnas.run.gates import FAILED, MUTED, Gate
from hwnas.run.own import load_space
from hwnas.run.public import addresses, public_text
from hwnas.run.result import result
from hwnas.run.result_shape import RESULT_FORMAT
from hwnas.run.search import predictor_doubts
from hwnas.settings.accept import WORDS
from hwnas.settings.config_file import load_config
from hwnas.settings.places import in_words_of, told_of
from hwnas.settings.targets import full_name
from profilers.errors import ConfigError, HwnasError, InfeasibleError
from profilers.plugins import select


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        config: settings file.
        overrides: `key.sub=value` texts.
        targets: only these; empty: those of the settings.
        accept: refusals to override, comma-separated.
        as_json: one JSON document on standard output instead of tables.
        resume: a search goes on from the front that is there.
        clean: remove what workers keep on the devices, at the end.
        ci: folder for the files that a pipeline reads; None: none are written.
    """

    config: Path
    overrides: Sequence[str] = ()
    targets: Sequence[str] = ()
    accept: str = ""
    as_json: bool = False
    resume: bool = False
    clean: bool = False
    ci: Path | None = None


def opened(request: Request, report: Reporter) -> tuple[Context, list[str]]:
    """The context of a request and the names of its targets, which are checked to exist.

    Raises:
        ConfigError: a setting, a name or a word of `--accept` is wrong.
    """
    config = load_config(request.config, list(request.overrides))
    base, names = request.config.resolve().parent, accepted(request.accept)
    folder = RunFolder(base / config.run)
    context = Context(config, base, folder, report, names, request.resume)
    only = list(dict.fromkeys(t for name in request.targets for t in meant(context, name)))
    told = partial(told_of, request.config, overrides=request.overrides)
    with told("run"):
        _check_place(context)
    for n, name in enumerate(config.targets):  # what is wrong fails before hours of training
        with told(f"targets.{n}"):
            context.target(name)
    for name in only:
        with in_words_of(f"--target {name}"):
            context.target(name)
    if not config.space.model:  # the stage `space` says what is wrong with a model
        with told("space.name"):
            space = load_space(config.space, folder)
        with told("space.resolutions"):
            space = space.restricted(config.space.resolutions or space.profiled)
        with told("search.only"):
            narrowed(space, config.search.only)
    return context, only or list(config.targets)


def _check_place(context: Context) -> None:
    """Refuse a run folder that is a file, or that lies among the images.

    Raises:
        ConfigError: it is.
    """
    run, data = context.run.root.resolve(), context.config.data
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{context.config.run} is a file, expected a folder; name another one")
    images = (context.base / data.root).resolve()
    if data.kind == "image_folder" and data.root and images in (run, *run.parents):
        raise ConfigError(
            f"{context.config.run!r} lies in data.root {data.root!r}, whose folders are classes; "
            "name another folder"
        )


def meant(context: Context, name: str) -> list[str]:
    """The targets that a name means: one, or those of the settings that are of a device."""
    known = devices.devices(context.config.targets)
    mine = [t for device, of in known.items() for t in of if devices.is_named(device, name)]
    return mine or [full_name(name, context.base)]


def run(stages: Sequence[str], request: Request) -> int:
    """Run stages, say what was made, and return the exit code of docs/formats.md."""
    quiet = request.as_json or not is_first_process()
    with console.reporter(quiet) as report:
        with _refusals(request):
            context, targets = opened(request, report)
        if request.ci is not None:
            ci.prepare(request.ci, context.run.root)
        with _refusals(request):
            path = context.base / lock.NAME
            makes_packages = not {"export", "verify"}.isdisjoint(stages)
            numbers = lock.read(path) if makes_packages and path.exists() else None
        with contextlib.ExitStack() as held:
            with _refusals(request):
                held.enter_context(locked(context.run.root))
                outcome = _checked(context, targets) if "profile" in stages else Outcome()
                pipeline.run_stages(context, stages, targets, outcome)
                _place(request, "data.root" if context.config.data.root else "data", outcome)
                if request.clean:
                    _clean(context, targets, outcome)
                document = _document(context, targets, outcome, numbers)
            if is_first_process():  # while no other run replaces packages
                rows = pipeline.package_rows(context, outcome, targets)
                fresh = not {"search", "export"}.isdisjoint(stages)
                picks = _device_picks(context, targets) if fresh else {}
                if request.ci is not None:
                    ci.write(document, context.run.root / "packages", request.ci)
    if is_first_process():
        if request.as_json:
            told = [row for mine in picks.values() for row in mine]
            print(json.dumps({**summary(context, outcome, rows), "devices": told}, indent=2))
        else:
            _show(context, outcome, stages, rows)
            for name, mine in picks.items():
                print()
                device_table.show(f"best on {name}, predicted", mine)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            print("\n".join(ci.error_lines(document)), file=sys.stderr)
    for name, error in outcome.failures:
        print(f"hwnas: {name}: {error}", file=sys.stderr)
    return outcome.exit_code


def _place(request: Request, key: str, outcome: Outcome) -> None:
    """What is wrong with the data is told with the line of the settings that names them."""
    for n, (name, error) in enumerate(outcome.failures):
        if name == "data":
            try:
                with told_of(request.config, key, request.overrides):
                    raise error
            except HwnasError as placed:
                outcome.failures[n] = (name, placed)


@contextlib.contextmanager
def _refusals(request: Request) -> Iterator[None]:
    """Write a refusal into the output folder too: an earlier run's results there are not this
    one's.
    """
    try:
        yield
    except HwnasError as error:
        if request.ci is not None and is_first_process():
            told = _failures([("start", error)], [str(request.config.resolve().parent)])
            empty: dict[str, Any] = {"hashes": {}, "versions": {}, "targets": {}, "packages": []}
            document = {"format": RESULT_FORMAT, **empty, "failures": told}
            with contextlib.suppress(HwnasError):  # the refusal itself is what is to be heard
                ci.prepare(request.ci)
                ci.write({**document, "exit_code": error.exit_code}, Path(), request.ci)
        raise


def _failures(found: Sequence[tuple[str, HwnasError]], secrets: list[str]) -> list[dict[str, Any]]:
    """What failed, as it may be published."""
    return [
        {"work": name, "exit_code": error.exit_code, "error": public_text(str(error), secrets)}
        for name, error in found
    ]


def matrix(request: Request) -> dict[str, Any]:
    """The targets, or the devices that packages are made for, as a matrix of GitHub Actions: a job
    each, on a hosted runner where it is the machine itself, else on one of one's own that has the
    device's name as a label.
    """
    with console.reporter(quiet=True) as report:
        context, targets = opened(request, report)
    jobs = {name: context.target(name) for name in targets}
    if context.config.export.per == "device":
        jobs = {devices.device_name(name): target for name, target in jobs.items()}
    return {
        "include": [
            {
                "target": name,
                "runner": "ubuntu-latest" if connections.is_here(target) else target.device,
            }
            for name, target in jobs.items()
        ]
    }


def _checked(context: Context, targets: Sequence[str]) -> Outcome:
    """What cannot work has failed before anything is trained; a board may be off or busy now."""
    outcome = Outcome()
    for name, error in plan.problems(context, targets).items():
        if plan.is_lasting(error):
            outcome.failures.append((f"check.{name}", error))
        else:
            context.report.warn(f"{name}: {error}; its stages try again")
    return outcome


def _document(
    context: Context, targets: Sequence[str], outcome: Outcome, numbers: dict[str, Any] | None
) -> dict[str, Any]:
    """The result of a run; what is worse than the lock is a failure of it."""
    made = [name for name in targets if outcome.reached_export(name)]
    document = result(context, targets, made)
    if numbers is not None:
        lock.hold_against(numbers, document, "regression" in context.accept)
        _say_regressions(context, document, outcome)
    secrets = [word for n in targets for word in addresses(context.target(n).connection)]
    failures = _failures(outcome.failures, [*secrets, str(context.base)])
    told = {**document, "failures": failures, "exit_code": outcome.exit_code}
    _say_why_none(told)
    return told


def _say_why_none(document: dict[str, Any]) -> None:
    """Add one reason to each device of a result that has no package."""
    made = {package["target"] for package in document["packages"]}
    for name, about in document.get("devices", {}).items():
        own = ("", name, *about["targets"])
        why = [f for f in document["failures"] if f["work"].partition(".")[2] in own]
        first = min(why, key=lambda failure: failure["exit_code"], default={"error": "not made"})
        about["reason"] = "" if made & set(about["targets"]) else first["error"]


def _say_regressions(context: Context, document: dict[str, Any], outcome: Outcome) -> None:
    """Add to a run's failures what is worse than the lock; where that is accepted, warn of it."""
    for package in document["packages"]:
        for gate in package["gates"]:
            words = f"{package['package']}: {Gate(**gate)}"
            if (gate["gate"], gate["verdict"]) == ("regression", FAILED):
                error = InfeasibleError(f"{words}; `hwnas accept` takes it")
                outcome.failures.append((f"regression.{package['target']}", error))
            elif (gate["gate"], gate["verdict"]) == ("regression", MUTED):
                mutes(context, "regression", f"{package['target']}: {words}")


def _device_picks(context: Context, targets: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What the settings pick of each device that is driven in several ways; where one has no front
    or a budget cannot be met, its stages say so.
    """
    found = {}
    for name, mine in devices.devices(targets).items():
        with contextlib.suppress(HwnasError):
            device = devices.device_front(context, name, mine)
            if len(device.fronts) > 1:
                found[name] = picking.device_rows(context, device)
    return found


def _clean(context: Context, names: Sequence[str], outcome: Outcome) -> None:
    """Remove what workers keep on the devices of some targets, each device once."""
    from hwnas.measuring import here

    devices = {connections.queue(context.target(name)): name for name in names}
    for name in devices.values():
        try:
            folder, freed_bytes = here.clean(context.target(name))
        except HwnasError as error:
            outcome.failures.append((f"clean.{name}", error))
        else:
            context.report.note(f"{name}: removed {folder} there, {freed_bytes / 1e6:.1f} MB")


def accepted(text: str) -> frozenset[str]:
    """The refusals that `--accept` names."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return frozenset(select(word, WORDS, "--accept word") for word in words)


def summary(context: Context, outcome: Outcome, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What was done, what failed and what packages there are, as plain data."""
    failures = [
        {"work": name, "exit_code": error.exit_code, "error": str(error)}
        for name, error in outcome.failures
    ]
    return {
        "run": str(context.run.root),
        "done": outcome.done,
        "up_to_date": outcome.skipped,
        "failures": failures,
        "exit_code": outcome.exit_code,
        "packages": rows,
        "report": str(context.run.report) if context.run.report.exists() else None,
    }


def _show(
    context: Context, outcome: Outcome, stages: Sequence[str], rows: list[dict[str, Any]]
) -> None:
    if not outcome.done and not outcome.failures:
        print("everything is up to date", file=sys.stderr)
    if kept := leftovers.leftovers(context):
        print(f"{leftovers.in_words(kept)}; `hwnas gc` removes them", file=sys.stderr)
    current = [row for row in rows if row["current"]]
    if current and ("export" in stages or "verify" in stages):
        for target in dict.fromkeys(row["target"] for row in current):
            print()
            _print_packages(target, [row for row in current if row["target"] == target])
            _say_alike(context, target, [row for row in current if row["target"] == target])
        if doubts := predictor_doubts(context, context.config.targets):
            print(f"\nwarning: {doubts}")
    if "report" in stages and context.run.report.exists():
        print(f"\nreport: {_short(context.run.report)}")
        if current:
            _say_next(current)


def _print_packages(target: str, rows: list[dict[str, Any]]) -> None:
    """The packages of a target, with their energy where something is known of it."""
    columns = ("package", "input", "test accuracy", "predicted ms", "measured ms", "gap", "kB")
    names = ("predicted_energy_mj", "energy_mj")
    metered = any(row.get(name) is not None for row in rows for name in names)
    lines = []
    for row in rows:
        known = [row.get(name) for name in names] if metered else []
        energies = ["" if mj is None else f"{mj:.4g}" for mj in known]
        lines.append((*_package_line(row), *energies))
    heads = (*columns, "predicted mJ", "measured mJ") if metered else columns
    console.print_table(target, heads, lines)
    where = "ONNX Runtime on this machine" if rows[0]["accuracy_on"] == "host" else "the target"
    if rows[0]["test_images"]:
        told = f"{rows[0]['metric']} of {rows[0]['test_images']:,} images"
        print(f"test accuracy: {told} on {where}, 95 % interval")


def _say_alike(context: Context, target: str, rows: list[dict[str, Any]]) -> None:
    """Which packages the test images do not tell apart from the most accurate one."""
    known = results.current(context, target)
    found = {row["id"]: known[row["id"]] for row in rows if row["id"] in known}
    alike = results.as_accurate(found)
    names = [row["package"] for row in rows if row["id"] in alike]
    if names:
        print(f"too few images to tell these from the most accurate package: {', '.join(names)}")


def _package_line(row: dict[str, Any]) -> tuple[str, ...]:
    measured = row["latency_ms"]
    share = "" if measured is None else f"{measured / row['predicted_latency_ms'] - 1:+.1%}"
    return (
        row["package"],
        str(row["resolution"]),
        accuracy.in_words(row["test_accuracy"], row["test_interval"]),
        f"{row['predicted_latency_ms']:.4f}",
        "" if measured is None else f"{measured:.4f}{_mark(row)}",
        share,
        f"{row['size_bytes'] / 1000:.0f}",
    )


def _mark(row: dict[str, Any]) -> str:
    return " (disturbed)" if row["verdict"] == "disturbed" else ""


def _say_next(rows: list[dict[str, Any]]) -> None:
    """Three things to try after a run."""
    programs = Path(sys.executable).parent
    example = _short(Path(rows[0]["path"]) / "example.py")
    hwnas = _short(programs / "hwnas")
    print("\ntry next:")
    print(f"  {_short(programs / 'python')} {example} FILE    classify a file of yours")
    print(f"  {hwnas} init mine.yaml --images FOLDER    settings for images of yours")
    print(f"  {hwnas} doctor    what else can be profiled here, and what is missing")


def _short(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
