"""Architectures of once-for-all's specialised networks, from their `net.config` files.

A file lists every layer with its final numbers. Choices are read off the blocks; the network of
these choices is then lowered and every number, name and flag of the file compared with it, so that
a network that only looks like one of the space is refused. Older names of layers and keys, and
widths that are not said, are read too. Dropout and the momentum of BatchNorm are of training.

Source: `config` of ofa/utils/layers.py, ofa/imagenet_classification/networks and ofa/model_zoo.py
    of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.networks.families import resnet_d
from hwnas.networks.ops import Op
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.ofa.dictionaries import check_space
from hwnas.ofa.families import is_resnet, mobile_of, stages_of
from profilers.errors import ConfigError, FileFormatError
from profilers.json_text import parse_json

MAX_BYTES = 1 << 20
NET, RUN = "net.config", "run.config"
OLD_NAMES = {
    "MobileInvertedResidualBlock": "ResidualBlock",
    "MBInvertedConvLayer": "MBConvLayer",
    "mobile_inverted_conv": "conv",
}
OF_TRAINING = ("dropout_rate", "momentum")
# Keys that older files leave out, and then mean what every network of the spaces has; without
# `use_se` there is none.
UNSAID = ("dilation", "groups", "bias", "has_shuffle", "ops_order", "ws_eps", "downsample_mode")

Layer = dict[str, Any]


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
    check_space(space)
    path = path / NET if path.is_dir() else path
    config = _read(path)
    size = resolution or _image_size(path.with_name(RUN))
    try:
        space = space.restricted([size])
        values = {"resolution": size, **_stem_values(config, space)}
        values |= _block_values(list(_layers(config, space)), space)
        arch = space.architecture([values[choice.name] for choice in space.choices])
        wanted = _wanted(arch, config)
        blocks = dict(zip(wanted["blocks"], _blocks(config), strict=True))
        different = _difference("", {**config, "blocks": blocks}, wanted)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{path}: {error}") from None
        raise FileFormatError(
            f"{path} is not a network of {space.name} (at {error}); expected "
            "the net.config of a specialised network"
        ) from error
    if different:
        raise ConfigError(
            f"{path}: {different} in {space.name}; it is a network of another space or width"
        )
    return arch


def _read(path: Path) -> Layer:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"{path} is larger than 1 MiB, no {path.name} is")
        found = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON ({error}); it is cut short or damaged") from None
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} must hold keys and values, as a JSON object")
    return found


def _image_size(path: Path) -> int:
    """Input size that a `run.config` says, px."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist; say the input size with --resolution")
    size = _read(path).get("image_size")
    if not isinstance(size, int) or isinstance(size, bool):
        raise FileFormatError(f"{path} has image_size {size!r}, expected a whole number of px")
    return size


# ---- choices ------------------------------------------------------------------------------------


def _blocks(config: Mapping[str, Any]) -> list[Layer]:
    """The blocks that are there: older files keep those that were left out as layers of nothing."""
    return [block for block in map(_known, config["blocks"]) if not _is_nothing(block.get("conv"))]


def _is_nothing(layer: Any) -> bool:
    return isinstance(layer, dict) and layer.get("name") == "ZeroLayer"


def _layers(config: Mapping[str, Any], space: SearchSpace) -> Iterator[Layer]:
    """The elastic blocks, in order."""
    if is_resnet(space):
        yield from _blocks(config)
    else:
        yield from (_known(block["conv"]) for block in _blocks(config)[1:])


def _known(layer: Mapping[str, Any]) -> Layer:
    """A layer under today's names of layers and keys, lists of one as their element."""
    named = {OLD_NAMES.get(key, key): _number(value) for key, value in layer.items()}
    if "name" in named:
        named["name"] = OLD_NAMES.get(named["name"], named["name"])
    return named


def _number(value: Any) -> Any:
    """A number, or the only element of a list of one (identity layers)."""
    one = isinstance(value, list) and len(value) == 1 and isinstance(value[0], (int, float))
    return value[0] if one else value


def _stem_values(config: Mapping[str, Any], space: SearchSpace) -> dict[str, int]:
    if not is_resnet(space):
        return {}
    stem = config["input_stem"]
    inner = [layer.get("conv") or layer for layer in stem]
    return {
        "stem.depth": len(stem),
        "stem.mid_width": _number(inner[0]["out_channels"]),
        "stem.width": _number(inner[-1]["out_channels"]),
    }


def _block_values(layers: Sequence[Layer], space: SearchSpace) -> dict[str, int]:
    """Values of the choices of stages and blocks; a stage is a run of equal widths."""
    runs = [
        (width, list(run))
        for width, run in itertools.groupby(layers, lambda layer: layer["out_channels"])
    ]
    stages = stages_of(space)
    if len(runs) != len(stages):
        raise ConfigError(
            f"its blocks have the widths {', '.join(str(width) for width, _ in runs)}: "
            f"{len(runs)} stages, {space.name} has {len(stages)}"
        )
    values: dict[str, int] = {}
    for s, (stage, (width, run)) in enumerate(zip(stages, runs, strict=True), start=1):
        allowed = stage.widths if isinstance(stage, resnet_d.Stage) else (stage.width,)
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
            values |= _choices(f"stage{s}.block{b}", layer, is_resnet(space))
    return values


