"""`hwnas measure`: models of the user's own under the protocol and statistic of tables."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import (
    BUDGETS,
    AsJson,
    Budget,
    EnergyBudget,
    end_with,
    without_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hwnas.measuring.onnx_files import OwnModel
    from profilers.errors import HwnasError
    from profilers.schema import Target

COLUMNS = ("model", "latency ms", "median", "p95", "spread", "load ms", "first run", "MB")
ENERGY_COLUMNS = ("energy mJ", "net mJ", "spread", "W", "idle W")


def measure(
    files: Annotated[list[Path], typer.Argument(help="ONNX files", metavar="FILE")],
    target: Annotated[str, typer.Option(help="what to measure on")],
    budget_s: Budget = 60,
    energy_budget: EnergyBudget = None,
    save: Annotated[str, typer.Option(help="keep the numbers as baselines/NAME.json")] = "",
    sustained: Annotated[
        str, typer.Option(help="also run each without rest for this long, as 60s or 5m")
    ] = "",
    input_shape: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SIZES as x=1x3x224x224, of an input whose sizes are left open"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time any ONNX file in the way of tables; cold start, memory and, with a meter, energy.

    Weights may lie in a file beside it. Inputs get random numbers, integers zeros, booleans true.
    """
    from hwnas.commands import console
    from hwnas.measuring.onnx_files import prepare, read_shapes
    from hwnas.measuring.scratch import scratch
    from hwnas.settings.targets import full_name, load_target
    from profilers.errors import ConfigError
    from profilers.schema import write_json

    if save and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", save):
        raise ConfigError(f"--save {save!r} may hold letters, digits, '.', '-' and '_' only")
    hot_s = _seconds(sustained) if sustained else 0.0
    shapes = read_shapes(input_shape or ())
    driven = load_target(full_name(target, Path()), Path())
    with scratch("models") as folder, console.reporter(quiet=as_json) as report:
        models = [
            prepare(path, folder / str(number), shapes, driven.batch)
            for number, path in enumerate(files)
        ]
        say = report.progress(f"measure on {driven.name}")

        def tell(text: str, share: float) -> None:
            say(min(share, 0.999), text)

        with without_settings(BUDGETS):
            found, failures = measured(driven, models, budget_s, tell, energy_budget)
        if hot_s:
            contents = {str(model.path): model.content for model in models}
            found["models"] = _when_hot(driven, found["models"], contents, hot_s, tell)
        for words in (*_warnings(found["models"]), *_by_rule(driven, models)):
            report.warn(words)
        say(1.0, "")
    if save:
        write_json(Path("baselines") / f"{save}.json", found)
    if as_json:
        _print_json(found, failures)
    else:
        _print(driven.name, found, save)
    for error in failures[1:]:
        print(f"hwnas: {error}", file=sys.stderr)
    if failures:
        end_with(failures[0])


def _print_json(found: Mapping[str, Any], failures: Sequence[HwnasError]) -> None:
    fields = [{"exit_code": error.exit_code, "error": str(error)} for error in failures]
    print(json.dumps({**found, **({"failures": fields} if fields else {})}, indent=2))


