"""TensorRT plans and the timing cache beside the models they were built from.

    <model>.<16 hex>.plan     hash of model, engine, GPU, precision and level;
                              sha256 of the plan, then the plan
    tensorrt.<16 hex>.timing  what timing tactics found, one for each engine and GPU

Deserialising a plan runs native code, so only whole plans that were built here are read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Optional

from profilers.engines import tensorrt_build
from profilers.schema import Target, sha256_text, write_atomic

DIGEST_BYTES = 32


def plan_of(trt: Any, model_path: Path, target: Target, gpu: str) -> bytes:
    """The plan of a model, built now or found where it was built before.

    Args:
        trt: the module tensorrt.
        model_path: of the ONNX file; what is kept lies beside it.
        target: its precision and optimisation level are used.
        gpu: CUDA version and GPU, in words.

    Raises:
        ConfigError, RuntimeMissingError: as `tensorrt_build.build`.
        DiskFullError: no space is left for the plan.
    """
    engine = f"{trt.__version__} {gpu}"
    model = hashlib.sha256(model_path.read_bytes()).hexdigest()
    how = sha256_text(f"{model} {engine} {target.precision} {target.optimisation}")[:16]
    kept = model_path.with_name(f"{model_path.name}.{how}.plan")
    plan = _read(kept)
    if plan is None:
        timing = model_path.with_name(f"tensorrt.{sha256_text(engine)[:16]}.timing")
        known = timing.read_bytes() if timing.is_file() else b""
        built = tensorrt_build.build(trt, model_path, target, known)
        plan = built.plan
        write_atomic(kept, hashlib.sha256(plan).digest() + plan)
        if built.timing != known:
            write_atomic(timing, built.timing)
    return plan


def _read(path: Path) -> Optional[bytes]:
    """The plan of a file; None where there is none or it is not whole."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    digest, plan = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    return plan if plan and hashlib.sha256(plan).digest() == digest else None
