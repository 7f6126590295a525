"""Supernet training on Fashion-MNIST: subnets beside the same networks trained alone.

Question: is what the default recipe trains once as good as the same networks, each trained alone
for as many epochs, and what does it cost? Space mbv3-28, settings as a user gets them but 12
epochs; official test images.

    python benchmarks/training.py --out runs/bench-training --seeds 0,1,2
    python benchmarks/training.py --out runs/bench-training --table    what is there, no training
    python benchmarks/training.py cost --out runs/bench-training       step times (recipes/step.py)
    python benchmarks/training.py --quick                       digits and tiny, seconds
    python benchmarks/training.py ladder --out runs/ladder      recipes (recipes/ladder.py)
    python benchmarks/training.py step                          time of a step (recipes/step.py)
    python benchmarks/training.py ordered                       beside one of ordered dropout

Six networks are compared, chosen before anything is trained, so that neither side profits: the
smallest, the largest, and those of 4,000 random ones (small and large as a whole alike) that are
nearest to four marks between, in equal ratios of MACs. Alone each has the same images in the same
order, augmentation, epochs, schedule and BatchNorm calibration, and a rate tuned once, with the
first seed: the best of RATES for the smallest and the largest on validation images after a quarter
of the epochs. The last mile is an epoch of fine-tuning with the supernet's largest network as
teacher, by the settings of `hwnas finetune`. It takes images without augmentation, which helps any
network, so networks alone get such an epoch too, without a teacher: column "alone + epoch". With
`--plain N` the last N epochs of the supernet and of each network alone have none either; that needs
an --out of its own.

The best subnet, and the best at 25 % of the largest one's MACs, are the best on validation images
of a predicted front (error against MACs, by dynamic programming) and of those compared; they get a
last mile too. Networks to deploy lie along that front: every second of its networks is trained
alone as well and compared in the same way, with the largest one (part `front`). Each network
answers the test images when it is there; the answers of those compared meet their labels once, when
all are there, and so do the answers of those along the front. Gaps are paired by seed.

Each phase keeps its result in --out and is not repeated; a cut one goes on from its checkpoint.
The JSON files are all that a phase hands on, but for weights from `supernet` to `mile` and from
`alone` to `again`: other parts of a seed may run on another machine, if these files come along.
Seeds that another machine has finished count too: `--also FOLDER` names its --out.
CPU minutes of a seed on one core, from a few steps of each network timed on a busy machine
(AMD EPYC): supernet 55, six networks alone 85 (the largest 36), last mile 12, accuracies 5, along
the front 65; the rates 30, once. Seeds and parts may run beside each other (`--seeds 1 --parts
supernet,mile`); the part `rates` comes before `alone`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes import ladder, step, table, tested
from recipes.bench import FULL, QUICK, Bench, kept, timed

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors import fit
from hwnas.search import problem, searchers
from hwnas.settings.config import (
    FinetuneConfig,
    SearchConfig,
    TrainConfig,
)
from hwnas.supernet import evaluation, plan, training
from hwnas.supernet.files import load_subnet, save_subnet
from hwnas.supernet.network import Subnet, extract
from profilers.schema import canonical_json, read_json, sha256_file, write_json

PARTS = ("rates", "supernet", "alone", "mile", "again", "front", "test")


def main() -> None:
    others = {"ladder": ladder.main, "step": step.main, "cost": step.cost,
              "ordered": step.ordered_dropout}  # fmt: skip
    if sys.argv[1:] and sys.argv[1] in others:
        others[sys.argv.pop(1)]()
        return
    parser = argparse.ArgumentParser(description="subnets beside the same networks trained alone")
    parser.add_argument("--out", type=Path, help="folder that keeps the result of each phase")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="--out of other machines")
    parser.add_argument("--rate", type=float, help="of networks alone, where it was tuned before")
    parser.add_argument("--plain", type=int, default=0, help="last epochs without augmentation")
    parser.add_argument("--threads", type=int, default=1, help="0: as many as are fastest")
    parser.add_argument("--table", action="store_true", help="train nothing: show what is there")
    parser.add_argument("--quick", action="store_true", help="digits, tiny, one seed: seconds")
    given = parser.parse_args()
    setting = (QUICK if given.quick else FULL)._replace(plain=given.plain)
    seeds = [0] if given.quick else [int(seed) for seed in given.seeds.split(",")]
    parts = () if given.table else given.parts.split(",")
    if strange := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"unknown part {strange[0]!r} (known: {', '.join(PARTS)})")
    torch.set_num_threads(given.threads or torch.get_num_threads())
    out = given.out or Path(tempfile.mkdtemp(prefix="hwnas-bench-"))
    images = tensors.load(setting.data)
    space = spaces.load(setting.space).for_data(images.in_channels, images.n_classes)
    bench = Bench(setting, out, images, space, given.threads)
    compared = to_compare(space, setting.networks)
    if given.rate and not (out / "rates.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "rates.json", {"rate": given.rate, "validation": {}, "made_of": "given"})
    run(bench, compared, seeds, parts)
    if setting.cost_steps and not given.table:
        write_json(out / "cost.json", step.cost_of_supernet(setting.cost_steps, quick=True))
    table.show([out, *given.also], compared, setting._asdict())


def to_compare(space: SearchSpace, n: int) -> list[Architecture]:
    """Networks to compare, ascending MACs, chosen before anything is trained."""
    rng = np.random.default_rng(0)
    genome = plan.tilted_sample(space, {}, rng.uniform(-2, 2, 4000), rng)
    random = space.architectures(genome)
    macs = np.log([exact_costs(arch)["macs"] for arch in random])
    ends = [np.log(exact_costs(arch)["macs"]) for arch in (space.smallest, space.largest)]
    marks = np.linspace(*ends, n)[1:-1]
    between = [random[int(np.abs(macs - mark).argmin())] for mark in marks]
    return [space.smallest, *between, space.largest]


def run(bench: Bench, compared: list[Architecture], seeds: list[int], parts: list[str]) -> None:
    """Whatever of the parts is not there yet, one seed after the other."""
    if "rates" in parts:
        tune(bench, compared)
    for seed in seeds:
        if "supernet" in parts:
            train_supernet(bench, seed)
            front_points(bench, seed, compared)
        if "alone" in parts:
            for arch in compared:
                train_alone(bench, seed, arch)
        if "mile" in parts:
            for arch in dict.fromkeys([*compared, *chosen(bench, seed)]):
                finetune(bench, seed, arch)
        if "again" in parts:
            for arch in compared:
                train_again(bench, seed, arch)
        if "front" in parts:
            for arch in along_front(bench, seed):
                train_alone(bench, seed, arch)
            for arch in along_front(bench, seed):  # the supernet's weights may be elsewhere
                if not table.file_of(bench.folder(seed), "mile", arch, 0).exists():
                    finetune(bench, seed, arch)
        if "test" in parts:
            test(bench, seed, compared)


# ---- networks alone -----------------------------------------------------------------------------


def tune(bench: Bench, compared: list[Architecture]) -> None:
    """The rate that is best for the smallest and largest network together, unless it is given."""
    path = bench.out / "rates.json"
    if path.exists() and read_json(path)["made_of"] == "given":
        return
    folder, setting = bench.out / "rates", bench.setting
    ends, right = (compared[0], compared[-1]), {}
    for rate in setting.rates:
        settings = TrainConfig(epochs=setting.tried, learning_rate=rate)
        found = [alone(bench, settings, folder, arch) for arch in ends]
        right[f"{rate:g}"] = [result["validation"] for result in found]
    made_of = canonical_json([setting.rates, setting.tried, [arch.id for arch in ends]])
    best = max(right, key=lambda rate: sum(right[rate]))
    kept(path, made_of, lambda: {"rate": float(best), "validation": right})


def train_alone(bench: Bench, seed: int, arch: Architecture) -> dict[str, Any]:
    rate = rate_alone(bench)
    settings = bench.settings(seed).model_copy(update={"learning_rate": rate})
    return alone(bench, settings, bench.folder(seed), arch)


def weights_alone(bench: Bench, seed: int, arch: Architecture) -> Path:
    """The file that `train_alone` keeps a network's weights in."""
    result = table.file_of(bench.folder(seed), "alone", arch, rate_alone(bench))
    return result.with_suffix(".safetensors")


