"""A libcudart without a GPU: memory is the host's, time is modelled.

Every function is one of the CUDA Runtime API, with its C arguments; a call of another name fails.
Statuses and handles behave as the documentation says: 0 is success, work that is captured does not
run, a graph replays what was captured. What is put into a stream, copies and marks too, is done
when somebody waits for it. Memory ends: then cudaMalloc returns 2. A kernel's fault is told by the
call that waits for it, and by every later one: only a new process helps.
"""

import collections
import ctypes
import functools
import itertools
from types import SimpleNamespace

CALL_MS = 0.5  # modelled time of one piece of work


class Library:
    """libcudart as ctypes sees it."""

    def __init__(self, devices=1, gpu=b"Modelled GPU", total_bytes=1 << 30):
        self.devices, self.gpu, self.total_bytes = devices, gpu, total_bytes
        self.fault = 0  # status of every call from now on
        self.fault_after = None  # pieces of work until one of them is a fault
        self.now_ms = 0.0
        self.memory, self.marks, self.graphs = {}, {}, {}
        self.queued = collections.defaultdict(collections.deque)  # work of each stream
        self.recorded = {}  # stream of each event
        self.capturing = None
        self.fails = {}  # status of a function that is to fail
        self.live = {"stream": set(), "event": set(), "graph_exec": set()}
        self.launched = 0
        self._handles = itertools.count(0x1000)
        self.cudaGetErrorString = Text(lambda status: b"modelled error")

    def __getattribute__(self, name):
        fault = name.startswith("cuda") and object.__getattribute__(self, "fault")
        if fault and name != "cudaGetErrorString":
            return lambda *arguments: fault
        return object.__getattribute__(self, name)

    def free_bytes(self):
        """Memory that is left."""
        return self.total_bytes - sum(len(buffer) for buffer in self.memory.values())

    def work(self, stream, run):
        """What an engine puts into a stream: run when it is waited for, or kept by a capture."""
        if self.capturing is not None:
            self.capturing.append(run)
        else:
            self.queued[stream].append(functools.partial(self._do, run))

    def _wait(self, *streams):
        """Do what is in streams; the status of it."""
        for stream in streams:
            while self.queued[stream] and not self.fault:
                self.queued[stream].popleft()()
        return self.fault

    def _do(self, run):
        run()
        self.now_ms += CALL_MS
        if self.fault_after is not None:
            self.fault_after -= 1
            self.fault = 0 if self.fault_after > 0 else 700

    def _new(self, pointer, kind):
        pointer._obj.value = next(self._handles)
        self.live[kind].add(pointer._obj.value)
        return self.fails.get(kind, 0)

    def _gone(self, kind, handle):
        self.live[kind].remove(handle.value)
        return 0

    def cudaSetDevice(self, device):
        return 0 if device < self.devices else 101

    def cudaGetDeviceCount(self, pointer):
        pointer._obj.value = self.devices
        return 0 if self.devices else 100

    def cudaRuntimeGetVersion(self, pointer):
        pointer._obj.value = 12060
        return 0

    cudaDriverGetVersion = cudaRuntimeGetVersion

    def cudaGetDeviceProperties(self, buffer, device):
        buffer.value = self.gpu
        return 0

    def cudaDeviceGetAttribute(self, pointer, attribute, device):
        pointer._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cudaMemGetInfo(self, free, total):
        free._obj.value, total._obj.value = self.free_bytes(), self.total_bytes
        return 0

    def cudaMalloc(self, pointer, size):
        if size.value > self.free_bytes():
            return 2
        buffer = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(buffer)
        self.memory[pointer._obj.value] = buffer
        return 0

    def cudaFree(self, pointer):
        status = self._wait(*self.queued)
        del self.memory[pointer.value]
        return status

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        device = to if kind == 1 else source
        assert kind in (1, 2)
        assert size.value <= len(self.memory[device.value])
        if kind == 1:  # memory that is not pinned is read at once
            source = ctypes.create_string_buffer(ctypes.string_at(source, size.value))
        copy = functools.partial(ctypes.memmove, to, source, size.value)
        self.queued[stream.value].append(copy)
        return 0

    def cudaStreamCreateWithFlags(self, pointer, flags):
        assert flags.value == 1  # not the default stream, nor waiting for it
        return self._new(pointer, "stream")

    def cudaStreamSynchronize(self, stream):
        return self._wait(stream.value) if stream.value in self.live["stream"] else 400

    def cudaStreamDestroy(self, stream):
        self._wait(stream.value)
        return self._gone("stream", stream)

    def cudaEventCreate(self, pointer):
        return self._new(pointer, "event")

    def cudaEventRecord(self, event, stream):
        self.marks.pop(event.value, None)
        self.recorded[event.value] = stream.value
        self.queued[stream.value].append(functools.partial(self._mark, event.value))
        return 0

    def _mark(self, event):
        self.marks[event] = self.now_ms

    def cudaEventSynchronize(self, event):
        return self._wait(self.recorded[event.value]) if event.value in self.recorded else 0

    def cudaEventElapsedTime(self, pointer, start, stop):
        if not {start.value, stop.value} <= set(self.marks):
            return 600 if {start.value, stop.value} <= set(self.recorded) else 400
        pointer._obj.value = self.marks[stop.value] - self.marks[start.value]
        return 0

    def cudaEventDestroy(self, event):
        return self._gone("event", event)

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing = []
        return 0

    def cudaStreamEndCapture(self, stream, pointer):
        pointer._obj.value = next(self._handles)
        self.graphs[pointer._obj.value], self.capturing = self.capturing, None
        return self.fails.get("cudaStreamEndCapture", 0)

    def cudaGraphInstantiateWithFlags(self, pointer, graph, flags):
        assert flags.value == 0
        status = self._new(pointer, "graph_exec")
        self.graphs[pointer._obj.value] = self.graphs[graph.value]
        return status

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph.value]
        return 0

    def cudaGraphLaunch(self, graph, stream):
        self.launched += 1
        for run in self.graphs[graph.value]:
            self.queued[stream.value].append(functools.partial(self._do, run))
        return 0

    def cudaGraphExecDestroy(self, graph):
        return self._gone("graph_exec", graph)


class Text(SimpleNamespace):
    """A function that gives text, whose type of result ctypes wants to be told."""

    def __init__(self, call):
        super().__init__(call=call, restype=None)

    def __call__(self, *arguments):
        assert self.restype is ctypes.c_char_p
        return self.call(*arguments)
