"""The exported model: a folder with model files, manifest.json, MODEL_CARD.md and example.py.

Every package holds model.onnx. If the engine of its target loads another file, that is there too,
and so is what the engine builds of it on the device, once it was measured there.
ONNX metadata holds only what is known before measuring; measured numbers are in the manifest, so
the file that was measured is the file that ships, byte for byte. Knows no training and no search.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas import tasks
from hwnas.images.image_files import resized_side
from hwnas.networks.space import Architecture
from hwnas.run.card import WHERE, is_serial, model_card, runner
from profilers import runtimes
from profilers.errors import ConfigError, FileFormatError, VerificationError
from profilers.runtimes import MODEL as MODEL  # read by others from here
from profilers.schema import (
    PACKAGE_FORMAT,
    Target,
    canonical_json,
    read_json,
    sha256_file,
    sha256_text,
    target_from_json,
    write_atomic,
    write_json,
)

MANIFEST, CARD, EXAMPLE = "manifest.json", "MODEL_CARD.md", "example.py"
FILES = (MODEL, CARD, EXAMPLE)  # whose sha256 a manifest holds, beside that of `model`
KEYS: dict[str, type] = {  # of a manifest, beside measured, which may be null
    "name": str,
    "id": str,
    "architecture": dict,
    "made_of": str,
    "task": dict,
    "model": str,
    "input": dict,
    "target": dict,
    "predicted": dict,
    "budgets": dict,
    "parity": dict,
    "settings": dict,
    "files": dict,
}
ROOT = Path(__file__).parents[2]  # of the names of modules
IMPORT = r"(?m)^from (hwnas\.(?!tasks\.)[\w.]+) import .*$"
TOLD = r"(?m)^from hwnas\.tasks\.\w+ import told$"
DEPLOYED = r"(?m)^from profilers\.runtimes\.\w+ import Deployed$"


def input_of(arch: Architecture, data: Mapping[str, Any]) -> dict[str, Any]:
    """How an image or a series becomes the network's input, in enough detail to do it again.

    Args:
        arch: its resolution is the input size.
        data: `channels`, `size` (of what is stored, px or steps; 0: streamed), `mean` and `std` per
            channel, `preparation`, and `series_length` where series are cut or padded to it.
    """
    from hwnas.networks import onnx_graph  # imports onnx

    serial = data.get("preparation") == "series"
    how = _series_of(arch.resolution, data) if serial else _image_of(arch.resolution, data)
    return {
        "name": onnx_graph.INPUT,
        "shape": list(arch.space.input_shape(arch.resolution)),
        "dtype": "float32",
        "channels": data["channels"],
        "size": arch.resolution,
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        **how,
    }


def _image_of(px: int, data: Mapping[str, Any]) -> dict[str, Any]:
    streamed = data.get("preparation") == "imagenet"
    side, size = resized_side(px), px if streamed else data["size"]
    resize = f"shorter side to {side if streamed else size} px, bilinear with antialias, then the "
    resize += f"centre of {size} px cut out"
    if size != px:
        resize += f"; to {px} px, bilinear without antialias, after normalising"
    return {
        "layout": "batch, channels, height, width",
        "source_size": size,
        "resize_side": side if streamed else None,
        "scale": "pixel / 255, minus mean, over std",
        "resize": resize,
    }


def _series_of(steps: int, data: Mapping[str, Any]) -> dict[str, Any]:
    length, fitted = data["size"], bool(data.get("series_length"))
    resize = f"cut to {length} steps or padded with its last value" if fitted else "none"
    if length != steps:
        before = f"{resize}; " if fitted else f"from {length} "
        resize = f"{before}to {steps} steps, linear without antialias, after normalising"
    return {
        "layout": "batch, channels, time",
        "source_size": length,
        "fit_length": fitted,
        "scale": "value minus mean, over std",
        "resize": resize,
    }


def write_model(
    folder: Path,
    arch: Architecture,
    weights: Mapping[str, np.ndarray],
    batch: int,
    metadata: Mapping[str, Any],
) -> bytes:
    """Write model.onnx, in fp32, and return its bytes.

    Args:
        weights: of `supernet.folded_weights`.
        batch: inputs of one inference, fixed in the graph.
        metadata: values for the model's properties, each written as canonical JSON.
    """
    from hwnas.networks import onnx_graph  # imports onnx

    properties = {f"hwnas.{name}": canonical_json(value) for name, value in metadata.items()}
    data = onnx_graph.to_bytes(onnx_graph.build(arch.ops, weights, batch, properties))
    write_atomic(folder / MODEL, data)
    return data


def write_engine_file(folder: Path, target: Target) -> str:
    """Write what the target's engine loads, beside the ONNX file where it is another one; its name.

    Raises:
        RuntimeMissingError: what makes it is not installed here.
        ConfigError: the engine lacks an op of the model.
    """
    name = runtimes.engine(target.runtime).file
    if name != MODEL:
        convert = getattr(runtimes.load(target.runtime), "convert")  # noqa: B009 -- few have it
        write_atomic(folder / name, convert(folder / MODEL))
    return name


def keep_built(folder: Path, target: Target, contents: Sequence[bytes], by: str) -> None:
    """Add what the target's engine built of the model on the device.

    Args:
        folder: of the package.
        target: its runtime names the files.
        contents: of each.
        by: version of the engine, which names all that the files fit.
    """
    names, manifest = runtimes.engine(target.runtime).built, read_manifest(folder)
    if manifest.get("built"):  # if killed, no manifest has the hash of a replaced file
        write_manifest(folder, {**manifest, "built": None})
    for name, content in zip(names, contents, strict=True):
        write_atomic(folder / name, content)
    built = {"engine_version": by, "files": list(names)}
    write_manifest(folder, {**manifest, "built": built})


def lacks_built(manifest: Mapping[str, Any], target: Target, by: str) -> bool:
    """Whether a package lacks what the engine of a target builds, or has what another version or
    device built; arguments as of `keep_built`.
    """
    names = runtimes.engine(target.runtime).built
    return bool(names) and (manifest.get("built") or {}).get("engine_version") != by


def sent_file(folder: Path, target: Target, by: str, place: Path) -> Path:
    """The file of a package that is sent to a target: what its engine built of the model, if that
    fits there, written into `place` as engines keep it; else that of `file_for`.
    """
    manifest, names = read_manifest(folder), runtimes.engine(target.runtime).built
    if not names or built_elsewhere(manifest, target, by):
        return file_for(folder, target)
    content = (folder / names[0]).read_bytes()
    write_atomic(place / names[0], hashlib.sha256(content).digest() + content)
    return place / names[0]


def built_elsewhere(manifest: Mapping[str, Any], target: Target, by: str) -> str:
    """Why a target cannot use what its engine built of a package; empty if it can, or if another
    engine runs the package there.
    """
    if not runtimes.engine(target.runtime).built:
        return ""
    made, given = manifest.get("built"), manifest["target"]
    how = ("runtime", "precision", "optimisation")
    if not made or any(given[name] != getattr(target, name) for name in how):
        return f"nothing in it was built for {target.runtime} in {target.precision}"
    if made["engine_version"] == by:
        return ""
    return f"{made['files'][0]} was built by {made['engine_version']}, the device has {by}"


def file_for(folder: Path, target: Target) -> Path:
    """The file of a package that a target's engine loads; the ONNX file if the package is for
    another engine.
    """
    own = folder / runtimes.engine(target.runtime).file
    return own if own.is_file() else folder / MODEL


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the model card, the example and last the manifest with the sha256 of every file."""
    text = example(is_serial(manifest), manifest["target"]["runtime"], manifest["task"]["name"])
    write_atomic(folder / EXAMPLE, text.encode("utf-8"))
    write_atomic(folder / CARD, model_card(manifest).encode("utf-8"))
    files = {name: sha256_file(folder / name) for name in files_of(manifest)}
    write_json(folder / MANIFEST, {**manifest, "format": PACKAGE_FORMAT, "files": files})


