"""Files of a run and of its user: measurements, fronts, packages, predictors, settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from campaigns import World, simulate
from search_cases import problem

from faults import documents
from faults.documents import Document, Invariant, is_count, is_finite, is_positive, is_share, same
from hwnas.measuring import kit as kits
from hwnas.measuring import records
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.predictors import fit, mlp, nonlinear, predictor, trees_and_kernels
from hwnas.predictors.encoding import feature_names
from hwnas.report import baselines
from hwnas.run import card, package
from hwnas.run.folder import STAMP_FORMAT, _read_stamp
from hwnas.search import front, searchers
from hwnas.settings import config_file
from hwnas.settings.config import ProfileConfig, SearchConfig
from hwnas.settings.targets import load_target
from hwnas.supernet import evaluation
from hwnas.supernet import header as supernet_file
from hwnas.tables import observations
from hwnas.tasks import classification
from profilers.schema import append_lines, sha256_text, target_from_name, write_json

TINY = spaces.load("tiny")
SMALL = TINY.restricted([8])
TARGET = "host.fake.fp32.b1.t1"
HASH = "ab" * 32


# ---- measurements ------------------------------------------------------------------------------


def measurements(folder: Path) -> list[Document]:
    """The measurements of a kit, and the kit."""
    settings = ProfileConfig(heldout=30)
    info = kits.make_kit(SMALL, folder / "kit", 1, settings)
    header, found = simulate(info.kit, World(rounds=6))
    path = folder / "m.jsonl"
    append_lines(path, [header, *found])

    def read() -> Any:
        header, lines, _ = records.read_log(path)
        whole = [line for line in lines if records.is_record(line, header["kit"])]
        return header, whole, observations.observe(info.kit, whole)

    def read_kit() -> Any:
        read_back = kits.load_kit(info.folder)
        return read_back, kits.space_of(read_back.kit)

    kit_path = info.folder / "kit.json"
    return [
        documents.of_lines("measurements", path, read, MEASUREMENTS),
        documents.of_json("kit", kit_path, read_kit, KIT),
    ]


def _record_is_sane(record: dict[str, Any]) -> bool:
    profile = [ms for _, ms in record.get("profile", [])]
    ms = record.get("ms", 1.0)
    return is_positive(ms) and all(is_finite(ms) and ms >= 0 for ms in profile)


def _observed_is_sane(seen: Any) -> bool:
    values = (seen.fitted.latency_ms, seen.heldout.latency_ms, seen.again_ms, seen.alone_ms)
    return all(bool(np.isfinite(v).all() and (v > 0).all()) for v in values)


MEASUREMENTS: tuple[Invariant, ...] = (
    ("the target's name is made of its parts", lambda f, g: documents.names_itself(f[0]["target"])),
    ("every record is finite and above 0", lambda f, g: all(map(_record_is_sane, f[1]))),
    ("what is fitted is finite and above 0", lambda f, g: _observed_is_sane(f[2])),
)
KIT: tuple[Invariant, ...] = (
    ("it holds what the file says", lambda f, g: same(f[0].kit, g)),
    (
        "no file is outside its folder",
        lambda f, g: not any("/" in item["file"] for item in f[0].kit["items"]),
    ),
    ("its space is that of its geometry", lambda f, g: f[1].geometry == f[0].kit["geometry"]),
    ("its batch is positive", lambda f, g: f[0].kit["batch"] > 0),
)


# ---- fronts and packages -----------------------------------------------------------------------


def fronts(folder: Path) -> list[Document]:
    """The exact front of a small space."""
    case, settings = problem(), SearchConfig(algorithm="dp", seed=7)
    hashes = dict.fromkeys(("table", "predictor", "supernet"), HASH)
    made = front.make_front(TARGET, case, searchers.search(case, settings), settings, hashes)
    path = folder / "front.json"
    front.save(made, path)
    read = documents.of_json(
        "front", path, lambda: front.load(path, case.space), FRONT, is_signed=True
    )
    return [read]


def _point_is_sane(point: Any) -> bool:
    values = [point.predicted, *([point.measured] if point.measured is not None else [])]
    numbers = all(is_finite(v) and v >= 0 for named in values for v in named.values())
    return numbers and all(is_share(named.get("error", 0.5)) for named in values)


def _front_content(found: front.Front) -> dict[str, Any]:
    content = front.to_json(found)
    return {**content, "sha256": sha256_text(documents.canonical_json(content))}


FRONT: tuple[Invariant, ...] = (
    ("it holds what the file says, no key more or less", lambda f, g: same(_front_content(f), g)),
    ("every point is finite, its error a share", lambda f, g: all(map(_point_is_sane, f.points))),
    (
        "objectives are metrics of every point",
        lambda f, g: all(set(f.objectives) <= set(point.predicted) for point in f.points),
    ),
    (
        "the reference point is of the objectives and positive",
        lambda f, g: (
            len(f.reference_point) == len(f.objectives) and all(map(is_positive, f.reference_point))
        ),
    ),
    (
        "hypervolume and evaluations are",
        lambda f, g: f.hypervolume >= 0 and is_count(f.evaluations),
    ),
    (
        "the max network's metrics are positive",
        lambda f, g: all(is_positive(v) or n == "error" for n, v in f.max_network.items()),
    ),
    ("the settings are settings", lambda f, g: bool(SearchConfig(**f.settings))),
    ("every network is there once", lambda f, g: len({p.id for p in f.points}) == len(f.points)),
)


def packages(folder: Path) -> list[Document]:
    """The manifest of a package."""
    arch = SMALL.largest
    metrics = {"latency_ms": 0.1, "error": 0.02, "macs": 1000, "params": 100}
    target = target_from_name(TARGET).to_json()
    accuracy = {"test_accuracy": 0.97, "test_images": 359, "accuracy_on": "target"}
    manifest = {
        **{"name": "best", "id": arch.id, "space": "tiny", "made_of": HASH},
        "model": package.MODEL,
        "classes": ["cat", "dog"],
        "task": {"name": "classification", "metric": "top-1 accuracy"},
        "architecture": arch.to_json(),
        "input": {"name": "image", "shape": [1, 8, 8], "size": 8, "scale": "", "resize": "none"},
        "target": target,
        "budgets": {"latency_ms": 0.2},
        "predicted": {**metrics, "weight_bytes": 400, "peak_activation_bytes": 256},
        "measured": {"latency_ms": 0.11, "median_ms": 0.12, **accuracy},
        **{"parity": {"max_relative_difference": 1e-6}, "settings": {}, "accepted": []},
    }
    folder.mkdir(parents=True)
    (folder / package.MODEL).write_bytes(b"onnx")
    package.write_manifest(folder, manifest)
    path = folder / package.MANIFEST
    return [documents.of_json("manifest", path, lambda: package.read_manifest(folder), MANIFEST)]


def _manifest_is_sane(found: dict[str, Any]) -> bool:
    known = [found["predicted"], *([found["measured"]] if found["measured"] else [])]
    shares = [named[key] for named in known for key in ("error", "test_accuracy") if key in named]
    values = [value for named in known for value in named.values()]
    numbers = [value for value in values if value is not None and not isinstance(value, str)]
    fine = all(share is None or is_share(share) for share in shares)
    return fine and all(is_finite(number) and number >= 0 for number in numbers)


MANIFEST: tuple[Invariant, ...] = (
    ("it holds what the file says", lambda f, g: same(f, g)),
    ("predicted and measured can be", lambda f, g: _manifest_is_sane(f)),
    ("budgets are positive", lambda f, g: all(map(is_positive, f["budgets"].values()))),
    (
        "the network is the one it is named after",
        lambda f, g: SMALL.from_json(f["architecture"]).id == f["id"],
    ),
    ("the card can be written", lambda f, g: bool(card.model_card(f))),
)


# ---- accuracy ----------------------------------------------------------------------------------


def accuracies(folder: Path) -> list[Document]:
    """Subnets that were measured."""
    archs = SMALL.architectures(SMALL.sample(10, np.random.default_rng(0)))
    stub: Any = SimpleNamespace(
        validation=range(100),
        supernet_sha256=HASH,
        config=SimpleNamespace(bn_images=64, seed=0),
        dataset=SimpleNamespace(fingerprint="f", task=classification.TASK),
        supernet=SimpleNamespace(space=SMALL),
        how={},
    )
    conditions = evaluation._conditions(stub)
    path = folder / "accuracy.jsonl"
    rows = [
        {"arch": a.to_json(), "accuracy": 0.9 + n / 1000, **conditions} for n, a in enumerate(archs)
    ]
    append_lines(path, rows)
    known = {arch: 0.9 + n / 1000 for n, arch in enumerate(archs)}
    invariants: tuple[Invariant, ...] = (
        ("accuracies are shares", lambda f, g: all(map(is_share, f.accuracy.values()))),
        (
            "at most one is another",
            lambda f, g: len(set(f.accuracy.items()) - set(known.items())) <= 1,
        ),
    )
    return [
        documents.of_lines(
            "accuracies", path, lambda: evaluation.read_accuracies(path, stub), invariants
        )
    ]


def predictors(folder: Path) -> list[Document]:
    """A predictor of each kind."""
    rng = np.random.default_rng(0)
    features = feature_names(SMALL)
    archs = SMALL.architectures(SMALL.sample(60, rng))
    rows = {arch: 0.8 + exact_costs(arch)["macs"] / 1e7 for arch in archs}
    width = len(features)
    layers = [(rng.random((width, 8)), np.zeros(8)), (rng.random((8, 1)) / 100, np.full(1, 0.5))]
    plain = tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in layers)
    trees = trees_and_kernels.Trees(
        *(
            np.array(v)
            for v in ([0], [5, -1, -1], [0.5, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0.1, 0.2])
        ),
        base=0.1,
    )
    bells = trees_and_kernels.Expansion(rng.random((5, width)), rng.random(5) / 50, 0.1, 0.2)
    scores = {"n": 60.0, "rmse": 0.01}
    kinds: dict[str, Any] = {
        "additive": fit.fit_predictor(SMALL, rows.items(), 0, HASH),
        "mlp": mlp.MlpPredictor(SMALL, HASH, features, plain, "a file"),
    }
    for name, body in (("trees", trees), ("kernel", bells)):
        kinds[name] = nonlinear.NonlinearPredictor(
            SMALL, HASH, features, body, "a fit", 0.01, scores
        )
    return [_predictor(folder / f"{name}.npz", name, made) for name, made in kinds.items()]


def _predictor(path: Path, name: str, made: Any) -> Document:
    predictor.save(made, path)
    genome = SMALL.sample(50, np.random.default_rng(1))
    invariants: tuple[Invariant, ...] = (
        ("errors are shares", lambda f, g: all(map(is_share, f.predict(genome).tolist()))),
        ("those of layers differ", lambda f, g: name != "mlp" or np.ptp(f.predict(genome)) > 0),
        ("its spread is no nonsense", lambda f, g: getattr(f, "residual_spread", 0) >= 0),
    )
    return documents.of_arrays(
        f"predictor, {name}", path, lambda: predictor.load(path, SMALL), invariants
    )


# ---- the user's --------------------------------------------------------------------------------


def settings(folder: Path) -> list[Document]:
    """hwnas.yaml, and the file of a target."""
    path = folder / "hwnas.yaml"
    value = {
        "run": "runs/x",
        "data": {"kind": "digits"},
        "space": {"name": "tiny", "resolutions": [8, 16]},
        "train": {"epochs": 20, "seed": 0},
        "accuracy": {"measure": 150},
        "targets": [TARGET],
        "search": {"algorithm": "nsga2", "budgets": {"latency_ms": 40}},
        "pick": [{"rule": "knee"}, {"budget": {"latency_ms": "60%"}}],
        "check": {"min_accuracy": 0.9},
    }
    write_json(path, value)
    name = "board.ort-cpu.fp32.b1.t1"
    target_path = folder / "targets" / f"{name}.yaml"
    target = {"device": "board", "runtime": "ort-cpu", "batch": 1, "threads": 1, "meter": "hwmon"}
    target |= {"meter_options": {"rails": "VDD_IN"}, "connection": {"ssh": "pi@board"}}
    write_json(target_path, {**target, "plugins": [], "hardware": "raspberry-pi"})
    return [
        documents.of_yaml("settings", path, lambda: config_file.load_config(path), SETTINGS),
        documents.of_yaml("target", target_path, lambda: load_target(name, folder), TARGETS),
    ]


def _holds(found: Any, given: Any) -> bool:
    """Whether settings hold what a file says, where it says something; no word counts as number."""
    if isinstance(given, dict):
        return all(name in found and _holds(found[name], value) for name, value in given.items())
    if isinstance(given, list):
        return len(found) == len(given) and all(map(_holds, found, given))
    return (type(given) is type(found) and given == found) or (is_finite(given) and given == found)


def _budgets(found: Any) -> list[Any]:
    picked = [value for rule in found.pick for value in rule.budget.values()]
    return [*found.search.budgets.values(), *picked]


def _is_budget(value: Any) -> bool:
    if isinstance(value, str) and value.endswith("%"):
        return 0 < float(value[:-1]) <= 100
    return is_positive(value)


SETTINGS: tuple[Invariant, ...] = (
    (
        "they hold what the file says",
        lambda f, g: _holds(f.model_dump(mode="json"), {k: v for k, v in g.items() if v != {}}),
    ),
    ("budgets are positive", lambda f, g: all(map(_is_budget, _budgets(f)))),
    (
        "resolutions are positive",
        lambda f, g: all(type(px) is int and px > 0 for px in f.space.resolutions),
    ),
    ("targets differ", lambda f, g: len(set(f.targets)) == len(f.targets)),
)
TARGETS: tuple[Invariant, ...] = (
    ("it is the target it is named after", lambda f, g: f.name == "board.ort-cpu.fp32.b1.t1"),
    ("it holds what the file says", lambda f, g: _holds(f.to_json(), g)),
    (
        "options are words and numbers, plug-ins words",
        lambda f, g: (
            all(isinstance(v, str) or is_finite(v) for v in f.meter_options.values())
            and all(isinstance(v, str) for v in f.plugins)
        ),
    ),
)


def others(folder: Path) -> list[Document]:
    """The header of a supernet, baselines, a stamp."""
    about = {"format": "hwnas-supernet-1", "space": "tiny", "classes": ["a", "b"]}
    text = documents.canonical_json(
        {"__metadata__": {"hwnas": documents.canonical_json(about)}, "w": {"shape": [1]}}
    ).encode()
    header = folder / "supernet.safetensors"
    folder.mkdir(parents=True)
    header.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    model = {"file": "own.onnx", "size_bytes": 10, "resident_bytes": 20, "sustained": None}
    model |= dict.fromkeys(baselines.NUMBERS, 1.0)
    kept = folder / "baselines" / "own.json"
    write_json(kept, {"format": "hwnas-baselines-1", "target": {"name": "t"}, "models": [model]})
    stamp = folder / "stamp.json"
    made = {"version": 1, "inputs": {"data": HASH}, "versions": {"torch": "2.6"}}
    write_json(stamp, {"format": STAMP_FORMAT, **made, "outputs": {"x": HASH}})
    whole = header.read_bytes()
    return [
        Document(
            "header of a supernet",
            *(whole, about, header.write_bytes, lambda: supernet_file.read_header(header)),
            (("it is an object", lambda f, g: isinstance(f, dict)),),
            None,
            lambda data: about if data == whole else None,
        ),
        documents.of_json("baselines", kept, lambda: _read_baselines(kept), BASELINES),
        documents.of_json("stamp", stamp, lambda: _read_stamp(stamp), STAMP),
    ]


def _read_baselines(path: Path) -> Any:
    missing: list[str] = []
    return baselines.read_baselines(path.parent, missing), missing


def _model_is_sane(model: dict[str, Any]) -> bool:
    sizes = is_count(model["size_bytes"]) and is_count(model["resident_bytes"])
    return sizes and all(is_positive(model[name]) for name in baselines.NUMBERS)


BASELINES: tuple[Invariant, ...] = (
    (
        "every model has times and sizes",
        lambda f, g: all(_model_is_sane(model) for models in f[0].values() for model in models),
    ),
    ("they are read, or it is said why not", lambda f, g: bool(f[0]) != bool(f[1])),
)
STAMP: tuple[Invariant, ...] = (
    ("its outputs are hashes", lambda f, g: not f or all(map(_is_hash, f["outputs"].values()))),
    ("its versions can be compared", lambda f, g: not f or isinstance(f["versions"], dict)),
)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


KINDS = (measurements, fronts, packages, accuracies, predictors, settings, others)
