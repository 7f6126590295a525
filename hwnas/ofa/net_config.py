"""Architectures of once-for-all's specialised networks, from their `net.config` files.

A file lists every layer with its final numbers. Choices are read off the blocks; the network of
these choices is then lowered and every number compared, so that a network that only looks like one
of the space is refused. Older names of layers and keys, and widths that are not said, are read too.

Source: `config` of ofa/utils/layers.py, ofa/imagenet_classification/networks and ofa/model_zoo.py
    of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.family import DeepStem
from hwnas.ofa.dictionaries import SPACES
from hwnas.space import Architecture, SearchSpace
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import OpSpec

MAX_BYTES = 1 << 20
NET, RUN = "net.config", "run.config"


def read_net_config(path: Path, space: SearchSpace, resolution: int = 0) -> Architecture:
    """The architecture of a specialised network.

    Args:
        path: `net.config`, or the folder that holds it.
        space: of once-for-all.
        resolution: input size, px; 0: as `run.config` beside the file says.

    Raises:
        FileFormatError: missing, or no such file.
        ConfigError: the network is not in the space; says which number is not.
    """
    if space.name not in SPACES:
        raise ConfigError(
            f"space {space.name} is not one of once-for-all's; those are {', '.join(SPACES)}"
        )
    path = path / NET if path.is_dir() else path
    config = _read(path)
    values = {"resolution": resolution or _image_size(path.with_name(RUN))}
    try:
        layers = list(_layers(config, space))
        values |= _stem_values(config, space)
        values |= _block_values(layers, space)
        arch = space.architecture([values[choice.name] for choice in space.choices])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{path}: {error}") from None
        raise FileFormatError(
            f"{path} is no network of {space.name} ({type(error).__name__}: {error}); expected "
            "the net.config of a specialised network"
        ) from error
    _check(path, layers, arch)
    return arch


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"{path} is larger than 1 MiB, no {path.name} is")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is no JSON ({error}); it is cut short or damaged") from None
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} holds a {type(found).__name__}, expected keys and values")
    return found


def _image_size(path: Path) -> int:
    """Input size that a `run.config` says, px."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist; say the input size with --resolution")
    size = _read(path).get("image_size")
    if not isinstance(size, int) or isinstance(size, bool):
        raise FileFormatError(f"{path} has image_size {size!r}, expected a whole number of px")
    return size


# ---- layers -------------------------------------------------------------------------------------


def _layers(config: Mapping[str, Any], space: SearchSpace) -> Iterator[dict[str, Any]]:
    """The elastic blocks, in order."""
    blocks = config["blocks"]
    if isinstance(space.stem, DeepStem):
        yield from blocks
        return
    for block in blocks[1:]:  # the first one is not elastic
        inner = block.get("conv", block.get("mobile_inverted_conv"))
        if inner is not None and inner.get("name") != "ZeroLayer":
            yield inner


def _number(value: Any) -> Any:
    """A number, or the only element of a list of one (identity layers)."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _mid_channels(layer: Mapping[str, Any], space: SearchSpace) -> int:
    """Mid channels of a block; where the file does not say, the expand ratio does."""
    given = _number(layer.get("mid_channels"))
    side = "out_channels" if isinstance(space.stem, DeepStem) else "in_channels"
    return int(given or round(_number(layer[side]) * layer["expand_ratio"]))


def _stem_values(config: Mapping[str, Any], space: SearchSpace) -> dict[str, int]:
    if not isinstance(space.stem, DeepStem):
        return {}
    stem = config["input_stem"]
    inner = [layer.get("conv") or layer for layer in stem]
    return {
        "stem.depth": len(stem),
        "stem.mid_width": _number(inner[0]["out_channels"]),
        "stem.width": _number(inner[-1]["out_channels"]),
    }


def _block_values(layers: Sequence[Mapping[str, Any]], space: SearchSpace) -> dict[str, int]:
    """Values of the choices of stages and blocks; a stage is a run of equal widths."""
    runs = [
        (width, list(run))
        for width, run in itertools.groupby(layers, lambda x: _number(x["out_channels"]))
    ]
    if len(runs) != len(space.stages):
        raise ConfigError(
            f"its blocks have the widths {', '.join(str(width) for width, _ in runs)}: "
            f"{len(runs)} stages, {space.name} has {len(space.stages)}"
        )
    values: dict[str, int] = {}
    for s, (stage, (width, run)) in enumerate(zip(space.stages, runs, strict=True), start=1):
        allowed = stage.widths or (stage.width,)
        if width not in allowed:
            raise ConfigError(
                f"stage{s} has width {width}, {space.name} has {', '.join(map(str, allowed))}"
            )
        if len(run) not in stage.depths:
            raise ConfigError(
                f"stage{s}.depth = {len(run)} is not offered by space {space.name}; "
                f"options: {stage.depths}"
            )
        values |= {f"stage{s}.depth": len(run), f"stage{s}.width": width}
        for b in range(1, stage.n_blocks + 1):
            layer = run[b - 1] if b <= len(run) else None
            values |= _choices(f"stage{s}.block{b}", layer, stage.block == "bottleneck")
    return values


def _choices(slot: str, layer: Mapping[str, Any] | None, bottleneck: bool) -> dict[str, int]:
    """Kernel size and expand ratio of a block; 0 of one that is not there."""
    if bottleneck:
        percent = round(100 * float(layer["expand_ratio"])) if layer else 0
        kernel = _number(layer["kernel_size"]) if layer else 0
        return {f"{slot}.kernel_size": kernel, f"{slot}.expand_percent": percent}
    if layer is None:
        return {f"{slot}.kernel_size": 0, f"{slot}.expand_ratio": 0}
    ratio = layer["expand_ratio"]
    if ratio != int(ratio):
        raise ConfigError(f"{slot}.expand_ratio = {ratio} is not a whole number")
    return {f"{slot}.kernel_size": _number(layer["kernel_size"]), f"{slot}.expand_ratio": ratio}


# ---- comparison ---------------------------------------------------------------------------------


def _check(path: Path, layers: Sequence[Mapping[str, Any]], arch: Architecture) -> None:
    """Refuse a network whose blocks are not those of its choices."""
    space = arch.space
    slots = {block.slot for block in space.blocks}
    placed = [op for op in arch.ops if op.slot in slots]
    for (slot, spec), layer in zip(placed, layers, strict=True):
        wanted = _numbers(spec)
        given = {name: _number(layer.get(name, wanted[name])) for name in wanted}
        given["mid_channels"] = _mid_channels(layer, space)
        for name, value in wanted.items():
            if given[name] != value:
                raise ConfigError(
                    f"{path}: {slot} has {name} {given[name]}, in {space.name} it has {value}; it "
                    "is a network of another space or width"
                )


def _numbers(spec: OpSpec) -> dict[str, Any]:
    """What a file says of a block."""
    return {
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "mid_channels": spec.mid_channels,
        "kernel_size": spec.kernel_size,
        "stride": spec.stride,
        "act_func": spec.act,
        "use_se": spec.se_channels > 0,
    }