def files_of(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the files of a package, but for its manifest."""
    return {*FILES, manifest["model"], *(manifest.get("built") or {}).get("files", ())}


def example(serial: bool, runtime: str, task: str) -> str:
    """example.py, which runs without hwnas: the imported code replaces its imports.

    Args:
        serial: whether inputs are series, not images.
        runtime: of the target; the reference where it has no way to run a package.
        task: what the network says.
    """
    seen: set[str] = set()

    def text_of(module: str) -> str:
        if module in seen:
            return ""
        seen.add(module)
        name = module.replace("read_image", "read_series" if serial else "read_image")
        text = (ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8").rstrip()
        return re.sub(IMPORT, lambda found: text_of(found[1]), text)

    text = text_of("hwnas.run.templates.example")
    for mark, part in ((DEPLOYED, runner(runtime).Deployed), (TOLD, tasks.load(task).told)):
        source = inspect.getsource(part).rstrip()
        text = re.sub(mark, f"\n\n{source}\n".replace("\\", r"\\"), text)
    return f"{text}\n"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a package whose files are what it says.

    Raises:
        FileFormatError: no package, or its manifest cannot be read or lacks something.
        VerificationError: a file differs from the hash in the manifest.
    """
    remedy = f"delete {folder} and run `hwnas export`"
    try:
        manifest = read_json(folder / MANIFEST, PACKAGE_FORMAT)
    except FileFormatError as error:
        raise FileFormatError(f"{error}; {remedy}") from None
    wrong = _wrong_in(manifest) or _wrong_words(manifest)
    if wrong:
        raise FileFormatError(f"{folder / MANIFEST}: {wrong}; {remedy}")
    for name in sorted(files_of(manifest)):
        path = folder / name
        if not path.is_file():
            raise FileFormatError(f"{folder} lacks {name}; {remedy}")
        if sha256_file(path) != manifest["files"][name]:
            raise VerificationError(
                f"{path} was changed since it was exported (sha256 differs from {MANIFEST}); "
                f"{remedy}"
            )
    return dict(manifest)


def model_of(manifest: Mapping[str, Any]) -> str:
    """sha256 of what a package's engine loads: it was measured."""
    return str(manifest["files"][manifest["model"]])


def _wrong_in(manifest: Mapping[str, Any]) -> str:
    """Which field that is read a manifest lacks, or holds in another form; empty if none."""
    for key, kind in KEYS.items():
        if not isinstance(manifest.get(key), kind):
            return f"{key} is missing or no {'text' if kind is str else 'set of fields'}"
    if strange := _strange_names(manifest):
        return strange
    predicted, measured = manifest["predicted"], manifest.get("measured", 0)
    if not _is_positive(predicted.get("latency_ms")) or not _is_share(predicted.get("error")):
        return "predicted lacks a positive latency_ms or an error in [0, 1]"
    if not all(_is_number(value) and value >= 0 for value in predicted.values()):
        return "a predicted value is not a number"
    if not all(map(_is_positive, manifest["budgets"].values())):
        return f"budgets are {manifest['budgets']}"
    if sha256_text(canonical_json(manifest["architecture"]))[:12] != manifest["id"]:
        return f"its architecture is not {manifest['id']}"
    if set(manifest["files"]) != files_of(manifest):
        return f"files are not {', '.join(sorted(files_of(manifest)))}"
    if measured is None:
        return ""
    if not isinstance(measured, dict):
        return "measured is missing or neither null nor an object"
    untimed = "latency_ms" in measured and measured["latency_ms"] is None  # too disturbed to time
    if not (untimed or _is_positive(measured.get("latency_ms"))):
        return "measured lacks a positive latency_ms"
    unseen = "test_accuracy" in measured and measured["test_accuracy"] is None  # no images
    if unseen:
        return ""
    if not _is_share(measured.get("test_accuracy")):
        return "measured lacks a test_accuracy in [0, 1]"
    told = measured.get("accuracy_on") in WHERE and type(measured.get("test_images")) is int
    return "" if told else "measured does not say where its accuracy was taken, on how many images"


def _strange_names(manifest: Mapping[str, Any]) -> str:
    """What is wrong with the names of the model and of what was built of it; empty if nothing."""
    built = manifest.get("built")
    if built is not None and (
        not isinstance(built, dict)
        or not isinstance(built.get("engine_version"), str)
        or not isinstance(built.get("files"), list)
    ):
        return "built is neither null nor an engine_version and files"
    for name in [manifest["model"], *(built or {}).get("files", ())]:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            return f"model {name!r} is not a plain name of a file"
    return ""


def _wrong_words(manifest: Mapping[str, Any]) -> str:
    """What is wrong with the target, or with what the model card says; empty if nothing is."""
    try:
        if target_from_json(manifest["target"]).name != manifest["target"]["name"]:
            return f"its target's name is not that of its parts: {manifest['target']['name']}"
        model_card(manifest)
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError) as error:
        return f"its target, or what its card says, is incomplete ({error})"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0
