"""Whose fault an engine's error is: the model's, the memory's, or the device's.

    MissingKernelError the engine lacks an op of the model
    ModelError         the engine cannot load or run the model, today or tomorrow
    MemoryShortError   memory was short: with fewer models open, or later, it may go well
    DeviceFaultError   the device works again in a new process only
    DeviceError        any other error of the device: what it was doing may go well another time

Engines tell it in words. Sources: onnxruntime, bfc_arena.cc, cuda_call.cc, session_state_utils.cc,
graph.cc; OpenVINO, unconverted_ops_report.cpp; onnx-tensorrt, importerUtils and ModelImporter
(their texts); NVIDIA,
"CUDA Runtime API", cudaError_t: errors after which "the process must be terminated and
relaunched"; "cuDNN API Reference", cudnnStatus_t; TensorRT's log, IErrorRecorder.
"""

from __future__ import annotations

import re
from typing import Iterable, Type

from profilers.errors import (
    DeviceError,
    DeviceFaultError,
    HwnasError,
    MemoryShortError,
    MissingKernelError,
    ModelError,
)

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
# cudaError_t: devices unavailable, no device, uncorrectable ECC and NVLink, context destroyed,
# unknown; from 700 on what a kernel did: address, time, assertion, stack, instruction, launch.
FAULTS = frozenset((46, 100, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999))
_MEMORY = re.compile(
    r"out of memory|OutOfMemory|Failed to allocate memory|smaller than requested bytes|"
    r"bad.?alloc|ALLOC(?:ATION)?_FAILED|could not be allocated|cudaErrorMemoryAllocation|"
    r"User allocator error",
    re.IGNORECASE,
)
_FAULT_WORDS = re.compile(
    r"illegal memory access|unspecified launch failure|uncorrectable (?:ECC|NVLink)|"
    r"device-side assert|misaligned address|illegal instruction was|launch timed out|"
    r"device reset|GPU is lost|context is destroyed",
    re.IGNORECASE,
)
_CUDA = re.compile(r"(?:CUDA|Cuda Runtime) (?:failure|error)\D{0,12}(\d+)", re.IGNORECASE)
_LIBRARY = re.compile(r"(?:CUDA|CUDNN|CUBLAS|CUFFT|CURAND|Cuda Runtime) (?:failure|error)", re.I)
_NOT_FOR_IT = re.compile(r"STATUS_(?:NOT_SUPPORTED|BAD_PARAM|ARCH_MISMATCH)")


_LACKS = re.compile(
    r"(?:Could not find an implementation for|No Op registered for|any implementation for node|"
    r"[Nn]o importer registered for op:|No conversion rule found for operations:[\s-]*|"
    r"does not support the following ONNX operations:) ?(?P<op>[\w.:/+]+)|"
    r"(?P<own>[\w.:]+)\(-?\d+\) is not a registered function/op"
)
_LEFT_TO_CPU = re.compile(r"fallback to CPU EP has been explicitly disabled")  # names no op
FALLBACK = "name a target of another runtime for it, as ort-cpu, or of another precision"


def failure(
    words: str, text: str, otherwise: Type[HwnasError] = ModelError, logged: Iterable[str] = ()
) -> HwnasError:
    """The error to raise.

    Args:
        words: what was being done, the beginning of the message.
        text: the engine's.
        otherwise: the class where the text names neither memory nor the device.
        logged: lines that the engine wrote before: the reason may be in one of them.
    """
    told = "\n".join([text, *logged])
    message = f"{words}: {' '.join(text.split())[:400]}"
    codes = {int(code) for code in _CUDA.findall(told)}
    if codes & FAULTS or _FAULT_WORDS.search(told):
        return DeviceFaultError(message)
    if OUT_OF_MEMORY in codes or _MEMORY.search(told):
        return MemoryShortError(message)
    if _LIBRARY.search(told) and not _NOT_FOR_IT.search(told):
        return DeviceError(message)
    lacked = _LACKS.search(told)
    if lacked and otherwise is ModelError:
        op = (lacked["op"] or lacked["own"]).rstrip(".:")
        return MissingKernelError(f"{words}: it has no {op} as this model needs it; {FALLBACK}")
    if _LEFT_TO_CPU.search(told):
        return MissingKernelError(f"{message}; {FALLBACK}")
    return otherwise(message)


def of_cuda(words: str, status: int) -> HwnasError:
    """The error of a status of the CUDA runtime."""
    if status == OUT_OF_MEMORY:
        return MemoryShortError(words)
    return (DeviceFaultError if status in FAULTS else DeviceError)(words)
