"""A ladder of training recipes on a proxy of minutes: what each change does to the gap.

Question: which recipe brings the subnets of a supernet closest to the same networks trained alone?
Proxy: `tiny` at 8, 12, 16 px on 6,000 training images of Fashion-MNIST, 8 epochs, batch 64, one
thread; 3,000 validation images, which choose everything here: no test image is read. Per rung and
seed: six networks, the smallest to the largest by MACs, each of them trained alone too at every
rate of ALONE, and 12 random ones. Each gap is paired: same network, same seed, and the rate that is
best for networks alone on average.

Each (rung, seed) is one JSON file in --out, written when it is done and not repeated while its
settings are the same; its training resumes from a checkpoint. Run it again with more rungs or seeds
at any time: the table is made of what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture
from hwnas.settings.config import AccuracyConfig, DataConfig, TrainConfig
from hwnas.supernet import evaluation, recipes, training
from hwnas.supernet.network import Subnet, calibrate
from hwnas.supernet.recipes import Recipe, Stage
from profilers.schema import canonical_json, read_json, write_json
from recipes import ordered

SANDWICH = Recipe(stages=(Stage(share=0.2), Stage(share=0.8, smallest=True, random=1)))
PROXY: dict[str, Any] = {
    "data": DataConfig(kind="idx", validation=0.1, augment="flip"),
    "px": (8, 12, 16),
    "train_images": 6000,
    "val_images": 3000,
    "random": 12,
    "settings": {"epochs": 8, "batch_size": 64, "learning_rate": 0.12, "weight_decay": 3e-4},
}
QUICK = {
    **PROXY,
    "data": DataConfig(kind="digits", augment="none"),
    "px": (8, 12),
    "train_images": 256,
    "val_images": 100,
    "random": 3,
    "settings": {**PROXY["settings"], "epochs": 1},
}
QUANTILES = (0.2, 0.4, 0.6, 0.8)  # of MACs among 1,000 random networks
COLUMNS = ("smallest", *(f"{q:.0%}" for q in QUANTILES), "largest")


@dataclass(frozen=True)
class Rung:
    """What differs from SANDWICH and the settings of the proxy; alone: no supernet is trained.

    Attributes:
        ordered: `labels` or `taught`: by ordered dropout in place of a recipe.
    """

    recipe: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    alone: bool = False
    ordered: str = ""


def _best(recipe: dict[str, Any] | None = None, **settings: Any) -> Rung:
    """The best of the prototype's ladder, and one change."""
    best = {"resolutions": "own", "labels": 0.5, **(recipe or {})}
    return Rung(best, {"max_only": 0.0, "learning_rate": 0.2, "random_subnets": 2, **settings})