def _warnings(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is unknown or disturbed of each model."""
    from hwnas.measuring import verdict

    for model in models:
        if model.get("energy_mj", 0) is None:
            yield f"energy of {model['file']} is unknown: {model['energy']['reason']}"
        yield from (f"{model['file']}: {words}" for words in verdict.warnings(model))


def _by_rule(target: Target, models: Sequence[OwnModel]) -> Iterator[str]:
    """What must be said of models in fp32 that the device writes in a precision itself."""
    from profilers import precisions

    part = precisions.load(target.precision)
    for model in models if part.PRECISION.calibrated else ():
        content = model.content.read_bytes()
        if not part.is_written(content):
            left = ", ".join(f"{n} {op}" for op, n in part.in_float(content).items())
            yield (
                f"{model.path} is in fp32: timed as it would be in {target.precision}, its ranges "
                f"by a rule; its outputs mean nothing (left in float: {left or 'nothing'})"
            )


def _print(name: str, found: dict[str, Any], save: str) -> None:
    """What was measured, for people."""
    from hwnas.commands import console
    from hwnas.measuring import verdict

    columns = COLUMNS + (ENERGY_COLUMNS if "energy_mj" in found["models"][0] else ())
    console.print_table(name, columns, [_line(model) for model in found["models"]])
    print("MB: resident memory of the worker with the model loaded, its Python and engine included")
    for model in found["models"]:
        for words in verdict.doubts(model) or ["measured undisturbed: good"]:
            print(f"{model['file']}: {words}")
        if "sustained" in model:
            print(_hot_words(model))
    if save:
        print(f"wrote baselines/{save}.json")


def measured(
    target: Target,
    models: Sequence[OwnModel],
    budget_s: float,
    say: Any,
    energy_s: float | None = None,
) -> tuple[dict[str, Any], list[HwnasError]]:
    """What models cost on a target: the document of `--save` (docs/formats.md, "Baselines"), and
    the error of each model that cannot be run there, sorted by exit code.

    Args:
        target: what to measure on.
        models: ready to be sent.
        budget_s: device time, seconds.
        say: as of `measuring.campaign.run_campaign`.
        energy_s: device time of energy windows, seconds; None: as profile.energy_budget_s; 0: none.

    Raises:
        HwnasError: no model can be run.
    """
    from hwnas.measuring import connections, here, remote
    from hwnas.measuring.records import now
    from hwnas.report.baselines import FORMAT
    from hwnas.settings.config import ProfileConfig
    from profilers.schema import sha256_file

    environment = remote.probe(target)
    cold, failures = _cold_starts(target, models)
    files = [model.content for model in cold]
    settings = ProfileConfig(budget_s=budget_s)
    if energy_s is not None:
        settings = settings.model_copy(update={"energy_budget_s": energy_s})
    timed = remote.measure_models(target, files, settings, say)
    energies = here.energy_fields(target, files, settings)
    rows = [
        {
            "file": str(model.path),
            "sha256": sha256_file(model.content),
            "size_bytes": model.content.stat().st_size,
            **latency,
            **start,
            **energy,
        }
        for (model, start), latency, energy in zip(cold.items(), timed, energies, strict=True)
    ]
    found = {
        "format": FORMAT,
        "target": connections.published(target),
        "environment": environment,
        "created": now(),
        "models": rows,
    }
    return found, failures


def _cold_starts(
    target: Target, models: Sequence[OwnModel]
) -> tuple[dict[OwnModel, dict[str, Any]], list[HwnasError]]:
    """Cold start of each model, and the error of each that has none; one at least has.

    Raises:
        HwnasError: none has.
    """
    from hwnas.measuring import here
    from profilers.errors import ConfigError, EngineCrashError, MemoryShortError

    found: dict[OwnModel, dict[str, Any]] = {}
    failures: list[HwnasError] = []
    for model in models:
        try:
            found[model] = here.cold_start(target, model.content, str(model.path))
        except (ConfigError, EngineCrashError, MemoryShortError) as error:
            failures.append(error)
    failures.sort(key=lambda error: error.exit_code)
    if not found:
        for other in failures[1:]:
            print(f"hwnas: {other}", file=sys.stderr)
        raise failures[0]
    return found, failures


def _seconds(text: str) -> float:
    """Seconds of a duration like `60s`, `5m` or `90`.

    Raises:
        ConfigError: it is no duration from 1 second to 24 hours.
    """
    from profilers.errors import ConfigError

    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(s|m|h|)", text)
    found = (
        float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)] if match else 0
    )
    if not 1 <= found <= 86_400:
        raise ConfigError(f"--sustained {text!r}: expected a duration like 60s, 5m or 1h")
    return found


def _when_hot(
    target: Target,
    models: list[dict[str, Any]],
    contents: Mapping[str, Path],
    duration_s: float,
    say: Any,
) -> list[dict[str, Any]]:
    """The models with `sustained`: what each takes while it runs without rest."""
    from hwnas.measuring.sustained import sustained

    return [
        {**model, "sustained": sustained(target, contents[model["file"]], duration_s, say)}
        for model in models
    ]


def _hot_words(model: dict[str, Any]) -> str:
    hot = model["sustained"]
    (_, first), (_, last) = hot["rate"][0], hot["rate"][-1]
    warmth = [f"{value:.0f}" for value in hot["temperature_c"] or [] if value is not None]
    degrees = f", {' to '.join(warmth)} degrees C" if warmth else ""
    return (
        f"{model['file']} without rest for {hot['duration_s']:.0f} s: {hot['first_ms']:.4f} ms at "
        f"first, {hot['last_ms']:.4f} ms at last ({hot['slowdown']:+.1%}); {first:.0f} and then "
        f"{last:.0f} images a second{degrees}"
    )


def _line(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["file"],
        *(f"{model[name]:.4f}" for name in ("latency_ms", "median_ms", "p95_ms")),
        f"{model['spread']:.1%}",
        *(f"{model[name]:.2f}" for name in ("load_ms", "first_run_ms")),
        f"{model['resident_bytes'] / 1e6:.0f}",
        *(_energy(model) if "energy_mj" in model else ()),
    )


def _energy(model: dict[str, Any]) -> tuple[str, ...]:
    about = model["energy"]
    numbers = (model["energy_mj"], about.get("net_energy_mj"))
    shown = tuple("unknown" if mj is None else f"{mj:.4g}" for mj in numbers)
    spread = "" if model["energy_mj"] is None else f"{about['energy_spread']:.1%}"
    power = (about.get("power_w"), about.get("idle_w"))
    return (*shown, spread, *("unknown" if w is None else f"{w:.3g}" for w in power))
