"""Files of other tools that are damaged: measured subnets, networks, look-up tables, predictors."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutants import STRANGE

from faults import documents
from faults.documents import Document, Invariant, is_positive, is_share
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture
from hwnas.ofa import lookup_tables, net_config, predictor, results
from hwnas.ofa.dictionaries import to_dictionary
from hwnas.predictors import results as own
from hwnas.tables import table
from profilers.schema import canonical_json, target_from_name, write_json

W10, W12 = spaces.load("ofa-mbv3-w10"), spaces.load("ofa-mbv3-w12")
TINY = spaces.load("tiny")
TARGET = target_from_name("note10.tflite.fp32.b1.t1")
GENOME = W12.sample(50, np.random.default_rng(1))


# ---- measured subnets --------------------------------------------------------------------------


def subnets(folder: Path) -> list[Document]:
    """A CSV of DyNAS-T, once-for-all's `.dict`, and a CSV of ours."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    archs = [W10.random(rng) for _ in range(12)]
    top1 = [70 + n / 3 for n in range(12)]
    rows = [["Sub-network", "Date", "Model Parameters", "Latency (ms)", "MACs", "Top-1 Acc (%)"]]
    for arch, accuracy in zip(archs, top1, strict=True):
        given = to_dictionary(arch)
        costs = exact_costs(arch)
        words = repr({"wid": None, **given, "r": [given.pop("image_size")]})
        rows.append([words, "2022-07-07", costs["params"], 39.0, costs["macs"], accuracy])
    named = dict(zip(archs, top1, strict=True))
    few = TINY.architectures(TINY.sample(12, rng))
    mine = [["top1", "arch"], *([0.9 + n / 1000, _json(a)] for n, a in enumerate(few))]
    theirs, path, ours = folder / "r.csv", folder / "224.dict", folder / "ours.csv"
    write_json(path, {canonical_json(to_dictionary(a)): value for a, value in named.items()})
    known = {arch: value / 100 for arch, value in named.items()}
    own_known = {arch: 0.9 + n / 1000 for n, arch in enumerate(few)}
    read_json = lambda: _top1(results.read_results(path, W10))  # noqa: E731
    return [
        _of_rows(
            "CSV of DyNAS-T", theirs, rows, lambda: _top1(results.read_results(theirs, W10)), known
        ),
        documents.of_json(".dict of once-for-all", path, read_json, _subnets(known, True)),
        _of_rows(
            "CSV of subnets", ours, mine, lambda: _top1(results.read_results(ours, TINY)), own_known
        ),
    ]


def _json(arch: Architecture) -> str:
    return canonical_json(arch.to_json())


def _top1(found: list[own.Result]) -> dict[Architecture, float]:
    return {result.arch: result.top1 for result in found}


def _subnets(known: dict[Architecture, float], percent: bool) -> tuple[Invariant, ...]:
    """What must hold of one edit; that one of some fractions is too small cannot be known."""
    return (
        ("accuracies are shares", lambda f, g: all(map(is_share, f.values()))),
        (
            "of percents none is a fraction",
            lambda f, g: not percent or all(value > 0.01 for value in f.values()),
        ),
        ("at most two are others", lambda f, g: len(set(f.items()) - set(known.items())) <= 2),
        ("none is lost but the one", lambda f, g: len(f) >= len(known) - 1),
    )


def _of_rows(name: str, path: Path, rows: list[list[Any]], read: Any, known: Any) -> Document:
    """A CSV; one cell is edited, a row is gone or there twice, columns change places."""
    data = _csv(rows)

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        changed = [list(row) for row in rows]
        at, column = int(rng.integers(len(rows))), int(rng.integers(len(rows[0])))
        kind = int(rng.integers(6))
        if kind == 0:
            del changed[at][column]
        elif kind == 1:
            changed.insert(at, list(changed[at]))
        elif kind == 2:
            other = int(rng.integers(len(rows[0])))
            row = changed[at]
            row[column], row[other] = row[other], row[column]
        elif kind == 3 and isinstance(changed[at][column], (int, float)):
            changed[at][column] *= float(rng.choice([-1, 0.001, 0.01, 100, 1000]))
        elif kind == 4:
            cell = str(changed[at][column])
            changed[at][column] = cell[: int(rng.integers(len(cell)))]
        else:
            changed[at][column] = STRANGE[int(rng.integers(len(STRANGE)))][:2000]
        return _csv(changed), True

    path.write_bytes(data)
    return Document(
        name,
        data,
        True,
        path.write_bytes,
        read,
        _subnets(known, "%" in rows[0][-1]),
        edit,
        lambda data: True,
        0.1,
    )


