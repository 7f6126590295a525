"""What a run is made of, in words: images, space, where its weights and its predictor come from.

Only what the files say is said: an imported supernet was not trained here, and a run without images
has none.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from hwnas.networks.space import SearchSpace
from hwnas.predictors import choice
from hwnas.predictors.predictor import load as load_predictor
from hwnas.report.pieces import METRICS
from hwnas.run.accuracy import Z
from hwnas.run.context import predictor_file, recipe_of
from hwnas.run.folder import RunFolder
from hwnas.run.imported import NO_IMAGES, describe
from hwnas.run.own import in_words, load_space
from hwnas.settings.config import Config, SpaceConfig
from hwnas.supernet.header import read_header
from hwnas.tables.table import CostTable
from profilers.errors import ConfigError, FileFormatError, TableError
from profilers.schema import read_json, sha256_file, target_from_json

Data = dict[str, Any]


def read(path: Path, what: str, missing: list[str]) -> Data:
    """The value of a JSON file; empty, with the reason added to missing, if it cannot be read."""
    if not path.is_file():
        missing.append(f"{what}: {path.name} is not there")
        return {}
    try:
        found = read_json(path)
        return dict(found) if isinstance(found, dict) else {}
    except FileFormatError as error:
        missing.append(f"{what}: {error}")
        return {}


def supernet_of(run: RunFolder, missing: list[str]) -> Data:
    """What the supernet file says of itself; empty where there is none."""
    if not run.supernet.is_file():
        return {}
    try:
        return read_header(run.supernet)
    except FileFormatError as error:
        missing.append(f"the supernet: {error}")
        return {}


def images_of(run: RunFolder, config: Data, missing: list[str]) -> Data:
    """The description of the data; without images, what files or settings say of them."""
    if config.get("data", {}).get("kind") == NO_IMAGES:
        try:
            return describe(Config.model_validate(config), run)
        except (ConfigError, FileFormatError):
            return {}  # a space or a file that cannot be read here; what needs it says so
    return read(run.data, "the description of the data", missing)


def space_of(run: RunFolder, config: Data, data: Data) -> SearchSpace | None:
    """The space of the run for its data, or None where that cannot be told."""
    if not config or not data:
        return None
    settings = SpaceConfig.model_validate(config["space"])
    try:
        space = load_space(settings, run)
    except (ConfigError, FileFormatError):
        return None  # one of the user's own that is not on the Python path here, or not as it was
    space = space.for_data(data["channels"], len(data["classes"]))
    return space.restricted(settings.resolutions or space.profiled)


def facts(
    run: RunFolder, config: Data, data: Data, supernet: Data, space: SearchSpace | None
) -> list[list[str]]:
    """What the run is made of, a line each."""
    lines = []
    if config and "images" in data:
        lines.append(["data", _images(config["data"], data)])
    if space:
        sizes = ", ".join(str(px) for px in space.resolutions)
        lines.append(["space", f"{space.name}: {space.size:,} networks at {sizes} {space.unit}"])
    if supernet:
        lines.append(["supernet", f"{origin(supernet)}, sha256 {sha256_file(run.supernet)[:12]}"])
    if config:
        search = config["search"]
        objectives = " and ".join(METRICS[name].label for name in search["objectives"])
        lines.append(["search", f"{search['algorithm']} on {objectives}, seed {search['seed']}"])
    return lines


def _images(source: Data, data: Data) -> str:
    n, names = data["images"], data["classes"]
    inputs, unit = ("series", "steps") if data.get("preparation") == "series" else ("images", "px")
    size = f" of {data['size']} {unit}" if data["size"] else ", each of its own size"
    few = f" ({', '.join(names)})" if len(names) <= 12 else ""
    return (
        f"{source['kind']}: {n['train']:,} training, {n['val']:,} validation and "
        f"{n['test']:,} test {inputs}{size}, {len(names)} classes{few}"
    )


def origin(supernet: Data) -> str:
    """Where the weights of a supernet come from."""
    given, tuned = supernet.get("imported"), supernet.get("finetuned")
    trained = _recipe((tuned or {}).get("train") if given else supernet.get("train"))
    if own := supernet.get("origin"):
        return f"from {in_words(own)}; {trained}"
    if not given:
        return trained or "of unknown origin"
    told = f"imported from {given['file']} ({given['from']})"
    return f"{told}, then fine-tuned: {trained}" if trained else told


def _recipe(train: Data | None) -> str:
    if not train:
        return ""
    return f"{train['recipe']}, {train['epochs']} epochs, seed {train['seed']}"


def predictors_words(
    run: RunFolder, config: Data, space: SearchSpace | None, missing: list[str]
) -> tuple[str, list[str]]:
    """How good the accuracy predictors of a run are, in words, and what is wrong with them."""
    words, doubts = predictor_words(run.predictor, config, space, missing)
    found = [doubts]
    for own in sorted(run.root.glob("predictor.*.npz")):
        told, doubts = predictor_words(own, config, space, missing)
        written = own.stem.partition(".")[2]
        words += f" In {written}: {told}"
        found.append(doubts and f"in {written}: {doubts}")
    return words, [each for each in found if each]


def predictor_words(
    path: Path, config: Data, space: SearchSpace | None, missing: list[str]
) -> tuple[str, str]:
    """How good an accuracy predictor is, and what is wrong with it; empty when there is none."""
    if not path.is_file():
        missing.append("the accuracy predictor: `hwnas evaluate` fits it")
        return "", ""
    if space is None:
        missing.append("the accuracy predictor: of what space and data it is cannot be told")
        return "", ""
    try:
        scores: dict[str, float] = getattr(load_predictor(path, space), "scores", {})
    except (FileFormatError, TableError) as error:
        missing.append(f"the accuracy predictor: {error}")
        return "", ""
    if not scores:
        return "The accuracy predictor was imported: nothing here says how good it is.", ""
    results = config.get("accuracy", {}).get("results")
    where = f"elsewhere ({Path(results).name})" if results else "on validation images"
    return (
        f"{scores['n']:.0f} subnets were measured {where}. Networks left out of the "
        f"fit are predicted within {100 * scores['mae']:.2f} points of error on average, and "
        f"ranked with a Kendall's tau of {scores['kendall_tau']:.2f} (MACs alone: "
        f"{scores['macs_kendall_tau']:.2f})."
    ), choice.doubts(scores)


# ---- how far predictions may be off -------------------------------------------------------------


def uncertain(run: RunFolder, table: CostTable | None, space: SearchSpace | None) -> Data:
    """How far 95 % of the predictions of a target's networks are off, by metric: `error` a fraction
    up or down, costs a share. What is not known is left out.
    """
    if table is None:
        return {}
    timed = table.validation.get("points", [])
    metered = (table.energy.get("validation") or {}).get("points", [])
    found = {
        "latency_ms": _gap([(p, (a + b) / 2) for _, p, a, b in timed]),
        "energy_mj": _gap([(p, mj) for _, p, mj, _ in metered]),
    }
    target = target_from_json(dict(table.target))
    path = predictor_file(run, target.precision, recipe_of(target, table.environment))
    with contextlib.suppress(FileFormatError, TableError, AttributeError):
        if space is not None:
            found["error"] = Z * load_predictor(path, space).residual_spread  # type: ignore[attr-defined]
    return {name: value for name, value in found.items() if value}


def _gap(pairs: list[tuple[float, float]]) -> float:
    """The share that 95 % of (predicted, measured) pairs are within."""
    gaps = sorted(abs(predicted / measured - 1) for predicted, measured in pairs)
    return gaps[math.ceil(0.95 * len(gaps)) - 1] if gaps else 0.0
