"""weights.bin: the same bytes on every machine, checked against the published generator."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from profilers import weights
from profilers.errors import ConfigError, FileFormatError


def table(*tensors, size):
    return {"bytes": size, "tensors": {f"t{i}": list(t) for i, t in enumerate(tensors)}}


SMALL = table([[0, [3, 2], 1.0]], [[64, [5], 0.25], [128, [2], 0.0]], size=192)


def philox4x64_words(key: int, blocks: int) -> list[int]:
    """The raw words by the paper's definition (Random123's philox4x64, 10 rounds), in integers."""
    mask, words = (1 << 64) - 1, []
    for counter in range(1, blocks + 1):
        c, k = [counter, 0, 0, 0], [key & mask, key >> 64]
        for _ in range(10):
            high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 1 << 64)
            high1, low1 = divmod(0xCA5A826395121157 * c[2], 1 << 64)
            c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += c
    return words


def test_the_bytes_follow_the_published_generator(tmp_path):
    weights.generate(tmp_path / "weights.bin", SMALL, seed=7)
    halves = []
    for word in philox4x64_words(7, 6):
        halves += [word & 0xFFFFFFFF, word >> 32]
    unit = [(half >> 8) / 2**23 - 1 for half in halves]
    scale = [1.0] * 6 + [0.0] * 10 + [0.25] * 5 + [0.0] * 27
    expected = np.array([u * s for u, s in zip(unit, scale, strict=True)], dtype="<f4")
    found = np.fromfile(tmp_path / "weights.bin", dtype="<f4")
    assert (found == expected).all()


def test_digest_is_the_hash_of_the_file_and_known(tmp_path):
    told = weights.generate(tmp_path / "weights.bin", SMALL, seed=7)
    data = (tmp_path / "weights.bin").read_bytes()
    assert len(data) == 192
    assert told == hashlib.sha256(data).hexdigest() == weights.digest(SMALL, seed=7)
    assert weights.digest(SMALL, seed=8) != told


def test_pieces_make_no_difference(monkeypatch):
    spread = table([[4 * i, [3], 1.0 + i] for i in range(0, 4000, 7)], size=16_000)
    whole = weights.digest(spread, seed=1)
    monkeypatch.setattr(weights, "PIECE", 16)
    assert weights.digest(spread, seed=1) == whole


def test_values_are_uniform_within_their_scale(tmp_path):
    weights.generate(tmp_path / "w", table([[0, [200_000], 0.5]], size=800_000), seed=0)
    values = np.fromfile(tmp_path / "w", dtype="<f4")
    assert -0.5 <= values.min() < -0.499
    assert 0.499 < values.max() < 0.5
    assert abs(values.mean()) < 0.003
    assert abs(values.std() - 0.5 / 3**0.5) < 0.002


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (table([[0, [4], 1.0]], [[12, [4], 1.0]], size=64), "overlap at byte 12"),
        (table([[60, [4], 1.0]], size=64), "past the file's 64"),
        (table([[2, [1], 1.0]], size=64), "multiple of 4"),
        (table([[0, [0], 1.0]], size=64), "positive sizes"),
        (table([[0, [1], float("inf")]], size=64), "finite"),
        (table([[0, [1], -1.0]], size=64), "finite"),
        (table(size=63), "63 bytes"),
    ],
)
def test_an_impossible_layout_is_refused_and_leaves_no_file(tmp_path, bad, reason):
    with pytest.raises(FileFormatError, match=reason):
        weights.generate(tmp_path / "weights.bin", bad, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        weights.generate(tmp_path / "missing" / "weights.bin", SMALL, seed=0)