def _csv(rows: list[list[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "replace")


# ---- networks ----------------------------------------------------------------------------------


def networks(folder: Path) -> list[Document]:
    """The `net.config` of a specialised network."""
    arch = W10.random(np.random.default_rng(3))
    blank = {"blocks": [{"conv": {"mid_channels": 0}} for slot, *_ in arch.ops if "stage" in slot]}
    config = net_config._wanted(arch, blank)
    config["blocks"] = list(config["blocks"].values())
    path = folder / "net.config"
    write_json(path, config)
    write_json(folder / "run.config", {"image_size": arch.resolution})
    invariants: tuple[Invariant, ...] = (
        (
            "it has the parameters and MACs of the file's numbers",
            lambda f, g: (
                _counted(g, f.resolution)
                == tuple(exact_costs(f)[name] for name in ("params", "macs"))
            ),
        ),
        ("its residuals are those of the file", lambda f, g: _residuals(f) == _shortcuts(g)),
    )
    return [
        documents.of_json(
            "net.config", path, lambda: net_config.read_net_config(folder, W10), invariants
        )
    ]


def _residuals(arch: Architecture) -> list[bool]:
    return [op["residual"] for slot, op, *_ in arch.ops if "stage" in slot]


def _shortcuts(config: dict[str, Any]) -> list[bool]:
    return [block.get("shortcut") is not None for block in config["blocks"]]


def _counted(config: dict[str, Any], size: int) -> tuple[int, int]:
    """Parameters and MACs by the numbers of a file alone."""
    params = macs = 0

    def conv(layer: dict[str, Any], groups: int = 1, norm: bool = True) -> None:
        nonlocal params, macs, size
        size = (size - 1) // layer["stride"] + 1
        weights = layer["in_channels"] // groups * layer["out_channels"] * layer["kernel_size"] ** 2
        params += weights + 2 * layer["out_channels"] * norm
        macs += weights * size**2

    conv(config["first_conv"], config["first_conv"].get("groups", 1))
    for block in config["blocks"]:
        layer = block["conv"]
        mid = layer["mid_channels"] or layer["in_channels"] * layer["expand_ratio"]
        point = {"kernel_size": 1, "stride": 1}
        if layer["expand_ratio"] != 1:
            conv({**point, "in_channels": layer["in_channels"], "out_channels": mid})
        conv({**layer, "in_channels": mid, "out_channels": mid}, mid)
        if layer["use_se"]:
            hidden = max(8, int(mid // 4 + 4) // 8 * 8)
            params += 2 * mid * hidden + mid + hidden
            macs += 2 * mid * hidden
        conv({**point, "in_channels": mid, "out_channels": layer["out_channels"]})
    conv(config["final_expand_layer"], config["final_expand_layer"].get("groups", 1))
    mix, last = config["feature_mix_layer"], config["classifier"]
    for weights in (
        mix["in_channels"] * mix["out_channels"],
        last["in_features"] * last["out_features"],
    ):
        params, macs = params + weights, macs + weights
    return params + last["out_features"], macs


# ---- look-up tables and predictors -------------------------------------------------------------


def look_up(folder: Path) -> list[Document]:
    """A latency table of once-for-all."""
    keys = lookup_tables.keys_of(W12.restricted([224]))
    costs = {key: 0.05 + n / 100 for n, key in enumerate(keys.values())}
    path = folder / "224_lookup_table.yaml"
    value = {key: {"count": 50, "mean": mean, "std": 0.01} for key, mean in costs.items()}
    write_json(path, value)
    largest = W12.restricted([224]).largest
    invariants: tuple[Invariant, ...] = (
        ("every row is above 0", lambda f, g: all(map(_is_row, f.rows.values()))),
        ("a row is the file's", lambda f, g: all(_is_mean(f, g, *pair) for pair in keys.items())),
        (
            "the max network takes what a device may take",
            lambda f, g: 1 < table.network_latency(f, largest) < 20_000,
        ),
    )
    return [documents.of_yaml("look-up table", path, lambda: _look_up(path), invariants)]


def _look_up(path: Path) -> table.CostTable:
    return lookup_tables.import_tables([path], W12.name, TARGET)


def _is_row(row: dict[str, Any]) -> bool:
    return is_positive(row["latency_ms"]) and (row["spread_ms"] is None or row["spread_ms"] >= 0)


def _is_mean(found: table.CostTable, given: Any, op: str, key: str) -> bool:
    return bool(found.rows[op]["latency_ms"] == given[key]["mean"])


def predictors(folder: Path) -> list[Document]:
    """The tutorial's accuracy predictor."""
    torch.manual_seed(0)
    sizes = (128, 16, 16, 16, 1)
    state = {}
    for n, (a, b) in enumerate(itertools.pairwise(sizes)):
        layer = torch.nn.Linear(a, b)
        state |= {f"{2 * n}.weight": layer.weight.data, f"{2 * n}.bias": layer.bias.data}
    state["6.bias"] += 0.7
    folder.mkdir(parents=True)
    path = folder / "acc_predictor.pth"
    torch.save(state, path)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        changed = documents.edited_arrays(arrays, rng)
        torch.save(
            {
                n: torch.from_numpy(a) if a.dtype.kind in "fi" else str(a)
                for n, a in changed.items()
            },
            path,
        )
        return path.read_bytes(), True

    invariants: tuple[Invariant, ...] = (
        ("errors are shares", lambda f, g: all(0 <= e <= 1 for e in f.uncut(GENOME).tolist())),
        ("errors differ", lambda f, g: np.ptp(f.uncut(GENOME)) > 1e-6),
    )
    data = path.read_bytes()
    read = lambda: predictor.import_predictor(path, W12)  # noqa: E731
    return [
        Document(
            "acc_predictor.pth",
            data,
            True,
            path.write_bytes,
            read,
            invariants,
            edit,
            lambda data: True,
        )
    ]


KINDS = (subnets, networks, look_up, predictors)
