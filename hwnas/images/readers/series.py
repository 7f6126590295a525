"""Reader of labelled time series in the text files of the UCR and UEA archives.

`.ts`: header lines `@key value`, then after `@data` a line for each series: channels divided by
colons, values by commas, the class last (www.aeon-toolkit.org, "The .ts file format"). `.tsv` and
`.txt` (UCR 2018 and before): the class, then the values of the one channel; a shorter series ends
in NaN (www.cs.ucr.edu/~eamonn/time_series_data_2018, briefing document).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hwnas.images.listing import entries
from hwnas.images.network_input import fit_length
from hwnas.images.raw import Part, RawData, existing, from_parts
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError

SUFFIXES = (".ts", ".tsv", ".txt")
TRAIN, TEST = "_TRAIN", "_TEST"  # how the names of an archive's two files end
SHOWN = 20  # characters of a value, or classes, that a message shows


class _Series(NamedTuple):
    """One series: its line, class, and values (channels, time)."""

    line: int
    label: str
    values: np.ndarray


class _File(NamedTuple):
    """What a file holds; classes in its order, none where it does not list them."""

    path: Path
    series: list[_Series]
    classes: tuple[str, ...]


def read(config: DataConfig) -> RawData:
    """What a file or a folder of one data set holds."""
    return from_parts(*_parts(existing(config.root, "series"), config.series_length))


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The files of training and test, and their folder."""
    found = _files(existing(config.root, "series"))
    return found["train"].parent, found.values()


def _files(root: Path) -> dict[str, Path]:
    """The file of each part, "train" and where there is one "test".

    Args:
        root: a file, or the folder of one data set; `NAME_TEST` belongs to `NAME_TRAIN`.

    Raises:
        ConfigError: the folder holds no such file, or several data sets.
    """
    train = root if root.is_file() else _train_file(root)
    if train.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{train} is not a file of series; known: {', '.join(SUFFIXES)}")
    if not train.stem.endswith(TRAIN):
        return {"train": train}
    test = train.with_name(train.stem[: -len(TRAIN)] + TEST + train.suffix)
    return {"train": train, "test": test} if test.is_file() else {"train": train}


