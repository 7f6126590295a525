"""once-for-all's accuracy predictors, read into ours.

Inputs of the network, for blocks in order and options ascending (skipped blocks all zero):

    tutorial    kernel sizes of all blocks, expand ratios of all blocks, 8 resolutions 112 to 224
    library     resolutions, kernel sizes of all blocks, expand ratios of all blocks
    ResNet      resolutions, stem skipped or kept, 6 widths, expand ratios of all blocks

No file says which resolutions or which supernet it is of. All give top-1 as a fraction; those of
the library add `base_acc`, the mean accuracy of their data.

Source: ofa/tutorial/accuracy_predictor.py and ofa/nas/accuracy_predictor of
    github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwnas.networks.space import Choice, SearchSpace
from hwnas.ofa.dictionaries import check_space
from hwnas.ofa.families import block_choices, expand_name, is_resnet
from hwnas.predictors.encoding import DRAWN, feature_names
from hwnas.predictors.mlp import Layer, MlpPredictor
from hwnas.supernet.pickles import read_tensors
from profilers.errors import ConfigError, FileFormatError, TableError
from profilers.schema import sha256_file

TUTORIAL = tuple(range(112, 225, 16))  # resolutions of the tutorial's inputs
RESNET = (128, 144, 160, 176, 192, 224, 240, 256)  # those of the published ResNet50 file
N_WIDTHS = 3  # width multipliers of the ResNet


def import_predictor(
    path: Path, space: SearchSpace, resolutions: Sequence[int] = (), supernet_sha256: str = ""
) -> MlpPredictor:
    """The predictor that a file of once-for-all holds, for a space of 1,000 classes.

    Args:
        path: written by torch.save.
        space: of once-for-all.
        resolutions: of the inputs of a file of the library, ascending, px; empty: one input is
            224 px and eight inputs of a ResNet are the published ones. The predictor's space has
            those of them that the space may have, and no other.
        supernet_sha256: of the supernet file that its accuracies are of; empty: not known.

    Raises:
        FileFormatError: no such file, or it cannot be read, or it predicts no fractions.
        TableError: its inputs are not those of the space.
        ConfigError: the space is not once-for-all's, or the resolutions are not said.
    """
    check_space(space)
    arrays = {name: tensor.float().numpy() for name, tensor in read_tensors(path).items()}
    layers, tutorial = _layers(arrays, path)
    n_inputs = layers[0][0].shape[0]
    if tutorial:
        inputs, sizes = _tutorial_inputs(space, resolutions), TUTORIAL
    else:
        sizes = _sizes(space, resolutions, n_inputs - len(_block_inputs(space)), path)
        inputs = [f"resolution={size}" for size in sizes] + _block_inputs(space)
    if len(inputs) != n_inputs:
        raise TableError(
            f"{path} has {n_inputs} inputs, a predictor of {space.name} has {len(inputs)}: it is "
            "of another space"
        )
    space = space.restricted(set(sizes) & set(space.every_resolution))
    features, first = _first_rows(space, inputs, layers[0][0])
    kind = "tutorial" if tutorial else "library"
    source = f"once-for-all's {kind} predictor, sha256 {sha256_file(path)}"
    ours = ((first, layers[0][1]), *layers[1:])
    made = MlpPredictor(space, supernet_sha256, features, ours, source)
    _check_errors(made, path)
    return made


def _check_errors(made: MlpPredictor, path: Path) -> None:
    """Refuse a file that predicts anything but accuracies, as fractions, of random networks."""
    accuracy = 1 - made.uncut(made.space.sample(DRAWN, np.random.default_rng(0)))
    low, high = float(accuracy.min()), float(accuracy.max())
    if not 0 <= low < high <= 1:
        raise FileFormatError(
            f"{path} predicts accuracies of {low:.4g} to {high:.4g} for {DRAWN} random networks of "
            f"{made.space.name}, expected different fractions in [0, 1]: it is of another space, "
            "or in percent"
        )


def _layers(arrays: dict[str, np.ndarray], path: Path) -> tuple[list[Layer], bool]:
    """Weight (in, out) and bias of each layer, and whether the file is the tutorial's."""
    tutorial = "0.weight" in arrays
    names = ["0", "2", "4", "6"]
    if not tutorial:
        names = ["layers.0.0", "layers.1.0", "layers.2.0", "layers.3"]
    wanted = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    if not tutorial:
        wanted = wanted - {"layers.3.bias"} | {"base_acc"}
    for problem, keys in (("lacks", wanted - set(arrays)), ("also holds", set(arrays) - wanted)):
        if keys:
            raise FileFormatError(
                f"{path} is not an accuracy predictor of once-for-all: it {problem} "
                f"{', '.join(sorted(keys)[:3])}"
            )
    last = arrays["6.bias"] if tutorial else arrays["base_acc"]
    biases = [arrays[f"{name}.bias"] for name in names[:-1]] + [last.reshape(-1)]
    layers = [(arrays[f"{n}.weight"].T.copy(), b) for n, b in zip(names, biases, strict=True)]
    _check(layers, path)
    return layers, tutorial


