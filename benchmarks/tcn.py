"""Series by the normal commands: a smartwatch's inertial sensors, networks of the space tcn-128.

Data: Burns et al. 2018, "Shoulder physiotherapy exercise recognition: machine learning the inertial
signals from a smartwatch", arXiv 1802.01489, as the package seglearn 1.2.5 carries it (BSD
licence): 10 persons do 7 exercises; 3 accelerations and 3 rates of turn at 50 Hz. They are cut into
windows of 128 steps (2.56 s), each 64 after the one before; 3 persons are the test set, whom no
network saw. (Validation windows are of the persons of training.)

    pip install --no-deps seglearn==1.2.5
    python benchmarks/tcn.py            about 15 minutes on two cores
    python benchmarks/tcn.py --quick    digits as series, a small space and modelled times, seconds

Beside the packages stands a logistic regression on the windows, as a floor.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hwnas import cli
from hwnas.networks.families.tcn import Stage, Tcn
from hwnas.networks.space import SearchSpace

STEPS, SHIFT, TEST_PERSONS = 128, 64, (8, 9, 10)
TARGET, MODELLED = "host.ort-cpu.fp32.b1.t1", "fake.fake.fp32.b1.t1"
LEAST_SERIES, MARGIN, PARITY = 1000, 0.02, 1e-4  # the bars
SMALL = SearchSpace(  # for --quick: few ops, so that little is measured
    name="tcn-small",
    resolutions=(8,),
    profiled=(8,),
    family=Tcn(
        stages=(
            Stage((8, 12), depths=(1, 2), kernel_sizes=(2, 3), dilations=(1, 2)),
            Stage((16, 24), depths=(1,), kernel_sizes=(2, 3), dilations=(1,), stride=2),
        )
    ),
)
SETTINGS: dict[str, Any] = {
    "data": {"kind": "npz", "root": "watch.npz"},
    "space": {"name": "tcn-128", "resolutions": [32, 64, 128]},
    "train": {"epochs": 150, "batch_size": 64, "learning_rate": 0.1},
    "accuracy": {"measure": 150},
    "targets": [TARGET],
    "profile": {"budget_s": 30},
    "search": {"objectives": ["error", "latency_ms"]},
    "pick": [{"rule": "best"}, {"rule": "knee"}, {"budget": {"latency_ms": "60%"}}],
}
QUICK = [
    "train.epochs=1", "accuracy.measure=8", "accuracy.training_free=0", "profile.heldout=5",
    "space.name=tcn:SMALL", "space.resolutions=[8]", "accuracy.bn_images=128", "profile.rounds=5",
    f"targets=[{MODELLED}]", "pick=[{rule: best}]",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="series by the normal commands")
    parser.add_argument("--quick", action="store_true", help="seconds; no bar but of its running")
    parser.add_argument("--folder", type=Path, help="of the run; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = digits() if arguments.quick else watch()
        np.savez(folder / "watch.npz", **arrays)
        (folder / "hwnas.yaml").write_text(json.dumps({"run": "run", **SETTINGS}))
        started = time.monotonic()
        run(folder, arguments.quick)
        show(folder, arrays, time.monotonic() - started, arguments.quick)


def watch() -> dict[str, np.ndarray]:
    """Windows (n, 6, 128) float32 and labels of the persons of training and of test."""
    found = importlib.util.find_spec("seglearn")
    if found is None or found.origin is None:
        sys.exit("the data are missing: pip install --no-deps seglearn==1.2.5")
    path = Path(found.origin).parent / "data" / "watch_dataset.npy"
    held = np.load(path, allow_pickle=True).item()  # a pickle, of the package just installed
    windows: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for series, label, person in zip(held["X"], held["y"], held["subject"], strict=True):
        part = "test" if person in TEST_PERSONS else "train"
        starts = range(0, len(series) - STEPS + 1, SHIFT)
        windows[part] += [series[start : start + STEPS].T for start in starts]
        labels[part] += [int(label)] * len(starts)
    return {
        **{f"{part}_series": np.array(w, np.float32) for part, w in windows.items()},
        **{f"{part}_labels": np.array(y) for part, y in labels.items()},
        "class_names": np.array([str(name) for name in held["y_labels"]]),
    }


def digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits as series of 8 channels (rows) and 8 steps (columns)."""
    from sklearn.datasets import load_digits

    held = load_digits()
    series, labels = held.images.astype(np.float32), held.target
    return {
        "train_series": series[:1400], "train_labels": labels[:1400],
        "test_series": series[1400:], "test_labels": labels[1400:],
    }  # fmt: skip


def run(folder: Path, quick: bool) -> None:
    """`hwnas run`."""
    given = [part for setting in QUICK for part in ("--set", setting)] if quick else []
    accepted = ["--accept", "emulated"] if quick else []
    try:
        cli.main(["run", str(folder / "hwnas.yaml"), *given, *accepted])
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"hwnas run ended with {ended.code}")


def regression(arrays: dict[str, np.ndarray]) -> float:
    """Test accuracy of a logistic regression on the numbers of a window."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flat = {part: arrays[f"{part}_series"].reshape(len(arrays[f"{part}_labels"]), -1)
            for part in ("train", "test")}  # fmt: skip
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(flat["train"], arrays["train_labels"])
    return float(model.score(flat["test"], arrays["test_labels"]))


def show(folder: Path, arrays: dict[str, np.ndarray], took_s: float, quick: bool) -> None:
    """A table of the packages, and the document of bars as the last line."""
    found = [
        json.loads(p.read_text()) for p in sorted(folder.glob("run/packages/*/*/manifest.json"))
    ]
    target = MODELLED if quick else TARGET
    table = json.loads((folder / f"run/tables/{target}.json").read_text())["validation"]
    floor = regression(arrays)
    print(
        f"\n{'package':<18}{'steps':>6}{'kMACs':>8}{'test':>9}{'predicted':>11}{'measured ms':>13}"
    )
    for m in found:
        measured = m["measured"]
        print(
            f"{m['name']:<18}{m['input']['size']:>6}{m['predicted']['macs'] / 1e3:>8.0f}"
            f"{measured['test_accuracy']:>9.2%}{m['predicted']['latency_ms']:>11.4f}"
            f"{measured['latency_ms'] or float('nan'):>13.4f}"
        )
    print(f"{'logistic regression':<32}{floor:>9.2%}")
    best = max(m["measured"]["test_accuracy"] for m in found)
    gap, n_test = (
        max(m["parity"]["max_relative_difference"] for m in found),
        len(arrays["test_labels"]),
    )
    bars = [
        ("test_series", n_test, f">= {LEAST_SERIES}", n_test >= LEAST_SERIES),
        ("best_test_accuracy", best, f"> {floor + MARGIN:.4f}", best > floor + MARGIN),
        ("table_verdict", table["verdict"], "good or usable", table["verdict"] != "unreliable"),
        ("parity", gap, f"<= {PARITY:g}", gap <= PARITY),
    ]
    document = {
        "setting": {"data": "digits" if quick else "watch", "target": target},
        "n": {"train": len(arrays["train_labels"]), "test": n_test},
        "spread": {"took_s": round(took_s, 1), "error": table["error"], "noise": table["noise"]},
        "bars": [dict(zip(("name", "value", "limit", "holds"), bar, strict=True)) for bar in bars],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
