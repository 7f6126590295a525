"""The errors of hwnas, which are those of the worker: one list, one set of exit codes."""

from profilers.errors import (
    ConfigError,
    DeviceError,
    DiskFullError,
    FileFormatError,
    HwnasError,
    InfeasibleError,
    MissingOpError,
    RuntimeMissingError,
    TableError,
    TableFormatError,
    UnstableMeasurementError,
    VerificationError,
)

__all__ = [
    "ConfigError",
    "DeviceError",
    "DiskFullError",
    "FileFormatError",
    "HwnasError",
    "InfeasibleError",
    "MissingOpError",
    "RuntimeMissingError",
    "TableError",
    "TableFormatError",
    "UnstableMeasurementError",
    "VerificationError",
]
