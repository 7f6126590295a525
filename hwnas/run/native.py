"""What a package's card says to those who ship it: how a C++ program runs it, and licences.

A file of `templates` with the name of a runtime holds the lines for its engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from profilers import runtimes

LANGUAGES = {".cpp": "cpp", ".sh": "sh"}  # by suffix, as Markdown names them
FOLDER = Path(__file__).parent / "templates"
ASK = {"timm": "the model's `pretrained_cfg`", "torchvision": "torchvision's page of these weights"}


def usage(manifest: Mapping[str, Any], file: str) -> list[str]:
    """Lines of a card that run the model without Python; none where its runtime has none.

    Args:
        manifest: of the package.
        file: what the engine loads.
    """
    stem = manifest["target"]["runtime"].replace("-", "_")
    paths = [FOLDER / (stem + suffix) for suffix in LANGUAGES]
    for path in (path for path in paths if path.is_file()):
        text = Template(path.read_text(encoding="utf-8")).substitute(_facts(manifest, file))
        return ["Without Python:", "", f"```{LANGUAGES[path.suffix]}", text.rstrip(), "```", ""]
    return []


def licences(manifest: Mapping[str, Any], engine: runtimes.Engine) -> list[str]:
    """Lines of a card: licences of what the package holds and needs, as far as known.

    Args:
        manifest: of the package.
        engine: that `example.py` uses; the target's may be another one.
    """
    runtime = manifest["target"]["runtime"]
    known: Any = runtimes.load(runtime) if runtime in runtimes.names() else None
    engines = [engine, known.ENGINE] if known else [engine]
    used = {each.title: each.licence for each in engines if each.licence}
    held = {"`example.py`": "Apache-2.0", **used}
    lines = [f"- {name}: {licence}." for name, licence in held.items()]
    if given := manifest.get("imported"):
        lines.append(
            f"- Weights: made of `{given['file']}` of {given['from']} (sha256 "
            f"{given['sha256'][:12]}). The code of {given['from']} is MIT, earlier versions "
            "Apache-2.0; its checkpoints name no licence."
        )
    elif given := manifest.get("origin"):
        source = ASK.get(re.split("[.:]", given["model"])[0], "whoever published them")
        lines.append(f"- Weights: made of those of `{given['model']}`; {source} names the licence.")
    lines.append("- Training data: their licence is not known here.")
    return ["Licences:", "", *lines, ""]


def _facts(manifest: Mapping[str, Any], file: str) -> dict[str, Any]:
    """What the templates ask for."""
    target, given = manifest["target"], manifest["input"]
    from hwnas.networks.onnx_graph import OUTPUT  # imports onnx

    shape = [target["batch"], *given["shape"]]
    values = 1
    for size in shape:
        values *= size
    flag = {"fp16": "--fp16", "int8": "--int8"}.get(target["precision"], "")
    return {
        "file": file,
        "threads": target["threads"],
        "stop": int(not target.get("spinning", False)),
        "shape": ", ".join(map(str, shape)),
        "values": values,
        "layout": "batch, channels, " + ("steps" if len(given["shape"]) == 2 else "height, width"),
        "input": given["name"],
        "output": OUTPUT,
        "precision": flag,
    }
