"""`hwnas measure`: models of the user's own under the protocol and statistic of tables."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, Budget, EnergyBudget

if TYPE_CHECKING:
    from profilers.schema import Target

FORMAT = "hwnas-baselines-1"
COLUMNS = ("model", "latency ms", "median", "p95", "spread", "load ms", "first run", "MB")
ENERGY_COLUMNS = ("energy mJ", "net mJ", "spread", "W", "idle W")


def measure(
    files: Annotated[list[Path], typer.Argument(help="ONNX files, weights inside", metavar="FILE")],
    target: Annotated[str, typer.Option(help="what to measure on")],
    budget_s: Budget = 60,
    energy_budget: EnergyBudget = None,
    save: Annotated[str, typer.Option(help="keep the numbers as baselines/NAME.json")] = "",
    sustained: Annotated[
        str, typer.Option(help="run each without rest for so long as well, as 60s or 5m")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Time any ONNX file as tables are timed; cold start, memory and, with a meter, energy."""
    from hwnas import console
    from hwnas.targets import full_name, load_target
    from profilers.errors import ConfigError
    from profilers.schema import write_json

    if save and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", save):
        raise ConfigError(f"--save {save!r} may hold letters, digits, '.', '-' and '_' only")
    hot_s = _seconds(sustained) if sustained else 0.0
    driven = load_target(full_name(target, Path()), Path())
    with console.reporter(quiet=as_json) as report:
        say = report.progress(f"measure on {driven.name}")

        def tell(text: str, share: float) -> None:
            say(min(share, 0.999), text)

        found = measured(driven, files, budget_s, tell, energy_budget)
        if hot_s:
            found["models"] = _when_hot(driven, found["models"], hot_s, tell)
        for model in found["models"]:
            if model.get("energy", {}).get("reason"):
                report.warn(f"energy of {model['file']} is unknown: {model['energy']['reason']}")
        say(1.0, "")
    if save:
        write_json(Path("baselines") / f"{save}.json", found)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    columns = COLUMNS + (ENERGY_COLUMNS if "energy_mj" in found["models"][0] else ())
    console.print_table(driven.name, columns, [_line(model) for model in found["models"]])
    print("MB: resident memory of the worker with the model loaded, its Python and engine included")
    for model in found["models"]:
        if "sustained" in model:
            print(_hot_words(model))
    if save:
        print(f"wrote baselines/{save}.json")


def measured(
    target: Target, files: list[Path], budget_s: float, say: Any, energy_s: float | None = None
) -> dict[str, Any]:
    """What files cost on a target: the document of `--json` and `--save` (docs/formats.md,
    "Baselines").

    Args:
        target: what to measure on.
        files: ONNX files.
        budget_s: device time, seconds.
        say: as of `measuring.campaign.run_campaign`.
        energy_s: device time of energy windows, seconds; None: as profile.energy_budget_s; 0: none.

    Raises:
        ConfigError: a file is missing or no ONNX model.
    """
    from hwnas.config import ProfileConfig
    from hwnas.measuring import remote
    from profilers.schema import sha256_file

    for path in files:
        _check_model(path)
    environment = remote.probe(target)
    cold = [remote.cold_start(target, path) for path in files]
    settings = ProfileConfig(budget_s=budget_s)
    if energy_s is not None:
        settings = settings.model_copy(update={"energy_budget_s": energy_s})
    timed = remote.measure_models(target, files, settings, say)
    energies = remote.told_energies(target, files, settings)
    models = [
        {
            "file": str(path),
            "sha256": sha256_file(path),
            "size_bytes": path.stat().st_size,
            **latency,
            **start,
            **energy,
        }
        for path, latency, start, energy in zip(files, timed, cold, energies, strict=True)
    ]
    return {
        "format": FORMAT,
        "target": target.without_address(),
        "environment": environment,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "models": models,
    }


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
    target: Target, models: list[dict[str, Any]], duration_s: float, say: Any
) -> list[dict[str, Any]]:
    """The models with `sustained`: what each takes while it runs without rest."""
    from hwnas.measuring.sustained import sustained

    return [
        {**model, "sustained": sustained(target, Path(model["file"]), duration_s, say)}
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


def _check_model(path: Path) -> None:
    """Refuse what is no ONNX file before a device is reached."""
    import onnx
    from google.protobuf.message import DecodeError

    from profilers.errors import ConfigError, FileFormatError

    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ConfigError(f"{path} {what}; name an ONNX file")
    try:
        nodes = onnx.load(path, load_external_data=False).graph.node
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except DecodeError:
        nodes = ()
    if not nodes:
        raise FileFormatError(f"{path} is no ONNX model, or is truncated; export it again")


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