def rate_alone(bench: Bench) -> float:
    """The rate that networks alone are trained at."""
    path = bench.out / "rates.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there yet; `--parts rates` tunes the rate first")
    rate: float = read_json(path)["rate"]
    return rate


def alone(bench: Bench, settings: TrainConfig, folder: Path, arch: Architecture) -> dict[str, Any]:
    """Validation accuracy of a network that is trained alone; its weights are kept."""
    name = f"alone-{arch.id}-{settings.learning_rate:g}"
    job = bench.job(settings, folder / name)

    def work() -> dict[str, Any]:
        torch.manual_seed(settings.seed)  # of its first weights
        net, cost = timed(job, Subnet(arch))
        return {**keep(bench, net, folder / f"{name}.safetensors"), **cost}

    return kept(folder / f"{name}.json", job.identity(arch), work)


def keep(bench: Bench, net: Subnet, path: Path) -> dict[str, Any]:
    """Calibrate a network like a subnet of a supernet and keep it; its validation accuracy."""
    calibrated = judge(bench, training.Supernet(bench.space), "").calibrated(net)
    save_subnet(calibrated.cpu(), {}, path)
    validation = evaluation.metric_of(calibrated, bench.images, bench.images.val)
    return {"validation": validation, "answers": tested.answers(calibrated, bench.images)}