ALONE = {f"alone-{rate}": Rung({}, {"learning_rate": rate}, True) for rate in (0.12, 0.2, 0.3)}
ALONE_PLAIN = {
    f"alone-plain{n}": Rung({}, {"learning_rate": 0.2, "plain_epochs": n}, True) for n in (1, 2)
}
RUNGS: dict[str, Rung] = {
    **ALONE,
    **ALONE_PLAIN,
    "base": Rung(),
    "base-rate0.2": Rung({}, {"learning_rate": 0.2}),
    "labels": Rung({"labels": 0.5}),
    "own": Rung({"resolutions": "own"}),
    "own-labels": Rung({"resolutions": "own", "labels": 0.5}),
    "own-labels-first": Rung({"resolutions": "own", "labels": 0.5}, {"max_only": 0.0}),
    "own-labels-first-rate0.2": _best(random_subnets=1),
    **{f"own-labels-first-plain{n}": _best(random_subnets=1, plain_epochs=n) for n in (1, 2)},
    "best": _best(),
    "best-rate0.3": _best(learning_rate=0.3),
    "best-labels1": _best({"labels": 1.0}),
    "best-tilt1": _best({"tilt": 1.0}),
    "best-tilt2": _best({"tilt": 2.0}),
    "best-ema": _best({"ema": 0.99}),
    "best-smoothing": _best({"smoothing": 0.05}),
    "best-norm": _best({"clip_norm": 5.0}),
    "best-noramp": _best({"ramp": 0.0}),
    "best-plain-labels": _best(label_smoothing=0.0),
    "best-three": _best(random_subnets=3),
    "best-batch32": _best(batch_size=32, random_subnets=1, learning_rate=0.12),
    "best-own0": _best({"resolutions": "shared"}),
    "ordered-labels": Rung({}, {"learning_rate": 0.2}, ordered="labels"),
    "ordered-taught": Rung({}, {"learning_rate": 0.2}, ordered="taught"),
    "progressive": Rung(asdict(recipes.load("progressive")), {"max_only": 0.3}),
    "best-longer": _best(epochs=16),
    "alone-longer": Rung({}, {"learning_rate": 0.2, "epochs": 16}, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.py ladder", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the results, one file each")
    parser.add_argument("--rungs", help=f"of {', '.join(RUNGS)}; default: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--quick", action="store_true", help="digits, one seed, three rungs")
    parser.add_argument("--table", action="store_true", help="train nothing: show what is there")
    given = parser.parse_args()
    proxy = QUICK if given.quick else PROXY
    out = given.out or Path(tempfile.mkdtemp(prefix="hwnas-ladder-"))
    names = given.rungs.split(",") if given.rungs else list(RUNGS)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.quick:
        names, seeds = ["alone-0.2", "base", "best"], [0]
    if strange := [name for name in names if name not in RUNGS]:
        raise SystemExit(f"unknown rung {strange[0]!r} (known: {', '.join(RUNGS)})")
    if not given.table:
        climb(proxy, names, seeds, out)
    show(proxy, out)


def climb(proxy: dict[str, Any], names: list[str], seeds: list[int], out: Path) -> None:
    """Every rung with the first seed, then with the next: a cut ladder compares like with like."""
    images = small(proxy)
    for seed in seeds:
        for name in names:
            path, made = out / f"{name}-s{seed}.json", made_of(proxy, name, seed)
            if path.exists() and read_json(path)["made_of"] == made:
                continue
            folder = out / "work" / f"{name}-s{seed}"
            whole, started = not folder.exists(), time.process_time()
            accuracy = run(proxy, images, name, seed, folder)
            spent = round(time.process_time() - started, 1)
            cost = {"cpu_s": spent if whole else None, "threads": 1}  # of a cut one it is not known
            about = {"rung": name, "seed": seed, "made_of": made, "torch": torch.__version__}
            write_json(path, {**about, **cost, **accuracy})
            print(f"{name} seed {seed}: {spent:.0f} CPU s", flush=True)


def made_of(proxy: dict[str, Any], name: str, seed: int) -> str:
    """Canonical text of all that decides a result."""
    about = {key: value for key, value in proxy.items() if key != "data"}
    about["data"] = proxy["data"].model_dump(mode="json")
    rung, settings = RUNGS[name], config(proxy, name, seed).model_dump(mode="json")
    return canonical_json({**about, **asdict(rung), "train": settings, "base": asdict(SANDWICH)})


def config(proxy: dict[str, Any], name: str, seed: int) -> TrainConfig:
    """The settings of a rung."""
    return TrainConfig(**{**proxy["settings"], **RUNGS[name].settings, "seed": seed, "threads": 1})


def small(proxy: dict[str, Any]) -> tensors.Dataset:
    """The images of the proxy; there are no test images among them."""
    whole = tensors.load(proxy["data"], identify=False)
    train = tensors.evenly(whole.train, proxy["train_images"])
    val = tensors.evenly(whole.val, proxy["val_images"])
    text = canonical_json([proxy["data"].model_dump(mode="json"), len(train), len(val)])
    return replace(whole, train=train, val=val, test=val, fingerprint=text)


def compared(job: training.Job) -> list[Architecture]:
    """Six networks, the smallest first: by MACs among 1,000 random ones, and both ends."""
    random = job.space.architectures(job.space.sample(1000, np.random.default_rng(0)))
    random.sort(key=lambda arch: exact_costs(arch)["macs"])
    middle = [random[int(q * len(random))] for q in QUANTILES]
    return [job.space.smallest, *middle, job.space.largest]


def run(
    proxy: dict[str, Any], images: tensors.Dataset, name: str, seed: int, folder: Path
) -> dict[str, Any]:
    """Accuracy on validation images of the networks compared, and the mean of random ones."""
    rung = RUNGS[name]
    space = spaces.load("tiny").for_data(images.in_channels, images.n_classes)
    space = space.restricted(proxy["px"])
    recipe = replace(SANDWICH, **{k: v for k, v in rung.recipe.items() if k != "stages"})
    if "stages" in rung.recipe:
        recipe = replace(recipe, stages=tuple(Stage(**s) for s in rung.recipe["stages"]))
    folder.mkdir(parents=True, exist_ok=True)
    settings, augment = config(proxy, name, seed), proxy["data"].augment
    job = training.Job(settings, space, images, augment, folder, own_recipe=recipe)
    if rung.alone:
        return {"networks": [train_alone(job, arch) for arch in compared(job)]}
    if rung.ordered:
        net = ordered.train(job, rung.ordered == "taught").eval()
    else:
        net = training.train(job, lambda share, text: None).eval()
    evaluator = evaluation.Evaluator(net, images, AccuracyConfig(bn_images=512), "")
    random = space.architectures(space.sample(proxy["random"], np.random.default_rng(5)))
    return {
        "networks": [evaluator.measure(arch) for arch in compared(job)],
        "random": statistics.mean(evaluator.measure(arch) for arch in random),
    }


def train_alone(job: training.Job, arch: Architecture) -> float:
    """Accuracy of a network trained alone; kept at once, so that a cut rung goes on behind it."""
    path = job.folder / f"{arch.id}.json"
    known = read_json(path) if path.exists() else {}
    if known.get("identity") != job.identity(arch):
        torch.manual_seed(job.config.seed)
        own = replace(job, folder=job.folder / arch.id)
        net = training.train(own, lambda share, text: None, Subnet(arch))
        pixels = torch.split(job.dataset.train.images[:512], evaluation.BATCH)
        calibrate(net, (tensors.prepare(p, arch.resolution, job.dataset) for p in pixels))
        known = {
            "identity": job.identity(arch),
            "accuracy": evaluation.metric_of(net, job.dataset, job.dataset.val),
        }
        write_json(path, known)
    return known["accuracy"]


# ---- the table ----------------------------------------------------------------------------------


def show(proxy: dict[str, Any], out: Path) -> None:
    """A table of what is there, then one JSON document."""
    found = results(proxy, out)
    rates = {name: mean_of(found[name]) for name in ALONE if name in found}
    best = max(rates, key=lambda name: rates[name]) if rates else ""
    print(f"validation accuracy, %; networks alone are best at {best or 'no rate yet'}")
    print(f"{'rung':26}{'n':>2}" + "".join(f"{c:>9}" for c in COLUMNS) + f"{'random':>8}", end="")
    print(f"{'gap, points (sd; seeds)':>40}{'CPU s':>7}")
    rows = []
    for name, by_seed in found.items():
        alone = found.get("alone-longer" if name.endswith("longer") else best, {})
        rows.append(row := summary(name, by_seed, {} if RUNGS[name].alone else alone))
        spread = ", ".join(f"{gap:+.2f}" for gap in row["gaps"])
        sd = f"{row['gap_sd']:.2f}; " if len(row["gaps"]) > 1 else ""
        gap = f"{row['gap']:+.2f} ({sd}{spread})" if row["gaps"] else ""
        line = f"{name:26}{row['n']:2}" + "".join(f"{100 * a:9.2f}" for a in row["networks"])
        random = f"{100 * row['random']:8.2f}" if row["random"] else f"{'':8}"
        cost = f"{row['cpu_s']:7.0f}" if row["cpu_s"] is not None else ""
        print(f"{line}{random}{gap:>40}{cost}")
    about = {key: value for key, value in proxy.items() if key != "data"}
    about |= {"data": proxy["data"].model_dump(mode="json"), "alone": best, "threads": 1}
    spread = {row["rung"]: row["gaps"] for row in rows}
    n = max((row["n"] for row in rows), default=0)
    document = {"setting": about, "n": n, "spread": spread, "rungs": rows, "bars": []}
    print(json.dumps(document))


def results(proxy: dict[str, Any], out: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """What is there by rung and seed, in the order of the ladder; results of other settings are
    left out and named.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name in RUNGS:
        for path in sorted(out.glob(f"{name}-s*.json")):
            seed = path.stem.removeprefix(f"{name}-s")
            if not seed.isdigit():
                continue
            result = read_json(path)
            if result.get("made_of") != made_of(proxy, name, int(seed)):
                print(f"{path.name} is of other settings: left out")
                continue
            found.setdefault(name, {})[int(seed)] = result
    return found


def mean_of(by_seed: dict[int, dict[str, Any]]) -> float:
    return statistics.mean(a for result in by_seed.values() for a in result["networks"])


def summary(
    name: str, by_seed: dict[int, dict[str, Any]], alone: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Means over seeds, and the mean gap of each seed that the networks alone have too, points."""
    pairs = [(by_seed[s]["networks"], alone[s]["networks"]) for s in by_seed if s in alone]
    gaps = [100 * statistics.mean(a - b for a, b in zip(*pair, strict=True)) for pair in pairs]
    columns = zip(*(result["networks"] for result in by_seed.values()), strict=True)
    spent = [result["cpu_s"] for result in by_seed.values() if result["cpu_s"] is not None]
    random = [result["random"] for result in by_seed.values() if "random" in result]
    return {
        "rung": name,
        "n": len(by_seed),
        "networks": [statistics.mean(column) for column in columns],
        "random": statistics.mean(random) if random else None,
        "gaps": gaps,
        "gap": statistics.mean(gaps) if gaps else None,
        "gap_sd": statistics.stdev(gaps) if len(gaps) > 1 else None,
        "cpu_s": statistics.mean(spent) if spent else None,
    }
