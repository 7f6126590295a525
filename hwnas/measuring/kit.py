"""Kits: the networks and micro-models that a device times, as a flat folder of graphs.

`kit.json` says what is in it; weights are external data in a `weights.bin` that the device makes
itself from the seed, so a kit is small whatever its weights weigh. Same space, settings and seed:
same bytes. Format: docs/formats.md, "Kit".
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import coverage
from hwnas.measuring.kit_file import KIT_FILE, kit_hash, read_kit_file
from hwnas.networks import onnx_graph, spaces
from hwnas.networks.graph import INPUTS
from hwnas.networks.ops import Op, parse_key
from hwnas.networks.primitives import BENDS, GATES, Primitive
from hwnas.networks.space import Architecture, PlacedOp, SearchSpace
from hwnas.settings.config import ProfileConfig
from profilers import schema, weights
from profilers.errors import ConfigError, FileFormatError

ALIGNMENT = 64  # bytes between the starts of weight tensors, a cache line
COVERING_REPEATS = 3  # networks an op occurs in at least, where one resolution is measured ...
COVERING_REPEATS_MANY = 2  # ... and where several are
CALIBRATION = (
    20  # networks of a kit, at least: 10 more cost 8 % of the time, save 15 % of the error
)
CALIBRATION_EACH = 6  # networks of each resolution, at least
RESIDUAL_GAIN = 0.25  # of the variance of what a residual block adds to its input


@dataclass(frozen=True)
class KitInfo:
    """A kit on disk: its folder, its content and the hash of that content."""

    folder: Path
    kit: dict[str, Any]
    hash: str

    @property
    def is_there(self) -> bool:
        """Whether the folder holds this very kit, every file of it whole."""
        try:
            if load_kit(self.folder).hash != self.hash:
                return False
            return all(
                schema.sha256_file(self.folder / item["file"]) == item["sha256"]
                for item in self.kit["items"]
            )
        except (FileFormatError, OSError):
            return False

    def counts(self) -> dict[str, int]:
        """How many items there are of each role."""
        roles = [item["role"] for item in self.kit["items"]]
        return {role: roles.count(role) for role in sorted(set(roles))}


class _Item(NamedTuple):
    """What one model of the kit is made of."""

    role: str
    resolution: int
    ops: tuple[PlacedOp, ...]
    arch: Architecture | None


class _Region(NamedTuple):
    """Where a tensor of one shape lies in `weights.bin` and how large its values are."""

    offset: int
    shape: tuple[int, ...]
    scale: float


_Regions = dict[tuple[str, tuple[int, ...]], _Region]


def make_kit(space: SearchSpace, folder: Path, batch: int, settings: ProfileConfig) -> KitInfo:
    """Write the kit of a space, or find that it is already there.

    The folder appears whole or not at all; a kit of other settings in it is replaced.

    Args:
        space: already restricted to the resolutions to measure.
        folder: where the kit goes.
        batch: images of one inference.
        settings: number of held-out networks, and the seed.

    Raises:
        ConfigError: the space is too small for that many held-out networks, or the folder holds
            something else than a kit.
    """
    info, models = plan_kit(space, folder, batch, settings)
    if not info.is_there:
        _write(info, models)
    return info


def plan_kit(
    space: SearchSpace, folder: Path, batch: int, settings: ProfileConfig
) -> tuple[KitInfo, dict[str, bytes]]:
    """The kit that `make_kit` writes, and the bytes of its models; nothing is written."""
    items = _plan(space, settings)
    regions = _regions(items)
    models = {
        f"{name}.onnx": _model_bytes(item, regions, batch) for name, item in _named(items).items()
    }
    kit = _describe(space, items, regions, batch, settings.seed)
    for entry in kit["items"]:
        entry["sha256"] = hashlib.sha256(models[entry["file"]]).hexdigest()
    return KitInfo(Path(folder), kit, kit_hash(kit)), models


def load_kit(folder: Path) -> KitInfo:
    """The kit of a folder.

    Raises:
        FileFormatError: `kit.json` is missing, damaged or of another kind.
    """
    kit = read_kit_file(folder)
    return KitInfo(Path(folder), kit, kit_hash(kit))


def space_of(kit: dict[str, Any], name: str = "") -> SearchSpace:
    """The space that a kit was made for, at the kit's resolutions, channels and classes.

    Args:
        kit: content of `kit.json`.
        name: of the space, `module:NAME`, or a `space.json`; the one the kit names if empty.

    Raises:
        ConfigError: no such space, or the kit holds no whole network of it.
    """
    whole = next((item for item in kit["items"] if item["arch"]), None)
    if whole is None:
        raise ConfigError(f"the kit of space {kit['space']} holds no whole network; make it again")
    space = spaces.load(name or kit["space"]).for_data(*_channels_and_classes(whole))
    if space.geometry != kit["geometry"]:
        raise ConfigError(f"the kit of space {kit['space']} is of another geometry; make it again")
    return space.restricted(item["resolution"] for item in kit["items"])


class Recipe(NamedTuple):
    """What a kit is made from, and the hash that it then has."""

    space: str
    in_channels: int
    classes: int
    resolutions: list[int]
    batch: int
    heldout: int
    seed: int
    hash: str


def kit_recipe(kit: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the kit again, as plain values: the fields of `Recipe`.

    Args:
        kit: content of `kit.json`.
    """
    whole = next(item for item in kit["items"] if item["arch"])
    return Recipe(
        kit["space"],
        *_channels_and_classes(whole),
        sorted({item["resolution"] for item in kit["items"]}),
        kit["batch"],
        sum(item["role"] == "heldout" for item in kit["items"]),
        kit["seed"],
        kit_hash(kit),
    )._asdict()


