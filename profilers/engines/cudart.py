"""libcudart through ctypes: the calls that timing an engine on a GPU needs, every status checked.

CUDA 11.4 (JetPack 5) to 13. Written here because cuda-bindings wants one CUDA version and the
other packages that wrap it are gigabytes. Source: NVIDIA, "CUDA Runtime API",
https://docs.nvidia.com/cuda/cuda-runtime-api/ (modules Device, Stream, Event, Memory, Graph).
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from profilers.engines import probe
from profilers.engines.failures import of_cuda
from profilers.errors import MemoryShortError, RuntimeMissingError

SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib")
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the default stream
CAPTURE_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal
MAJOR, MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, ...Minor
PROPERTIES_BYTES = 4096  # more than any version's cudaDeviceProp, whose first field is the name
DESTROY = {
    "stream": "cudaStreamDestroy",
    "event": "cudaEventDestroy",
    "graph_exec": "cudaGraphExecDestroy",
    "graph": "cudaGraphDestroy",
}


class Cuda:
    """The CUDA runtime of this process, on its first GPU."""

    def __init__(self, library: Any) -> None:
        """Take a library and its first GPU.

        Args:
            library: libcudart as ctypes loads it.
        """
        self._library = library
        self._call("cudaSetDevice", 0)

    def _call(self, name: str, *arguments: Any) -> None:
        """One call of the library.

        Raises:
            DeviceError: it returned an error; of which kind says `failures.of_cuda`.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            raise of_cuda(f"{name} failed: {_reason(self._library, status)}", status)

    def _made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(name, ctypes.byref(handle), *arguments)
        return handle

    def malloc(self, size: int) -> ctypes.c_void_p:
        """Device memory of n bytes.

        Raises:
            MemoryShortError: there is not so much; the message says how much there is.
        """
        try:
            return self._made("cudaMalloc", ctypes.c_size_t(size))
        except MemoryShortError as error:
            free, total = self.memory()
            raise MemoryShortError(
                f"{error}; {size} bytes were asked for, {free} of {total} are free on the GPU"
            ) from None

    def memory(self) -> Tuple[int, int]:
        """Bytes of the GPU's memory that are free now, and all of them."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def free(self, memory: ctypes.c_void_p) -> None:
        """Give device memory back."""
        self._call("cudaFree", memory)

    def copy(self, to: Any, source: Any, size: int, kind: int, stream: ctypes.c_void_p) -> None:
        """Copy n bytes and wait; kind is TO_DEVICE or TO_HOST."""
        self._call("cudaMemcpyAsync", to, source, ctypes.c_size_t(size), kind, stream)
        self.synchronize(stream)

    def stream(self) -> ctypes.c_void_p:
        """A stream of its own: the default one brings synchronisations that nobody asked for."""
        return self._made("cudaStreamCreateWithFlags", ctypes.c_uint(NON_BLOCKING))

    def synchronize(self, stream: ctypes.c_void_p) -> None:
        """Wait until a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> ctypes.c_void_p:
        """A mark in time."""
        return self._made("cudaEventCreate")

    def record(self, event: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        """Mark the time at which the stream gets here."""
        self._call("cudaEventRecord", event, stream)

    def elapsed_ms(self, start: ctypes.c_void_p, stop: ctypes.c_void_p) -> float:
        """ms between two marks, by the GPU's clock; waits for the second."""
        self._call("cudaEventSynchronize", stop)
        ms = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(ms), start, stop)
        return float(ms.value)

    def captured(self, work: Callable[[], None], stream: ctypes.c_void_p) -> ctypes.c_void_p:
        """An executable graph of what work puts into a stream.

        Args:
            work: enqueues into the stream and nothing else.
            stream: of its own; what is captured does not run.
        """
        self._call("cudaStreamBeginCapture", stream, CAPTURE_THREAD_LOCAL)
        try:
            work()
        finally:
            graph = self._made_from("cudaStreamEndCapture", stream)
        try:
            # cudaGraphInstantiate changed its arguments in CUDA 12, this one (11.4) did not
            flags = ctypes.c_ulonglong(0)
            return self._made("cudaGraphInstantiateWithFlags", graph, flags)
        finally:
            self.destroy("graph", graph)

    def _made_from(self, name: str, source: ctypes.c_void_p) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(name, source, ctypes.byref(handle))
        return handle

    def launch(self, graph: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        """Put an executable graph into a stream."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy(self, kind: str, handle: ctypes.c_void_p) -> None:
        """Give back a `stream`, `event`, `graph` or `graph_exec`."""
        self._call(DESTROY[kind], handle)


def load() -> Cuda:
    """CUDA in this process; ask `probe_facts` first whether it works.

    Raises:
        RuntimeMissingError: there is no libcudart.
        DeviceError: it has no GPU.
    """
    return Cuda(_library())


@functools.lru_cache(maxsize=1)
def probe_facts() -> Dict[str, Any]:
    """`cuda`, `driver` (versions such as 12.6), `gpu` (name) and `capability` (such as 8.7), asked
    once, in a process of its own.

    Raises:
        RuntimeMissingError: there is no libcudart, no driver or no GPU.
    """
    return probe.ask(__name__, "facts")


def facts() -> Dict[str, Any]:
    """As `probe_facts`, in this process."""
    library = _library()
    count = ctypes.c_int()
    status = library.cudaGetDeviceCount(ctypes.byref(count))
    if status or not count.value:
        reason = _reason(library, status) if status else "there is none"
        raise RuntimeMissingError(
            f"CUDA finds no GPU: {reason}; install the NVIDIA driver and check with `nvidia-smi`"
        )
    name = ctypes.create_string_buffer(PROPERTIES_BYTES)
    library.cudaGetDeviceProperties(name, 0)
    return {
        "cuda": _version(library.cudaRuntimeGetVersion),
        "driver": _version(library.cudaDriverGetVersion),
        "gpu": name.value.decode("ascii", errors="replace"),
        "capability": f"{_attribute(library, MAJOR)}.{_attribute(library, MINOR)}",
    }


def summary(known: Dict[str, Any]) -> str:
    """Facts in the form that engine versions carry: what changes a latency, nothing that names a
    single GPU.
    """
    return f"CUDA {known['cuda']}, {known['gpu']} (compute capability {known['capability']})"


def _version(function: Any) -> str:
    number = ctypes.c_int()
    function(ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _attribute(library: Any, attribute: int) -> int:
    value = ctypes.c_int()
    library.cudaDeviceGetAttribute(ctypes.byref(value), attribute, 0)
    return value.value


def _reason(library: Any, status: int) -> str:
    library.cudaGetErrorString.restype = ctypes.c_char_p
    text = library.cudaGetErrorString(status) or b"unknown"
    return f"{text.decode('ascii', errors='replace')} (CUDA error {status})"


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    tried: List[str] = []
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError:
            tried.append(place)
    raise RuntimeMissingError(
        f"libcudart is not found (tried {', '.join(tried[:4])} and more); install the CUDA runtime "
        "(JetPack brings it; elsewhere pip install nvidia-cuda-runtime-cu12)"
    )


def _places() -> Iterator[str]:
    """Where libcudart may be: pip's packages, where the linker looks, where CUDA installs."""
    for folder in sys.path:
        for path in sorted(Path(folder or ".").glob("nvidia/*/lib/libcudart.so.*"), reverse=True):
            yield str(path)
    yield from SONAMES
    for folder in FOLDERS:
        yield from (f"{folder}/{name}" for name in SONAMES)