def _parts(root: Path, length: int) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Every series of a file or folder.

    Args:
        root: see `_files`.
        length: steps that every series is cut or padded to (see `fit_length`); 0: as they are.

    Returns:
        `{part: (series (n, channels, time) float32, labels (n,) int64)}` and the class names.

    Raises:
        ConfigError: a file is missing, of another kind or damaged; a value is missing or no number;
            channels or lengths differ; a class is not among those of training.
    """
    files = [_read_file(path) for path in _files(root).values()]
    classes = files[0].classes or _ordered({one.label for one in files[0].series})
    first = files[0].series[0]
    parts = {}
    for part, file in zip(("train", "test"), files, strict=False):
        labels = [_label(one, classes, file.path) for one in file.series]
        values = [_fitted(one, first, length, file.path) for one in file.series]
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite: refused later
            stacked = np.stack(values).astype(np.float32)
        parts[part] = (stacked, np.array(labels, dtype=np.int64))
    return parts, classes


def _train_file(folder: Path) -> Path:
    """The one training file of a folder; of one data set in several formats the first of them."""
    found = [p for p in entries(folder) if p.suffix.lower() in SUFFIXES and p.is_file()]
    named = [path for path in found if path.stem.endswith(TRAIN)] or found
    if not named:
        raise ConfigError(
            f"{folder} holds no file of series; expected NAME_TRAIN.ts and NAME_TEST.ts (or .tsv)"
        )
    if len({path.stem for path in named}) > 1:
        names = ", ".join(path.name for path in named[:5])
        raise ConfigError(
            f"{folder} holds several data sets ({names}); give one's file as data.root"
        )
    return min(named, key=lambda path: SUFFIXES.index(path.suffix.lower()))


def _read_file(path: Path) -> _File:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    lines = enumerate(text.split("\n"), start=1)
    classes: tuple[str, ...] = ()
    if path.suffix.lower() == ".ts":
        classes = _header(lines, path)
        series = [_ts_series(line, at, path) for at, line in lines if line.strip()]
    else:
        series = [_ucr_series(line, at, path) for at, line in lines if line.strip()]
    if not series:
        raise ConfigError(f"{path} holds no series; it is empty or truncated")
    return _File(path, series, classes)


# ---- .ts ----------------------------------------------------------------------------------------


def _header(lines: Iterator[tuple[int, str]], path: Path) -> tuple[str, ...]:
    """The classes that a header lists; the lines are left behind `@data`."""
    said: dict[str, list[str]] = {}
    for at, line in lines:
        words = line.split()
        if not words or words[0].startswith(("#", "%")):
            continue
        if not words[0].startswith("@"):
            raise _wrong(path, at, f"{_shown(line)} stands before @data; it is no .ts file")
        if words[0].lower() == "@data":
            return _classes(said, path)
        said[words[0].lower()] = words[1:]
    raise ConfigError(f"{path} has no line @data; it is truncated or no .ts file")


def _classes(said: dict[str, list[str]], path: Path) -> tuple[str, ...]:
    if said.get("@timestamps", ["false"])[:1] == ["true"]:
        raise ConfigError(f"{path} holds time stamps; write evenly spaced values alone")
    flag, *classes = said.get("@classlabel", ["false"])
    if flag.lower() != "true" or not classes:
        raise ConfigError(f"{path} lists no classes; expected @classLabel true CLASS CLASS ...")
    return tuple(classes)


def _ts_series(line: str, at: int, path: Path) -> _Series:
    *channels, label = line.strip().split(":")
    rows = [_numbers(channel.split(","), at, path) for channel in channels]
    if not rows:
        raise _wrong(path, at, f"{_shown(line)} has no colon before its class")
    if len({len(row) for row in rows}) > 1:
        told = ", ".join(str(len(row)) for row in rows)
        raise _wrong(path, at, f"its channels have {told} values, expected as many in each")
    return _Series(at, label.strip(), _whole(np.stack(rows), at, path))


# ---- .tsv and .txt ------------------------------------------------------------------------------


def _ucr_series(line: str, at: int, path: Path) -> _Series:
    cells = re.split("[,\t]", line.strip()) if re.search("[,\t]", line.strip()) else line.split()
    label, *values = (cell.strip() or "?" for cell in cells)
    row = _numbers(values, at, path)
    known = np.flatnonzero(~np.isnan(row))
    kept = row[: known[-1] + 1] if len(known) else row
    return _Series(at, _ucr_class(label), _whole(kept[None], at, path))


def _ucr_class(label: str) -> str:
    """Older files write class 1 as 1.0000000e+00."""
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() else label


# ---- values, classes, lengths -------------------------------------------------------------------


def _numbers(texts: Sequence[str], at: int, path: Path) -> np.ndarray:
    """(n,) float64; `?` is NaN."""
    try:
        return np.array([text.strip().replace("?", "nan") for text in texts], dtype=np.float64)
    except ValueError:
        strange = next(text for text in texts if not _is_number(text))
        raise _wrong(path, at, f"{_shown(strange)} is not a number") from None


def _is_number(text: str) -> bool:
    try:
        float(text.replace("?", "nan"))
    except ValueError:
        return False
    return True


def _whole(values: np.ndarray, at: int, path: Path) -> np.ndarray:
    """The values of a series, none of them missing."""
    if not values.size:
        raise _wrong(path, at, "the series has no values")
    missing = np.argwhere(~np.isfinite(values))
    if len(missing):
        channel, step = missing[0] + 1
        place = f"channel {channel}, step {step}"
        raise _wrong(path, at, f"{place} is missing or not finite; fill it in or remove the series")
    return values


def _fitted(one: _Series, first: _Series, length: int, path: Path) -> np.ndarray:
    """Values of the number of channels and steps that the first series has."""
    (channels, steps), (expected, first_steps) = one.values.shape, first.values.shape
    if channels != expected:
        raise _wrong(path, one.line, f"{channels} channels, the first series has {expected}")
    if not length and steps != first_steps:
        told = f"{steps} steps, the first series has {first_steps}; set data.series_length"
        raise _wrong(path, one.line, f"{told}: it cuts longer ones, and repeats the last value")
    return fit_length(one.values, length or steps)


def _label(one: _Series, classes: tuple[str, ...], path: Path) -> int:
    if one.label not in classes:
        known = ", ".join(classes[:SHOWN])
        raise _wrong(path, one.line, f"class {_shown(one.label)} is none of {known}")
    return classes.index(one.label)


def _ordered(labels: set[str]) -> tuple[str, ...]:
    """Classes by number where all are numbers, else by name."""
    if all(_is_number(label) for label in labels):
        return tuple(sorted(labels, key=float))
    return tuple(sorted(labels))


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _wrong(path: Path, at: int, what: str) -> ConfigError:
    return ConfigError(f"{path}, line {at}: {what}")