def judge(bench: Bench, supernet: training.Supernet, sha256: str) -> evaluation.Evaluator:
    return evaluation.Evaluator(supernet, bench.images, bench.setting.accuracy, sha256)


# ---- the supernet -------------------------------------------------------------------------------


def train_supernet(bench: Bench, seed: int) -> dict[str, Any]:
    settings = bench.settings(seed)
    job = bench.job(settings, bench.folder(seed) / "supernet")

    def work() -> dict[str, Any]:
        net, cost = timed(job, None)
        training.save_supernet(net, job, bench.folder(seed) / "supernet.safetensors")
        return {"rate": settings.learning_rate, **cost}

    return kept(bench.folder(seed) / "supernet.json", job.identity(None), work)


def trained(bench: Bench, seed: int) -> evaluation.Evaluator:
    """The supernet of a seed."""
    path = bench.folder(seed) / "supernet.safetensors"
    return judge(bench, training.load_supernet(path, bench.space), sha256_file(path))


def front_points(bench: Bench, seed: int, compared: list[Architecture]) -> dict[str, Any]:
    """Validation accuracy of networks along the predicted front and of those compared."""
    evaluator = trained(bench, seed)

    def work() -> dict[str, Any]:
        found = predicted_front(bench, seed, evaluator)
        chosen = [
            found[i] for i in np.linspace(0, len(found) - 1, bench.setting.points).astype(int)
        ]
        return {
            "points": [
                {
                    "id": arch.id,
                    "arch": arch.to_json(),
                    "macs": exact_costs(arch)["macs"],
                    "on_front": arch in chosen,
                    "validation": evaluator.measure(arch),
                    "answers": tested.answers(evaluator.subnet(arch), bench.images),
                }
                for arch in dict.fromkeys([*chosen, *compared])
            ]
        }

    about = [evaluator.supernet_sha256, bench.setting.accuracy.model_dump(mode="json")]
    made_of = canonical_json([*about, bench.setting.points, [arch.id for arch in compared]])
    return kept(bench.folder(seed) / table.POINTS, made_of, work)


def chosen(bench: Bench, seed: int) -> list[Architecture]:
    """The best subnet, and the best small one."""
    points = table.chosen(measured_points(bench, seed))
    return [bench.space.from_json(point["arch"]) for point in points]


def along_front(bench: Bench, seed: int) -> list[Architecture]:
    """Every second network of the predicted front, ascending MACs, and the largest of the space."""
    points = [point for point in measured_points(bench, seed) if point["on_front"]][::2]
    archs = [bench.space.from_json(point["arch"]) for point in points]
    return list(dict.fromkeys([*archs, bench.space.largest]))


