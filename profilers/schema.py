"""The records that host and device share: targets, and how files are read and written.

Standard library only. Knows no search space and no engine. Formats: docs/formats.md.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Tuple

from profilers import precisions
from profilers.errors import ConfigError, DiskFullError, FileFormatError
from profilers.json_text import parse_json

OPTIMISATION_LEVELS = ("disable", "basic", "extended", "layout", "all")

PACKAGE_FORMAT = "hwnas-package-1"
KIT_FORMAT = "hwnas-kit-1"
MEASUREMENTS_FORMAT = "hwnas-measurements-1"
WORKER_PROTOCOL = "hwnas-worker-1"
SURVEY_FORMAT = "hwnas-survey-1"
ENGINE_FORMAT = "hwnas-engine-1"
LINE_BYTES = 1 << 20  # a longer line between host and worker ends the session
HEARTBEAT_S = 5.0  # worker and host say this often that they are there
BEAT = b'{"seq":0,"type":"heartbeat"}\n'  # the host's, which is not answered


@dataclass(frozen=True)
class Target:
    """A device and how it is driven. The name says all that changes a latency.

    `hardware` names the probes of the device, a file of `profilers/devices/`, where the device has
    a name of its own (`pi5-desk` is a `raspberry-pi`); empty: the device's name is theirs.
    `spinning` threads go on looking for work between inferences, as engines do unless told not to.
    """

    device: str
    runtime: str
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1
    optimisation: str = "all"
    meter: str = "none"
    meter_options: Dict[str, str] = field(default_factory=dict)
    connection: Dict[str, Any] = field(default_factory=lambda: {"kind": "local"})
    plugins: Tuple[str, ...] = ()
    hardware: str = ""
    spinning: bool = False

    def __post_init__(self) -> None:
        for label in ("device", "runtime", "meter", "hardware"):
            if not isinstance(getattr(self, label), str):
                raise ConfigError(f"target {label} {getattr(self, label)!r} is not text")
        if not isinstance(self.connection, dict):
            raise ConfigError(
                f"target connection {self.connection!r} is neither {{kind: local}} nor "
                "{ssh: user@host}"
            )
        for label, word, allowed in (
            ("precision", self.precision, precisions.names()),
            ("optimisation", self.optimisation, OPTIMISATION_LEVELS),
        ):
            if word not in allowed:
                raise ConfigError(f"target {label} {word!r} is not one of {', '.join(allowed)}")
        for label, value in (("batch", self.batch), ("threads", self.threads)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ConfigError(f"target {label} {value!r} is not a whole number from 1 to 4096")
        if not isinstance(self.spinning, bool) or (self.spinning and self.threads == 1):
            raise ConfigError(
                f"target spinning {self.spinning!r} with threads {self.threads}: it is true or "
                "false, and true with 2 threads or more"
            )
        options = self.meter_options
        plain = isinstance(options, dict) and all(
            isinstance(value, (str, int, float)) and not isinstance(value, bool)
            for value in options.values()
        )
        if not plain:
            raise ConfigError(
                f"target meter_options {options!r} must be text and numbers by name, as "
                "{path: FILE}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.device):
            raise ConfigError(
                f"target device {self.device!r} may hold letters, digits, '-' and '_' only"
            )

    @property
    def name(self) -> str:
        """`<device>.<runtime>.<precision>.b<batch>.t<threads>`, plus `.o<level>` if not default and
        `.spin` if threads spin.
        """
        suffix = "" if self.optimisation == "all" else f".o{self.optimisation}"
        suffix += ".spin" if self.spinning else ""
        return (
            f"{self.device}.{self.runtime}.{self.precision}.b{self.batch}.t{self.threads}{suffix}"
        )

    def to_json(self) -> Dict[str, Any]:
        """Plain dictionary, with the address of the device; `spinning` where it is so."""
        out = asdict(self)
        if not self.spinning:
            del out["spinning"]
        out["plugins"] = list(self.plugins)
        return {"name": self.name, **out}


def target_from_json(data: Dict[str, Any]) -> Target:
    """The target of a plain dictionary; unknown keys are refused.

    Raises:
        ConfigError: a key is unknown or a value is out of range.
    """
    allowed = {f.name for f in fields(Target)}
    given = {k: v for k, v in data.items() if k != "name"}
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise ConfigError(
            f"target has unknown key {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}"
        )
    missing = sorted({"device", "runtime"} - set(given))
    if missing:
        raise ConfigError(f"target lacks the key {missing[0]!r}")
    plugins = given.get("plugins", ())
    if not isinstance(plugins, (list, tuple)) or not all(isinstance(p, str) for p in plugins):
        raise ConfigError(f"target plugins {plugins!r} must be a list of files")
    given["plugins"] = tuple(plugins)
    return Target(**given)


def target_from_name(name: str) -> Target:
    """The local target that a name like `host.ort-cpu.fp32.b1.t1` (or `….obasic`) stands for."""
    driven = r"([^.]+)\.([^.]+)\.([^.]+)\.b(\d+)\.t(\d+)"
    match = re.fullmatch(driven + r"(?:\.o([a-z]+))?(\.spin)?", name)
    if match is None:
        raise ConfigError(
            f"target {name!r} is neither a file targets/{name}.yaml nor a name like "
            "host.ort-cpu.fp32.b1.t1"
        )
    device, runtime, precision, batch, threads, level, spin = match.groups()
    found = Target(device, runtime, precision, int(batch), int(threads), level or "all")
    return replace(found, spinning=bool(spin))


def canonical_json(value: Any) -> str:
    """JSON text with sorted keys and no spaces: equal values, equal bytes. NaN is refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """Hex sha256 of UTF-8 text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces.

    Raises:
        FileFormatError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            for piece in iter(lambda: handle.read(1 << 20), b""):
                digest.update(piece)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, never a part.

    Raises:
        DiskFullError: no space is left; the old file is untouched.
        ConfigError: the folder may not be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_error(path: Path, error: OSError) -> Exception:
    """The error to raise when writing `path` failed with `error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # the last: a limit on file size
        return DiskFullError(f"disk full while writing {path}; free some space and run this again")
    reason = error.strerror or error
    return ConfigError(f"cannot write {path}: {reason}; check permissions or use another folder")


def write_json(path: Path, value: Any) -> None:
    """Write a value atomically as canonical JSON with a final newline."""
    write_atomic(path, (canonical_json(value) + "\n").encode("utf-8"))


def read_json(path: Path, expected_format: str = "") -> Any:
    """The value of a JSON file.

    Args:
        path: the file.
        expected_format: refuse a file whose `format` field differs (empty: not looked at).

    Raises:
        FileFormatError: the file is missing, truncated, not JSON or of another format.
    """
    try:
        value = parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(
            f"{path} does not exist; check the path, or run the command that writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise FileFormatError(
            f"{path} cannot be read as JSON ({error}); it is truncated or was edited"
        ) from error
    if expected_format:
        check_format(path, value, expected_format)
    return value


def check_format(path: Path, value: Any, expected: str) -> None:
    """Refuse what a file holds unless its `format` is the expected one.

    Raises:
        FileFormatError: it is of another kind, or of another version.
    """
    found = value.get("format") if isinstance(value, dict) else None
    if found != expected:
        raise FileFormatError(
            f"{path} has format {found!r}, expected {expected!r}; make it again with this version, "
            "or give a file of this kind"
        )


def append_lines(path: Path, records: Iterable[Dict[str, Any]]) -> None:
    """Append records to a JSON Lines file, one write and one fsync for all of them."""
    text = "".join(canonical_json(record) + "\n" for record in records)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as handle:
            handle.seek(0, os.SEEK_END)
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":  # a killed writer left half a line: lose only that one
                    text = "\n" + text
            handle.write(text.encode("utf-8"))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise write_error(Path(path), error) from error


def read_lines(path: Path) -> Tuple[List[Dict[str, Any]], List[int]]:
    """Records of a JSON Lines file and the numbers (from 1) of the lines that cannot be read.

    A broken line (a killed writer, a bad disk) is skipped and reported, not fatal.
    """
    records: List[Dict[str, Any]] = []
    broken: List[int] = []
    for number, line in _numbered_lines(path):
        try:
            record = parse_json(line)
        except ValueError:
            broken.append(number)
            continue
        if isinstance(record, dict):
            records.append(record)
        else:
            broken.append(number)
    return records, broken


def _numbered_lines(path: Path) -> Iterator[Tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
