"""Does a device compute what this machine computes? Outputs of one file, here and there, compared.

Two engines, or one on two processors, add in different orders and round differently, so equal means
within a tolerance, which is stated for each precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import lanes, remote
from profilers.errors import VerificationError
from profilers.schema import Target

# Largest difference of an output, as a share of the largest output. fp32: sums of some thousand
# products in another order; fp16: 11 bits of mantissa over some 20 layers; int8: a value that is
# rounded to the next step in one engine and not in the other.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}
HERE = "ort-cpu"
IMAGES = 16


def compare_outputs(target: Target, model: Path, inputs: np.ndarray) -> dict[str, Any]:
    """How outputs of a model on a target differ from those of ONNX Runtime on this machine.

    Args:
        target: where it shall run as here.
        model: file with its weights inside.
        inputs: (n, channels, height, width), any n of at least 1.

    Returns:
        max_difference (share of the largest output), tolerance, images.

    Raises:
        VerificationError: they differ by more than the tolerance of the target's precision.
    """
    here = Target("host", HERE, batch=target.batch)
    expected = remote.run_model(here, model, inputs)
    found = remote.run_model(target, model, inputs)
    tolerance = TOLERANCE[target.precision]
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise VerificationError(
            f"{model}: {target.name} computes outputs of shape {found.shape}, this machine of "
            f"{expected.shape}, or some are no numbers"
        )
    largest = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(found - expected).max()) / largest
    if difference > tolerance:
        raise VerificationError(
            f"{model}: outputs on {target.name} differ from this machine's by {difference:.2g} of "
            f"the largest, allowed is {tolerance:g} for {target.precision}; the engine there "
            "computes something else, try another version of it"
        )
    return {"max_difference": difference, "tolerance": tolerance, "images": len(inputs)}


def package_outputs(target: Target, model: Path, input_: Mapping[str, Any]) -> dict[str, Any]:
    """`compare_outputs` of a package's model, on random images.

    Args:
        target: any.
        model: of the package.
        input_: of its manifest: `size` (px) and `channels`.
    """
    shape = (IMAGES, input_["channels"], input_["size"], input_["size"])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return compare_outputs(target, model, images)


def told_outputs(target: Target, model: Path, input_: Mapping[str, Any]) -> dict[str, Any]:
    """`outputs` for a manifest, where the target is another machine; nothing where it is this one
    (tests of the export have compared there) or a modelled one, which computes nothing.
    """
    if lanes.lane_of(target) == lanes.THIS_MACHINE or target.runtime == "fake":
        return {}
    return {"outputs": package_outputs(target, model, input_)}
