"""NVML: what an NVIDIA GPU says of its power, through libnvidia-ml of the driver.

Cards from Volta on count their energy (`nvmlDeviceGetTotalEnergyConsumption`, mJ since the driver
was loaded); others tell their power (`nvmlDeviceGetPowerUsage`, mW, averaged over up to a second).
GPUs are numbered as NVML numbers them, not by CUDA_VISIBLE_DEVICES. The GPU alone is metered, not
the machine around it.

Options: index (0), source (auto, counter, power), library (libnvidia-ml.so.1), period_s (0.05).
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Iterator, List

from profilers.energy.meters import number, options
from profilers.energy.sampling import Polled, Sensor
from profilers.errors import MeterError
from profilers.plugins import select
from profilers.schema import Target

DEFAULTS = {
    "index": "0",
    "source": "auto",
    "library": "libnvidia-ml.so.1",
    "period_s": "0.05",
}
SUCCESS, NOT_SUPPORTED = 0, 3  # nvmlReturn_t
W_PER_MW = 1e-3
POWER_LAG_S = 1.0  # what `nvmlDeviceGetPowerUsage` is the mean of, on most cards
MOST_W = 2000.0  # of a card that names no limit
PEAK = 2.0  # power over the card's limit, which is a mean


@contextlib.contextmanager
def open(target: Target) -> Iterator[Polled]:
    """Energy of one GPU.

    Raises:
        MeterError: no driver, no such GPU, or it tells neither energy nor power.
    """
    given = options(target, DEFAULTS)
    source = select(given["source"], ("auto", "counter", "power"), "source")
    library = load_library(given["library"])
    _call(library, "nvmlInit_v2")
    try:
        gpu = ctypes.c_void_p()
        index = ctypes.c_uint(int(number(given, "index")))
        _call(library, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(gpu))
        counts = source != "power" and _counts(library, gpu)
        if source == "counter" and not counts:
            raise MeterError("meter nvml: this GPU does not count its energy; use source: power")
        meter = Polled(_sensor(library, gpu, counts, number(given, "period_s", 0.001)))
        try:
            yield meter
        finally:
            meter.close()
    finally:
        library.nvmlShutdown()


def load_library(name: str) -> Any:
    """The driver's library.

    Raises:
        MeterError: it is not there.
    """
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise MeterError(
            f"meter nvml: {name} cannot be loaded ({error}); install the NVIDIA driver"
        ) from None


def _sensor(library: Any, gpu: ctypes.c_void_p, counts: bool, period_s: float) -> Sensor:
    rails = (f"{_name(library, gpu)}",)

    def energy_mj() -> List[float]:
        value = ctypes.c_ulonglong()
        _read(library, "nvmlDeviceGetTotalEnergyConsumption", gpu, ctypes.byref(value))
        return [float(value.value)]

    def power_w() -> List[float]:
        value = ctypes.c_uint()
        _read(library, "nvmlDeviceGetPowerUsage", gpu, ctypes.byref(value))
        return [W_PER_MW * value.value]

    most_w = (_most_w(library, gpu),)
    if counts:
        return Sensor("nvml", rails, "energy", period_s, energy_mj, most_w=most_w)
    return Sensor("nvml", rails, "power", period_s, power_w, most_w=most_w, lag_s=POWER_LAG_S)


def _most_w(library: Any, gpu: ctypes.c_void_p) -> float:
    """W that the card can take at most."""
    least, most = ctypes.c_uint(), ctypes.c_uint()
    limits = getattr(library, "nvmlDeviceGetPowerManagementLimitConstraints", None)
    told = limits is not None and limits(gpu, ctypes.byref(least), ctypes.byref(most)) == SUCCESS
    return PEAK * W_PER_MW * most.value if told and most.value else MOST_W


def _counts(library: Any, gpu: ctypes.c_void_p) -> bool:
    """Whether the GPU has an energy counter, and the driver knows of such."""
    value = ctypes.c_ulonglong()
    name = "nvmlDeviceGetTotalEnergyConsumption"
    counter = getattr(library, name, None)
    code = NOT_SUPPORTED if counter is None else int(counter(gpu, ctypes.byref(value)))
    if code not in (SUCCESS, NOT_SUPPORTED):
        raise MeterError(f"meter nvml: {name}: {_words(library, code)}")
    return code == SUCCESS


def _name(library: Any, gpu: ctypes.c_void_p) -> str:
    text = ctypes.create_string_buffer(96)
    _call(library, "nvmlDeviceGetName", gpu, text, ctypes.c_uint(len(text)))
    return text.value.decode("utf-8", "replace")


def _call(library: Any, function: str, *arguments: Any) -> None:
    try:
        _read(library, function, *arguments)
    except MeterError as error:
        raise MeterError(f"meter nvml: {error}") from None


def _read(library: Any, function: str, *arguments: Any) -> None:
    """A call whose error the reader of sensors puts into words of its own."""
    code = int(getattr(library, function)(*arguments))
    if code != SUCCESS:
        raise MeterError(f"{function}: {_words(library, code)}")


def _words(library: Any, code: int) -> str:
    """What the driver calls an error."""
    describe = library.nvmlErrorString
    describe.restype = ctypes.c_char_p
    text = describe(code)
    return text.decode("utf-8", "replace") if text else f"error {code}"
