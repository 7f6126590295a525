"""`hwnas measure`: models of the user's own under the protocol and statistic of tables."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, Budget

if TYPE_CHECKING:
    from profilers.schema import Target

FORMAT = "hwnas-baselines-1"
COLUMNS = ("model", "latency ms", "median", "p95", "spread", "load ms", "first run", "MB")


def measure(
    files: Annotated[list[Path], typer.Argument(help="ONNX files, weights inside", metavar="FILE")],
    target: Annotated[str, typer.Option(help="what to measure on")],
    budget_s: Budget = 60,
    save: Annotated[str, typer.Option(help="keep the numbers as baselines/NAME.json")] = "",
    as_json: AsJson = False,
) -> None:
    """Time any ONNX file as tables are timed; cold start and memory beside it."""
    from hwnas import console
    from hwnas.targets import full_name, load_target
    from profilers.errors import ConfigError
    from profilers.schema import write_json

    if save and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", save):
        raise ConfigError(f"--save {save!r} may hold letters, digits, '.', '-' and '_' only")
    driven = load_target(full_name(target, Path()), Path())
    with console.reporter(quiet=as_json) as report:
        say = report.progress(f"measure on {driven.name}")
        found = measured(driven, files, budget_s, lambda text, share: say(min(share, 0.999), text))
        say(1.0, "")
    if save:
        write_json(Path("baselines") / f"{save}.json", found)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console.print_table(driven.name, COLUMNS, [_line(model) for model in found["models"]])
    print("MB: resident memory of the worker with the model loaded, its Python and engine included")
    if save:
        print(f"wrote baselines/{save}.json")


def measured(target: Target, files: list[Path], budget_s: float, say: Any) -> dict[str, Any]:
    """What files cost on a target: the document of `--json` and `--save` (docs/formats.md,
    "Baselines").

    Args:
        target: what to measure on.
        files: ONNX files.
        budget_s: device time, seconds.
        say: as of `measuring.campaign.run_campaign`.

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
    timed = remote.measure_models(target, files, ProfileConfig(budget_s=budget_s), say)
    models = [
        {
            "file": str(path),
            "sha256": sha256_file(path),
            "size_bytes": path.stat().st_size,
            **latency,
            **start,
        }
        for path, latency, start in zip(files, timed, cold, strict=True)
    ]
    return {
        "format": FORMAT,
        "target": {**target.to_json(), "connection": {"kind": "local"}},
        "environment": environment,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "models": models,
    }


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
    )
