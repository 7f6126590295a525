"""TensorRT plans and the timing cache beside the models they were built from.

    <model>.<16 hex>.plan     hash of model, engine, GPU, precision, level and how we build;
                              sha256 of the plan, then the plan
    tensorrt.<16 hex>.timing  what timing tactics found, one for each engine and GPU

Deserialising a plan runs native code, so only whole plans are read: those that were built here, and
those of packages that the host sends. Plans hold
the weights; when those of a folder fill `MOST_BYTES`, further ones are built anew each time, which
the timing cache makes quick.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

from profilers.engines import tensorrt_build
from profilers.schema import Target, sha256_text, write_atomic

DIGEST_BYTES = 32
MOST_BYTES = 1 << 30  # of plans beside each other; boards have little room


class Plan(NamedTuple):
    """A serialised engine, how long it took to build now (0 where it was there), and the timing
    cache of its build.
    """

    data: bytes
    build_s: float
    timing: bytes = b""


def plan_of(trt: Any, model_path: Path, target: Target, gpu: str) -> Plan:
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
    asked = f"{target.precision} {target.optimisation} {tensorrt_build.BUILD_VERSION}"
    how = sha256_text(f"{model} {engine} {asked}")[:16]
    kept = model_path.with_name(f"{model_path.name}.{how}.plan")
    timing = model_path.with_name(f"tensorrt.{sha256_text(engine)[:16]}.timing")
    known = timing.read_bytes() if timing.is_file() else b""
    plan = opened(kept)
    if plan is not None:
        return Plan(plan, 0.0, known)
    begin_s = time.monotonic()
    built = tensorrt_build.build(trt, model_path, target, known)
    build_s = time.monotonic() - begin_s
    if len(built.plan) + sum(p.stat().st_size for p in kept.parent.glob("*.plan")) <= MOST_BYTES:
        write_atomic(kept, hashlib.sha256(built.plan).digest() + built.plan)
    if built.timing not in (b"", known):
        write_atomic(timing, built.timing)
    return Plan(built.plan, build_s, built.timing)


def opened(path: Path) -> Optional[bytes]:
    """The plan of a file that was kept, or sent as one is kept; None where it is another file or
    not whole.
    """
    if not path.is_file():
        return None
    data = path.read_bytes()
    digest, plan = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    return plan if plan and hashlib.sha256(plan).digest() == digest else None
