"""Seed to `weights.bin`: the same bytes on every machine, so that a kit carries no weights.

The file is a stream of numbers u in [-1, 1), one for each float32 of the file, each multiplied by
the scale of the region it falls in; bytes outside every region are zero. The stream is fully
specified integers: Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"; numpy.random.Philox with key = seed, whose raw stream numpy keeps across versions) gives 64-bit
words; the low half, then the high half of each word makes one number, u = (half >> 8) / 2**23 - 1,
which float32 holds exactly. The multiplication rounds once (IEEE 754), so no machine differs.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import numpy as np

from profilers.errors import FileFormatError
from profilers.schema import write_error

BYTES = 4  # of one float32
PIECE = 1 << 18  # numbers generated at a time: 1 MiB of file


class Region(NamedTuple):
    """One weight tensor in the file: first number, one past the last number, scale."""

    start: int
    stop: int
    scale: float


def generate(path: Path, kit_weights: Dict[str, Any], seed: int) -> str:
    """Write the weights file, atomically; hex sha256 of its bytes.

    Args:
        path: the file, `weights.bin` of the kit's folder.
        kit_weights: `{"bytes": n, "tensors": {name: [[offset, shape, scale], ...]}}` of kit.json;
            offsets in bytes.
        seed: of the stream, 0 to 2**64 - 1.

    Raises:
        FileFormatError: a region is out of bounds, overlaps another or has no finite scale.
        DiskFullError: no space is left; an older file is untouched.
        ConfigError: the folder may not be written.
    """
    path, digest, temporary = Path(path), hashlib.sha256(), ""
    pieces = _pieces(kit_weights, seed)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as handle:
            for piece in pieces:
                digest.update(piece)
                handle.write(piece)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return digest.hexdigest()


def digest(kit_weights: Dict[str, Any], seed: int) -> str:
    """Hex sha256 of the file that `generate` would write; arguments and errors as there."""
    total = hashlib.sha256()
    for piece in _pieces(kit_weights, seed):
        total.update(piece)
    return total.hexdigest()


def regions(kit_weights: Dict[str, Any]) -> List[Region]:
    """Every region of the weights table, ascending.

    Raises:
        FileFormatError: as `generate`.
    """
    found = [
        _region(name, *entry)
        for name, entries in kit_weights["tensors"].items()
        for entry in entries
    ]
    found.sort()
    end = 0
    for region in found:
        if region.start < end:
            raise FileFormatError(f"weights of the kit overlap at byte {region.start * BYTES}")
        end = region.stop
    if end * BYTES > kit_weights["bytes"]:
        raise FileFormatError(
            f"weights of the kit end at byte {end * BYTES}, past the file's {kit_weights['bytes']}"
        )
    return found


def _region(name: str, offset: int, shape: List[int], scale: float) -> Region:
    if offset < 0 or offset % BYTES or any(size < 1 for size in shape):
        raise FileFormatError(
            f"weight {name} has offset {offset} and shape {list(shape)}; "
            f"expected a multiple of {BYTES} and positive sizes"
        )
    if not 0 <= scale < math.inf:
        raise FileFormatError(f"weight {name} has scale {scale}, expected a finite number >= 0")
    start = offset // BYTES
    return Region(start, start + math.prod(shape), scale)


def _pieces(kit_weights: Dict[str, Any], seed: int) -> Iterator[bytes]:
    """The bytes of the file, PIECE numbers at a time."""
    if kit_weights["bytes"] % BYTES:
        raise FileFormatError(
            f"weights of the kit have {kit_weights['bytes']} bytes, expected a multiple of {BYTES}"
        )
    table = regions(kit_weights)
    return _stream(table, kit_weights["bytes"] // BYTES, seed)


def _stream(table: List[Region], length: int, seed: int) -> Iterator[bytes]:
    bits, first = np.random.Philox(key=seed), 0  # index of the first region not yet passed
    for start in range(0, length, PIECE):
        stop = min(start + PIECE, length)
        values = _unit(bits, PIECE)[: stop - start]
        while first < len(table) and table[first].stop <= start:
            first += 1
        values *= _scales(table, first, start, stop)
        yield values.astype("<f4").tobytes()


def _unit(bits: np.random.Philox, count: int) -> np.ndarray:
    """(count,) float32, uniform in [-1, 1), multiples of 2**-23; count is even."""
    words = bits.random_raw(count // 2)
    halves = np.empty(count, dtype=np.uint32)
    halves[0::2] = words & np.uint64(0xFFFFFFFF)
    halves[1::2] = words >> np.uint64(32)
    centred = (halves >> np.uint32(8)).astype(np.int32) - (1 << 23)
    return centred.astype(np.float32) * np.float32(2.0**-23)


def _scales(table: List[Region], first: int, start: int, stop: int) -> np.ndarray:
    """(stop - start,) float32: the scale of each number from start to stop."""
    scales = np.zeros(stop - start, dtype=np.float32)
    for region in table[first:]:
        if region.start >= stop:
            break
        scales[max(region.start, start) - start : region.stop - start] = region.scale
    return scales
