"""Is it the same network? Outputs of one file on a device and here, or of torch, compared.

Two engines, or one on two processors, add in different orders and round differently, so equal means
within a tolerance, which is stated for each precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import connections, remote
from hwnas.measuring.scratch import scratch
from hwnas.settings import fakes
from hwnas.settings.targets import REFERENCE
from profilers import precisions
from profilers.errors import VerificationError
from profilers.schema import Target

IMAGES = 16
# Of the rounding of an int8 file that outputs hold: ort-cpu, openvino and litert have 0.80 to 1.2,
# without the file's pairs 0.51 at most (random networks of eight spaces, docs/benchmarks.md).
LEAST_ROUNDING = 0.65


def tolerance_of(precision: str) -> float:
    """Largest `difference` of one file's outputs in two engines."""
    return precisions.load(precision).PRECISION.tolerance


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference of an output, as a share of the largest one that was expected; infinite
    where shapes differ or something is not a number.

    Args:
        expected: any shape.
        found: of the same shape.
    """
    if found.shape != expected.shape or not np.isfinite([expected, found]).all():
        return np.inf
    largest = float(np.abs(expected).max())
    return float(np.abs(found - expected).max()) / (largest or 1.0)


def ties(expected: np.ndarray, tolerance: float) -> np.ndarray:
    """(n, ...) whether the two best of each row, or pixel, lie closer than outputs within the
    tolerance can tell.

    Args:
        expected: (n, classes, ...).
        tolerance: of `difference`.
    """
    best = np.sort(expected, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] <= 2 * tolerance * np.abs(expected).max())


def rounding(meant: np.ndarray, plain: np.ndarray, found: np.ndarray) -> float | None:
    """How much of the rounding of a quantised file outputs hold: their distance from those without
    it, over that of what the file says; None where it is too little to tell.

    Args:
        meant: outputs of the file as ONNX says, any shape.
        plain: of the file with its activations in float.
        found: of an engine.
    """
    whole = float(np.linalg.norm(meant - plain))
    if not whole > tolerance_of("fp32") * float(np.linalg.norm(plain)):
        return None
    return float(np.linalg.norm(found - plain)) / whole


def compare_outputs(
    target: Target, model: Path, inputs: np.ndarray, file: Path | None = None
) -> dict[str, Any]:
    """How outputs of a model on a target differ from those of ONNX Runtime on this machine.

    Args:
        target: where it shall run as here.
        model: ONNX file with its weights inside.
        inputs: (n, channels, height, width) or (n, channels, time), any n of at least 1.
        file: what the target's engine loads, where that was made of the model.

    Returns:
        max_relative_difference (see `difference`), tolerance, images; of a quantised model also
        rounding (see `rounding`).

    Raises:
        VerificationError: they differ by more than the tolerance of the target's precision, or are
            those of the model with its activations in float.
    """
    # in int8 as ONNX says it: integer kernels of this processor may saturate
    exact = precisions.load(target.precision).PRECISION.calibrated
    level = "disable" if exact else Target.optimisation
    here = Target("host", REFERENCE, batch=target.batch, optimisation=level)
    expected = remote.run_model(here, model, inputs)
    found = remote.run_model(target, file or model, inputs)
    gap, tolerance = difference(expected, found), tolerance_of(target.precision)
    if not np.isfinite(gap):
        raise VerificationError(
            f"{model}: {target.name} computes outputs of shape {found.shape}, this machine of "
            f"{expected.shape}, or some are NaN or infinite"
        )
    held = _rounding_fields(target, here, model, inputs, (expected, found)) if exact else {}
    if gap > tolerance:
        raise VerificationError(
            f"{model}: outputs on {target.name} differ from this machine's by {gap:.2g} of "
            f"the largest, allowed is {tolerance:g} for {target.precision}; the engine there "
            "computes something else, try another version of it"
        )
    return {"max_relative_difference": gap, "tolerance": tolerance, "images": len(inputs), **held}


def _rounding_fields(
    target: Target,
    here: Target,
    model: Path,
    inputs: np.ndarray,
    outputs: tuple[np.ndarray, np.ndarray],
) -> dict[str, float | None]:
    """`rounding` of outputs (as the model says, of the target); nothing where it has none.

    Raises:
        VerificationError: they hold less than LEAST_ROUNDING.
    """
    part, data = precisions.load(target.precision), model.read_bytes()
    if not part.is_written(data):
        return {}
    with scratch("unrounded") as folder:
        path = folder / model.name
        path.write_bytes(part.unrounded(data))
        plain = remote.run_model(here, path, inputs)
    share = rounding(outputs[0], plain, outputs[1])
    if share is not None and share < LEAST_ROUNDING:
        raise VerificationError(
            f"{model}: {target.name} computes activations in float: outputs there hold {share:.0%} "
            f"of the rounding of {target.precision}, engines that compute in it hold nearly all; "
            "try another version of the engine, or a target of another precision"
        )
    return {"rounding": share}


def package_outputs(
    target: Target, model: Path, input_: Mapping[str, Any], file: Path | None = None
) -> dict[str, Any]:
    """`compare_outputs` of a package's model, on random images.

    Args:
        target: any.
        model: of the package.
        input_: of its manifest: `shape` of one.
        file: as of `compare_outputs`.
    """
    shape = (IMAGES, *input_["shape"])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return compare_outputs(target, model, images, file)


def output_fields(
    target: Target, model: Path, input_: Mapping[str, Any], file: Path | None = None
) -> dict[str, Any]:
    """`outputs` for a manifest; nothing where the export was compared with torch on this very
    engine, or where a modelled one computes nothing.
    """
    is_compared = connections.is_here(target) and target.runtime == REFERENCE
    if is_compared or fakes.named(target):
        return {}
    return {"outputs": package_outputs(target, model, input_, file)}