def measured_points(bench: Bench, seed: int) -> list[dict[str, Any]]:
    """What `front_points` found."""
    path = bench.folder(seed) / table.POINTS
    if not path.exists():
        raise SystemExit(f"{path} is not there yet; `--parts supernet` makes it")
    points: list[dict[str, Any]] = read_json(path)["points"]
    return points


def predicted_front(bench: Bench, seed: int, evaluator: evaluation.Evaluator) -> list[Architecture]:
    """Ascending MACs; the predictor is fitted to a few measured subnets."""
    archs = evaluation.to_measure(bench.space, evaluator.config.measure, np.random.default_rng(0))
    path = bench.folder(seed) / "accuracy.jsonl"
    rows = list(evaluation.measure_all(archs, evaluator, path))
    fitted = fit.fit_predictor(bench.space, rows, 0, evaluator.supernet_sha256)
    metrics = problem.metrics_of(bench.space, error=fitted.metric(bench.space))
    wanted = SearchConfig(algorithm="dp", objectives=("error", "macs"))
    front = searchers.search(problem.make_problem(bench.space, wanted, metrics), wanted).front
    archs = bench.space.architectures(front.genome)
    return sorted(archs, key=lambda arch: exact_costs(arch)["macs"])


def finetune(bench: Bench, seed: int, arch: Architecture) -> dict[str, Any]:
    """Validation accuracy of a subnet after the last mile; its weights are kept."""
    evaluator, folder, name = trained(bench, seed), bench.folder(seed), f"mile-{arch.id}"
    settings = FinetuneConfig(epochs=1, seed=seed)
    job = bench.job(settings, folder / name, evaluator.supernet_sha256)

    def work() -> dict[str, Any]:
        largest = bench.space.architecture([arch.resolution, *bench.space.largest.values[1:]])
        net, teacher = (extract(evaluator.supernet, a) for a in (arch, largest))
        taught = training.Teacher(
            evaluator.calibrated(teacher).requires_grad_(False), settings.distill
        )
        net, cost = timed(job, evaluator.calibrated(net), taught)
        return {**keep(bench, net, folder / f"{name}.safetensors"), **cost}

    return kept(folder / f"{name}.json", job.identity(arch), work)


def train_again(bench: Bench, seed: int, arch: Architecture) -> dict[str, Any]:
    """A network alone after an epoch like the last mile; its weights are kept."""
    folder, name, start = bench.folder(seed), f"again-{arch.id}", weights_alone(bench, seed, arch)
    job = bench.job(FinetuneConfig(epochs=1, seed=seed), folder / name, sha256_file(start))

    def work() -> dict[str, Any]:
        net, cost = timed(job, load_subnet(start, arch)[0])
        return {**keep(bench, net, folder / f"{name}.safetensors"), **cost}

    return kept(folder / f"{name}.json", job.identity(arch), work)


# ---- test images --------------------------------------------------------------------------------


def test(bench: Bench, seed: int, compared: list[Architecture]) -> None:
    """Test accuracy of the networks compared, of the best subnet and of the best small one; and of
    those along the front.
    """
    if not (bench.out / "rates.json").exists():
        print(f"seed {seed}: no network was trained alone, so test images are not read")
        return
    if not (bench.folder(seed) / table.POINTS).exists():
        print(f"seed {seed}: no front is there, so test images are not read")
        return
    best, small = chosen(bench, seed)
    every = list(dict.fromkeys([*compared, best, small]))
    sides = {"supernet": every, "alone": compared, "mile": every, "again": compared}
    rate, picked = rate_alone(bench), {"best": best.id, "quarter": small.id}
    tested.keep(bench, seed, table.TEST, sides, rate, picked)
    front = along_front(bench, seed)
    sides = dict.fromkeys(("supernet", "alone", "mile"), front)
    told = {"macs": {arch.id: exact_costs(arch)["macs"] for arch in front}}
    tested.keep(bench, seed, table.FRONT_TEST, sides, rate, told)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from where it is", file=sys.stderr)
        sys.exit(130)