def _check(layers: list[Layer], path: Path) -> None:
    width = layers[0][0].shape[0]
    for n, (weight, bias) in enumerate(layers):
        if weight.ndim != 2 or weight.shape[0] != width or bias.shape != (weight.shape[1],):
            raise FileFormatError(
                f"{path}: layer {n} has shape {weight.shape}, bias {bias.shape}, behind {width}"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FileFormatError(f"{path}: layer {n} holds numbers that are not finite")
        width = weight.shape[1]
    if width != 1:
        raise FileFormatError(f"{path} gives {width} numbers, expected one accuracy")


# ---- inputs -------------------------------------------------------------------------------------


def _tutorial_inputs(space: SearchSpace, resolutions: Sequence[int]) -> list[str]:
    """Names of the tutorial's inputs."""
    if resolutions and tuple(resolutions) != TUTORIAL:
        raise ConfigError(
            f"the tutorial's predictor has the resolutions {', '.join(map(str, TUTORIAL))}; leave "
            "--resolutions out"
        )
    return _block_inputs(space) + [f"resolution={size}" for size in TUTORIAL]


def _sizes(
    space: SearchSpace, resolutions: Sequence[int], n_inputs: int, path: Path
) -> tuple[int, ...]:
    """Resolutions of the first n inputs of a file of the library."""
    if n_inputs < 1:
        raise TableError(f"{path} is of another space than {space.name}: it has too few inputs")
    if len(resolutions) == n_inputs:
        return tuple(resolutions)
    if resolutions:
        raise ConfigError(
            f"{path} has {n_inputs} inputs for resolutions if it is of {space.name}, "
            f"{len(resolutions)} were given"
        )
    if is_resnet(space) and n_inputs == len(RESNET):
        return RESNET
    if n_inputs == 1:
        return (224,)
    raise ConfigError(
        f"{path} has {n_inputs} inputs for resolutions if it is of {space.name}, and does not say "
        "which: give them, as --resolutions 128,160,192,224"
    )


def _block_inputs(space: SearchSpace) -> list[str]:
    """Names of all inputs but the resolutions; empty for one that no network sets."""
    expand = _block_names(space, expand_name(space))
    if not is_resnet(space):
        return _block_names(space, "kernel_size") + expand
    names = ["stem.depth=2", "stem.depth=3"]
    wide = [n for n in space.columns if n.endswith(("mid_width", "width"))]
    for name in wide:
        options = _named(space.choices[space.columns[name]])
        # Of multipliers that give equal widths the first is the one that networks are written with.
        names += options[:1] + [""] * (N_WIDTHS - len(options)) + options[1:]
    return names + expand


def _block_names(space: SearchSpace, option: str) -> list[str]:
    return [name for choice in block_choices(space, option) for name in _named(choice)]


def _named(choice: Choice) -> list[str]:
    return [f"{choice.name}={option}" for option in choice.options]


def _first_rows(
    space: SearchSpace, inputs: list[str], weight: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Features of the space that the file knows, and the first layer's row for each.

    A choice that is no input (a depth: it shows in the blocks) weighs nothing.
    """
    row = {name: i for i, name in enumerate(inputs) if name}
    known = feature_names(space)
    zero = np.zeros(weight.shape[1], weight.dtype)
    rows = [weight[row[name]] if name in row else zero for name in known]
    return known, np.stack(rows)
