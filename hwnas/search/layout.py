"""How genomes address tables of blocks, and how networks are told apart.

Built once for a space; everything that prices or compares a population is then a gather.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from hwnas.space import SearchSpace


@dataclass(frozen=True, eq=False)
class Layout:
    """How option indices of a space address a table of its blocks.

    A flat table has one cell for each (block, resolution, depth, kernel_size, expand_ratio) option;
    the depth is that of the block's stage, so a cell knows whether its block is there at all. After
    them come the free choices of a space of elastic widths, one cell for each option.

    Attributes:
        kernel, expand, depth: (B,) columns of each block's choices; depth is 0 where `gated` is
            false.
        gated: whether the space has depth choices.
        stage_of: (B,) stage of each block.
        shape: sizes of a flat table's axes (B, R, D, K, E).
        offered: (B, K, E) whether the block offers the options.
        live: (B, D, E) whether the block is there.
        free: (F,) columns of `space.elastic_columns`; none where widths are fixed.
        n_free: most options of a free choice.
    """

    space: SearchSpace
    kernel: np.ndarray
    expand: np.ndarray
    depth: np.ndarray
    gated: bool
    stage_of: np.ndarray
    shape: tuple[int, int, int, int, int]
    offered: np.ndarray
    live: np.ndarray
    free: np.ndarray
    n_free: int

    @functools.cached_property
    def present(self) -> np.ndarray:
        """(B, E) whether an expand option means that the block is there, at enough depth."""
        return np.asarray(self.live.any(axis=1))

    def index(self, genome: np.ndarray) -> np.ndarray:
        """(B + F, n) cell of each block and free choice, for (n, n_choices) genomes."""
        rows = np.asarray(genome).T
        n_depths, n_kernels, n_expands = self.shape[2:]
        cell = rows.take(self.kernel, axis=0).astype(np.intp)
        if self.gated:
            cell += rows.take(self.depth, axis=0).astype(np.intp) * n_kernels
        cell *= n_expands
        cell += rows.take(self.expand, axis=0)
        size = n_depths * n_kernels * n_expands
        cell += rows[0].astype(np.intp) * size
        cell += self._starts
        if not len(self.free):
            return cell
        return np.concatenate((cell, self._free_starts + rows.take(self.free, axis=0)))

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """(B, 1) first cell of each block."""
        return np.arange(self.shape[0])[:, None] * int(np.prod(self.shape[1:]))

    @functools.cached_property
    def _free_starts(self) -> np.ndarray:
        """(F, 1) first cell of each free choice."""
        return int(np.prod(self.shape)) + np.arange(len(self.free))[:, None] * self.n_free

    def flat(self, table: np.ndarray, free: np.ndarray | None = None) -> np.ndarray:
        """The flat table of (B, R, D, K, E) cells and (F, O) free choices; None: zeros."""
        tail = np.zeros((len(self.free), self.n_free)) if free is None else np.asarray(free)
        return np.concatenate((table.reshape(-1), tail.reshape(-1)))

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """Flat table of what a block is: 0 if it is not there, else a number of its options."""
        n_kernels, n_expands = self.shape[3:]
        code = 1 + np.arange(n_kernels * n_expands).reshape(1, 1, 1, n_kernels, n_expands)
        table = np.where(self.live[:, None, :, None, :], code, 0)
        tail = np.broadcast_to(np.arange(self.n_free), (len(self.free), self.n_free))
        whole = self.flat(np.broadcast_to(table, self.shape), tail)
        return whole.astype(np.uint8 if code.max() < 256 else "u2")

    def identity(self, genome: np.ndarray) -> list[bytes]:
        """What tells networks apart: equal bytes if and only if `space.canonical` is equal."""
        code = self.codes.take(self.index(genome))
        first = np.asarray(genome).T[:1].astype(code.dtype)
        rows = np.ascontiguousarray(np.concatenate((first, code)).T)
        out: list[bytes] = rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist()
        return out

    def blocks_to_table(self, block: np.ndarray) -> np.ndarray:
        """(R, B, K, E) values spread to the axes (B, R, D, K, E) of a flat table, 0 where the block
        is not there.
        """
        values = np.asarray(block).transpose(1, 0, 2, 3)[:, :, None]
        return np.asarray(np.where(self.live[:, None, :, None, :], values, 0.0))


@functools.lru_cache(maxsize=32)
def layout(space: SearchSpace) -> Layout:
    """The layout of a space."""
    blocks = space.blocks
    gated = any(block.depth >= 0 for block in blocks)
    n_depths = max((len(stage.depths) for stage in space.stages), default=0) or 1
    n_kernels = max(len(space.choices[block.kernel].options) for block in blocks)
    n_expands = max(len(space.choices[block.expand].options) for block in blocks)
    offered = np.zeros((len(blocks), n_kernels, n_expands), dtype=bool)
    live = np.ones((len(blocks), n_depths, n_expands), dtype=bool)
    for b, block in enumerate(blocks):
        expands = space.choices[block.expand].options
        offered[b, : len(space.choices[block.kernel].options), : len(expands)] = True
        live[b][:, [i for i, ratio in enumerate(expands) if ratio == 0]] = False
        for d, depth in enumerate(space.stages[block.stage].depths):
            live[b, d] &= depth > block.position
    return Layout(
        space,
        np.array([block.kernel for block in blocks]),
        np.array([block.expand for block in blocks]),
        np.array([max(block.depth, 0) for block in blocks]),
        gated,
        np.array([block.stage for block in blocks]),
        (len(blocks), len(space.resolutions), n_depths, n_kernels, n_expands),
        offered,
        live,
        np.array(space.elastic_columns, dtype=np.int64),
        max((len(space.choices[c].options) for c in space.elastic_columns), default=0),
    )
