"""Baselines for the report: what `hwnas measure --save` kept, by target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hwnas.measuring import verdict
from profilers.errors import FileFormatError
from profilers.schema import read_json

FORMAT = "hwnas-baselines-1"  # of what `hwnas measure --save` keeps
NUMBERS = ("latency_ms", "median_ms", "p95_ms")
SIZES = ("size_bytes", "resident_bytes")


def read_baselines(folder: Path | None, missing: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The models of every file of a folder, by the name of the target they were measured on.

    Args:
        folder: `baselines` beside hwnas.yaml; it may be absent.
        missing: gets a line for each file that cannot be read.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")) if folder is not None else []:
        try:
            data = read_json(path, FORMAT)
            models = [_model(path.stem, model) for model in data["models"]]
            found.setdefault(str(data["target"]["name"]), []).extend(models)
        except FileFormatError as error:
            missing.append(f"baselines: {error}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            missing.append(f"baselines: {path} is not complete: {error!r}; measure again")
    return found


def _model(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """One model as the report shows it."""
    hot = model.get("sustained")
    wrong = [name for name in NUMBERS if not 0 < float(model[name]) < math.inf]
    wrong += [name for name in SIZES if type(model[name]) is not int or model[name] < 0]
    if wrong:
        raise ValueError(f"{wrong[0]} of {model['file']} is {str(model[wrong[0]])[:40]}")
    return {
        "name": f"{name}: {Path(model['file']).name}",
        **{number: float(model[number]) for number in NUMBERS},
        **{name: model[name] for name in SIZES},
        "sustained_ms": float(hot["last_ms"]) if hot else None,
        "doubts": verdict.doubts(model),
    }
