"""Whose fault an engine's error is, by texts that engines have been seen to write."""

import pytest

from profilers.engines import failures
from profilers.errors import (
    DeviceError,
    DeviceFaultError,
    MemoryShortError,
    MissingKernelError,
    ModelError,
)

RUNNING = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
)
ARENA = "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::"
CALL = "; GPU=0 ; hostname=h ; file=/onnxruntime/core/providers/cuda/"
WORDS = {
    MemoryShortError: [
        f"{RUNNING}Conv node. Name:'c' Status Message: {ARENA}AllocateRawInternal(size_t, bool, "
        "onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 939524096",
        f"{RUNNING}MatMul node. Name:'m' Status Message: {ARENA}Extend(size_t) Available memory of "
        "1024 is smaller than requested bytes of 4096",
        f"CUDA failure 2: out of memory {CALL}cuda_allocator.cc ; line=55 ; expr=cudaMalloc(&p, s)",
        f"{RUNNING}Gemm node. Status Message: CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED {CALL}",
        "CUDNN failure 5001: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "std::bad_alloc",
        "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory",
        "Requested amount of GPU memory (15485030400 bytes) could not be allocated.",
    ],
    DeviceFaultError: [
        f"{RUNNING}Conv node. Status Message: CUDA failure 700: an illegal memory access was "
        f"encountered {CALL}conv.cc ; line=451 ; expr=cudaStreamSynchronize(stream)",
        "CUDA error 719: unspecified launch failure",
        "CUDA failure 214: uncorrectable ECC error encountered",
        "Cuda Runtime (an illegal memory access was encountered)",
        "CUDA failure 999: unknown error",
    ],
    DeviceError: [
        f"{RUNNING}Conv node. Status Message: CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
        f"CUBLAS failure 1: CUBLAS_STATUS_NOT_INITIALIZED {CALL}cuda_call.cc",
    ],
    ModelError: [
        f"{RUNNING}Gather node. Name:'' Status Message: indices element out of data bounds, idx=1",
        "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. Type Error: tensor",
        f"{RUNNING}Conv node. Status Message: CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED",
    ],
    MissingKernelError: [
        "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to "
        "the default CPU EP, but fallback to CPU EP has been explicitly disabled by the user.",
    ],
}
LACKS = {  # an op, as engines say that they have none
    "Det": [
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Det(22) "
        "node with name 'stem/op'",
        "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from m.onnx failed:This is an "
        "invalid model. In Node, (\"stem/op\", Det, \"\", -1), Error No Op registered for Det with "
        "domain_version of 17",
        "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted. Summary:\n"
        "-- No conversion rule found for operations: Det-17\n",
        "OpenVINO does not support the following ONNX operations: Det",
        "In node 0 with name: stem/op and operator: Det (parseNode): UNSUPPORTED_NODE: Assertion "
        "failed: No importer registered for op: Det. Attempting to import as plugin.",
    ],
    "mine:Frobnicate": ["Fatal error: mine:Frobnicate(-1) is not a registered function/op"],
    "stem/op": ["Error Code 10: Internal Error (Could not find any implementation for node stem/op"
                ".)"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in WORDS.items() for text in texts]
)
def test_an_error_is_the_models_the_memorys_or_the_devices_by_its_words(kind, text):
    found = failures.failure("the engine cannot run m.onnx", f"\n {text}\n")
    assert type(found) is kind
    assert str(found).startswith("the engine cannot run m.onnx: ")


@pytest.mark.parametrize(
    ("op", "text"), [(op, text) for op, texts in LACKS.items() for text in texts]
)
def test_an_op_that_an_engine_lacks_is_named_with_what_to_do(op, text):
    found = failures.failure("the engine cannot load m.onnx", text)
    assert type(found) is MissingKernelError
    assert found.exit_code == 4
    assert f": it has no {op} as this model needs it; name a target of another" in str(found)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(2, MemoryShortError), (700, DeviceFaultError), (100, DeviceFaultError), (901, DeviceError)],
)
def test_a_status_of_cuda_is_memory_a_fault_or_one_call_that_failed(status, kind):
    assert type(failures.of_cuda("cudaMalloc failed", status)) is kind