def _channels_and_classes(whole: Mapping[str, Any]) -> tuple[int, int]:
    """What a kit's network takes and gives."""
    first, last = (parse_key(whole["ops"][at]["key"]) for at in (0, -1))
    return first.inputs[0][0], last.shape[0]


def remake_kit(recipe: Mapping[str, Any], folder: Path, name: str = "") -> KitInfo:
    """The kit of a recipe, made again in a folder; of the space of a name, as in `space_of`.

    Raises:
        ConfigError: the recipe is not complete, its space is unknown, or another kit comes out of
            it: it was made by another version of hwnas.
    """
    try:
        wanted = Recipe(**recipe)
        space = spaces.load(name or wanted.space)
        space = space.for_data(wanted.in_channels, wanted.classes)
        settings = ProfileConfig(heldout=wanted.heldout, seed=wanted.seed)
        info = make_kit(space.restricted(wanted.resolutions), folder, wanted.batch, settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"kit cannot be made again from {dict(recipe)}: {error}") from None
    if info.hash != wanted.hash:
        raise ConfigError(
            f"kit {wanted.hash[:12]} cannot be made again: this version of hwnas makes "
            f"{info.hash[:12]} of the same settings; name the folder of the old one with --kit"
        )
    return info


def _plan(space: SearchSpace, settings: ProfileConfig) -> list[_Item]:
    """Every model of the kit. Each role has its own random stream, so one role's size does not
    change another's networks.
    """
    sizes = space.resolutions

    def stream(role: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, role])

    repeats = COVERING_REPEATS if len(sizes) == 1 else COVERING_REPEATS_MANY
    rng = stream(0)
    covering = [arch for size in sizes for arch in coverage.covering(space, size, repeats, rng)]
    n_calibration = max(CALIBRATION, CALIBRATION_EACH * len(sizes))
    taken = list(covering)
    chosen = {"covering": covering}
    for number, (role, n) in enumerate(
        (("calibration", n_calibration), ("heldout", settings.heldout)), start=1
    ):
        deal = coverage.share_out(n, sizes)
        chosen[role] = coverage.stratified(space, deal, taken, stream(number))
        taken += chosen[role]
    middle = sizes[len(sizes) // 2]
    chosen["anchor"] = [coverage.middling(space, middle, taken, stream(3))]
    networks = [
        _Item(role, arch.resolution, arch.ops, arch)
        for role, archs in chosen.items()
        for arch in archs
    ]
    return networks + _micro(space)


def _micro(space: SearchSpace) -> list[_Item]:
    out, found = [], set()
    for size in space.resolutions:
        for key, op in coverage.distinct_ops(space.restricted([size])).items():
            if key not in found:
                found.add(key)
                out.append(_Item("micro", size, (op,), None))
    return out


def _named(items: Iterable[_Item]) -> dict[str, _Item]:
    """The items by name: role and number within the role."""
    seen: dict[str, int] = {}
    out = {}
    for item in items:
        number = seen.get(item.role, 0)
        seen[item.role] = number + 1
        out[f"{item.role}-{number:03d}"] = item
    return out


def _describe(
    space: SearchSpace, items: Sequence[_Item], regions: _Regions, batch: int, seed: int
) -> dict[str, Any]:
    """The content of `kit.json`, the hashes of the graphs excepted."""
    return {
        "format": schema.KIT_FORMAT,
        "space": space.name,
        "geometry": space.geometry,
        "offered": space.offered(),
        "batch": batch,
        "precision": "fp32",
        "seed": seed,
        "items": [_entry(name, item, batch) for name, item in _named(items).items()],
        "weights": _weights_table(regions, seed),
    }


def _entry(name: str, item: _Item, batch: int) -> dict[str, Any]:
    return {
        "name": name,
        "file": f"{name}.onnx",
        "role": item.role,
        "arch": item.arch.to_json() if item.arch else None,
        "resolution": item.resolution,
        "ops": [{"slot": placed.slot, "key": placed.op.key} for placed in item.ops],
        "inputs": {name: [batch, *shape] for name, shape in onnx_graph.inputs_of(item.ops).items()},
    }


# ---- weights -----------------------------------------------------------------------------------


def _regions(items: Iterable[_Item]) -> _Regions:
    """One region for each tensor name and shape, in their order, aligned, without overlap."""
    scales = {
        (weight.name, weight.shape): scale(placed.op, weight)
        for placed in {placed for item in items for placed in item.ops}
        for weight in onnx_graph.weights_of([placed])
    }
    out, offset = {}, 0
    for name, shape in sorted(scales):
        out[name, shape] = _Region(offset, shape, scales[name, shape])
        size = 4 * math.prod(shape)
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return out


def scale(op: Op, weight: onnx_graph.Weight) -> float:
    """Largest value of a weight tensor, uniform in [-scale, scale]; 0 for what is added. Factors
    keep the variance.

    Kaiming He's rule (2015, "Delving deep into rectifiers", sec. 2.2) keeps the variance: gain 2
    before an activation, 1 else. A gate is about 1/2, so what follows a product with one makes up
    for a quarter of the variance. What an op adds to its own input is little, or the sum would grow
    from op to op.
    """
    if weight.name.endswith(("/factor", "/scale")):
        return math.sqrt(3)
    if not weight.fan_in:
        return 0.0
    made = {p.name: p for p in op.graph.primitives}
    this = made[weight.name.split("/")[-2].removesuffix("_product")]
    readers = _readers(op, this)
    gain = 2.0 if any(p.kind in BENDS for p in readers) else 1.0
    source = made.get(this.inputs[0])
    if (
        source
        and source.kind == "mul"
        and any(made[n].kind in GATES for n in source.inputs if n in made)
    ):
        gain *= 4.0
    if any(p.kind == "add" and set(p.inputs) & set(INPUTS) for p in readers):
        gain *= RESIDUAL_GAIN
    return math.sqrt(3 * gain / weight.fan_in)


def _readers(op: Op, source: Primitive) -> list[Primitive]:
    """What reads a primitive's output, through its norm."""
    found = [p for p in op.graph.primitives if source.name in p.inputs]
    return [
        reader for p in found for reader in (_readers(op, p) if p.kind.endswith("_norm") else [p])
    ]


def _weights_table(regions: _Regions, seed: int) -> dict[str, Any]:
    """The `weights` of `kit.json`: size, hash and regions of the file the device will make."""
    tensors: dict[str, list[Any]] = {}
    for (name, _), region in regions.items():
        tensors.setdefault(name, []).append([region.offset, list(region.shape), region.scale])
    last = max(regions.values(), key=lambda region: region.offset)
    size = last.offset + -(-4 * math.prod(last.shape) // ALIGNMENT) * ALIGNMENT
    table = {"bytes": size, "tensors": tensors}
    return {**table, "sha256": weights.digest(table, seed)}


def _model_bytes(item: _Item, regions: _Regions, batch: int) -> bytes:
    offsets = {
        weight.name: regions[weight.name, weight.shape].offset
        for weight in onnx_graph.weights_of(item.ops)
    }
    return onnx_graph.to_bytes(onnx_graph.build_external(item.ops, offsets, batch))


# ---- files -------------------------------------------------------------------------------------


def _write(info: KitInfo, models: dict[str, bytes]) -> None:
    """Write the folder beside its place, then move it there."""
    folder = info.folder
    _refuse_other_content(folder)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name, data in models.items():
            (new / name).write_bytes(data)
        schema.write_json(new / KIT_FILE, info.kit)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise schema.write_error(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_other_content(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / KIT_FILE).exists()):
        raise ConfigError(f"{folder} exists and is not a kit; name another folder or remove it")