def _choices(slot: str, layer: Layer | None, bottleneck: bool) -> dict[str, int]:
    """Kernel size and expand ratio of a block; 0 of one that is not there."""
    name, scale = ("expand_percent", 100) if bottleneck else ("expand_ratio", 1)
    if layer is None:
        return {f"{slot}.kernel_size": 0, f"{slot}.{name}": 0}
    given = layer["expand_ratio"]
    ratio = round(scale * given, 6)
    if ratio != int(ratio):
        raise ConfigError(f"{slot}.expand_ratio = {given} is not a whole number of {scale}ths")
    return {f"{slot}.kernel_size": layer["kernel_size"], f"{slot}.{name}": int(ratio)}


# ---- comparison ---------------------------------------------------------------------------------


def _wanted(arch: Architecture, config: Mapping[str, Any]) -> Layer:
    """What the file of an architecture says, blocks by slot.

    Args:
        arch: of the choices that were read.
        config: where it leaves widths out, so does this.
    """
    space, ops = arch.space, {placed.slot: placed.op for placed in arch.ops}
    slots = [slot for slot in ops if slot.startswith("stage")]
    blocks = zip(slots, _blocks(config), strict=True)
    wanted = {
        "bn": {"eps": space.bn_eps, "ws_eps": None},
        "blocks": {slot: _block(arch, slot, ops[slot], given) for slot, given in blocks},
        "classifier": _linear(ops["classifier"]),
    }
    if is_resnet(space):
        stem = [
            _residual(_conv(op), op) if op["residual"] else _conv(op)
            for slot, op in ops.items()
            if slot.startswith("stem.conv")
        ]
        return {"name": "ResNets", "input_stem": stem, **wanted}
    wanted["first_conv"] = _conv(ops["stem"])
    if not mobile_of(space).head.width:
        mix = _conv(ops["expand"])
        return {"name": "ProxylessNASNets", "feature_mix_layer": mix, **wanted}
    layers = {"final_expand_layer": "expand", "feature_mix_layer": "mix"}
    heads = {name: _conv(ops[slot]) for name, slot in layers.items()}
    return {"name": "MobileNetV3", **heads, **wanted}


def _of(op: Op, name: str) -> int:
    """A parameter of a convolution; 1 where its kind has none."""
    return int(dict(op.args).get(name, 1))


def _conv(op: Op) -> Layer:
    return {
        "name": "ConvLayer",
        "kernel_size": _of(op, "kernel"),
        "stride": _of(op, "stride"),
        "dilation": 1,
        "groups": 1,
        "bias": False,
        "has_shuffle": False,
        "use_se": False,
        "in_channels": op.inputs[0][0],
        "out_channels": op.shape[0],
        "use_bn": op.kind != "mix",
        "act_func": op["act"],
        "ops_order": "weight_bn_act",
    }


def _linear(op: Op) -> Layer:
    return {
        "name": "LinearLayer",
        "in_features": op.inputs[0][0],
        "out_features": op.shape[0],
        "bias": True,
        "use_bn": False,
        "act_func": None,
        "ops_order": "weight_bn_act",
    }


def _residual(conv: Layer, op: Op) -> Layer:
    """A layer that is added to its input, or not."""
    shortcut = {
        "name": "IdentityLayer",
        "in_channels": op.inputs[0][0],
        "out_channels": op.shape[0],
        "use_bn": False,
        "act_func": None,
        "ops_order": "weight_bn_act",
    }
    return {
        "name": "ResidualBlock",
        "conv": conv,
        "shortcut": shortcut if op["residual"] else None,
    }


def _block(arch: Architecture, slot: str, op: Op, given: Layer) -> Layer:
    """What a file says of a block."""
    bottleneck = op.kind == "bottleneck"
    inner = given if bottleneck else _known(given["conv"])
    name = f"{slot}.expand_percent" if bottleneck else f"{slot}.expand_ratio"
    ratio = arch[name] if name in arch.space.columns else 1
    said = inner.get("mid_channels") is not None  # else they follow from the expand ratio
    block = {
        "in_channels": op.inputs[0][0],
        "out_channels": op.shape[0],
        "kernel_size": _of(op, "kernel"),
        "stride": _of(op, "stride"),
        "expand_ratio": ratio / 100 if bottleneck else ratio,
        "mid_channels": op["mid"] if said else None,
        "act_func": op["act"],
    }
    if bottleneck:
        how = {"groups": 1, "downsample_mode": "avgpool_conv"}
        return {"name": "ResNetBottleneckBlock", **block, **how}
    conv = {"name": "MBConvLayer", **block, "use_se": op["se"] > 0, "groups": None}
    return _residual(conv, op)


def _difference(place: str, given: Any, wanted: Any) -> str:
    """The first place where a file is not what is wanted, in words; empty where there is none."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        given = _known(given)
        strange = sorted(set(given) - set(wanted) - set(OF_TRAINING))
        if strange:
            return f"{_at(place, strange[0])} is not a field there"
        unsaid = [n for n in wanted if n in UNSAID or (n == "use_se" and wanted[n] is False)]
        names = [name for name in wanted if name in given or name not in unsaid]
        pairs = [(name, given.get(name), wanted[name]) for name in names]
    elif isinstance(wanted, list) and isinstance(given, list) and len(given) == len(wanted):
        pairs = [(str(n), *pair) for n, pair in enumerate(zip(given, wanted, strict=True))]
    elif given == wanted and isinstance(given, bool) == isinstance(wanted, bool):
        return ""
    else:
        return f"{place} is {_short(given)}, expected {_short(wanted)}"
    found = (_difference(_at(place, name), one, other) for name, one, other in pairs)
    return next(filter(None, found), "")


def _at(place: str, name: str) -> str:
    return f"{place}.{name}" if place and place != "blocks" else name


def _short(value: Any) -> str:
    return "a layer" if isinstance(value, dict) else str(value)[:40]
