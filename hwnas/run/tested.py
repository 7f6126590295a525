"""Packages measured on their targets: costs, outputs, and accuracy on the test images.

The test split is read here and nowhere else, but for the parity of exports. Uses torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.measuring import connections, here, parity, remote
from hwnas.measuring.rounds import Say
from hwnas.measuring.sustained import sustained
from hwnas.networks.space import Architecture
from hwnas.run import imported, package, results, timed
from hwnas.run.context import Context
from hwnas.run.data import checked_dataset
from hwnas.run.model import run_model
from hwnas.run.results import Result
from hwnas.settings import fakes
from hwnas.settings.targets import REFERENCE
from profilers.schema import Target

MOST_IMAGES = 1000  # test images that go to a device; each is sent there


def measure(
    context: Context,
    target: Target,
    manifests: Mapping[Path, dict[str, Any]],
    made_by: Mapping[str, str],
) -> list[Result]:
    """Measure models together, interleaved; each once, even if several packages hold it."""
    say = context.report.progress(f"verify {target.name}")
    images = checked_dataset(context) if imported.has_images(context.config) else None
    folders = {package.model_of(manifest): folder for folder, manifest in manifests.items()}
    models = [package.file_for(folder, target) for folder in folders.values()]
    archs = [context.space.from_json(manifests[f]["architecture"]) for f in folders.values()]
    costs = timed.costs(context, target, models, archs, lambda share, text: say(0.5 * share, text))
    found = []
    for n, (sha256, folder) in enumerate(folders.items(), start=1):
        manifest, model = manifests[folder], models[n - 1]
        accuracy, right = accuracy_on_test(model, manifest, target, images)
        measured = {
            **costs[n - 1],
            **parity.output_fields(target, folder / package.MODEL, manifest["input"], model),
            **accuracy,
            **_limited(context, target, model, archs[n - 1]),
            "version": results.VERSION,
            "made_by": dict(made_by),
        }
        arch = manifest["architecture"]
        about = (manifest["made_of"], context.data["fingerprint"], arch)
        found.append(Result(sha256, *about, measured, right))
        say(0.5 + 0.5 * n / len(folders), f"accuracy of {folder.name}")
    return found


def _limited(context: Context, target: Target, model: Path, arch: Architecture) -> dict[str, Any]:
    """What `check.limits` needs besides: memory in a fresh process, and latency at the end of a run
    without rest.
    """
    check, found = context.config.check, {}
    if "memory_bytes" in check.limits:
        cold = here.cold_start(target, model)
        found["memory"] = {name: cold[name] for name in ("engine_bytes", "resident_bytes")}
    if "sustained_ms" in check.limits:
        say = context.report.progress(f"sustained run of {model.parent.name} on {target.name}")
        tell: Say = lambda text, share: say(share, text)  # noqa: E731
        hot = sustained(target, model, check.sustained_s, tell, arch.ops)
        del hot["rate"]
        found["sustained"] = hot
    return found


def accuracy_on_test(
    model: Path, manifest: Mapping[str, Any], target: Target, images: tensors.Dataset | None
) -> tuple[dict[str, Any], str]:
    """The task's metric of the exported file itself on test images, in the engine of its target.

    Returns:
        test_accuracy, None where there are no images; test_interval, 95 %; test_images, how many;
        accuracy_on: `target`, or `host` where the target computes nothing and ONNX Runtime here
        stands in. Then which images it is right on, as `results.Result` holds it; nothing where
        images are not right or wrong as a whole.
    """
    where = "host" if fakes.named(target) else "target"
    if images is None:
        return {"test_accuracy": None, "test_images": 0, "accuracy_on": where}, ""
    on_host = where == "host" or (target.runtime == REFERENCE and connections.is_here(target))
    split = images.test if on_host else tensors.evenly(images.test, MOST_IMAGES)
    parts, px, task = [], manifest["input"]["size"], images.task
    for pixels, labels in tensors.batches(split, px, MOST_IMAGES):
        x = tensors.prepare(pixels, px, images).numpy()
        logits = run_model(model, target, x) if on_host else remote.run_model(target, model, x)
        parts.append(task.counts(torch.from_numpy(logits), labels))
    counts = np.concatenate(parts)
    right = np.packbits(counts).tobytes().hex() if counts.dtype == bool else ""
    between = task.interval(counts)
    return {
        "test_accuracy": task.value(counts, len(split)),
        "test_interval": between and list(between),
        "test_images": len(split),
        "accuracy_on": where,
    }, right
