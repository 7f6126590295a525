"""Predicted error of subnets: a sum over the choices that are live, then a monotone link.

Plain arrays evaluated by numpy, whatever fitted them (`predictor_fit`). A prediction is an error
of one supernet's subnets as measured on validation images, never an accuracy to print as such.
History: `hwnas-predictor-1`.
"""

from __future__ import annotations

import functools
import io
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.search.cost import AdditiveTerms, MonotoneLink
from hwnas.search.layout import layout
from hwnas.space import SearchSpace
from profilers.errors import FileFormatError, TableError
from profilers.schema import write_atomic

FORMAT = "hwnas-predictor-1"
ENCODING = "masked-one-hot"
MAX_BYTES = 64 << 20  # of a file; a predictor has a few hundred numbers
_TEXTS = ("format", "encoding", "space", "geometry", "supernet_sha256")
_ARRAYS = ("weights", "link_score", "link_value", "score_values")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A fitted predictor of error for a space.

    Attributes:
        space: whose networks it predicts; it may offer less than was fitted.
        supernet_sha256: file of the supernet that was measured.
        features: names of the encoding's columns, `stage1.block1.kernel_size=5`.
        weights: (F,) error that each live feature adds to the score.
        intercept: score of no feature.
        link: score to predicted error, a fraction.
        residual_spread: standard deviation of measured minus predicted error of networks that were
            left out of the fit, a fraction.
        scores: cross-validation: n, kendall_tau, kendall_tau_near (within one point of accuracy),
            mae, rmse (fractions), alpha, and the same of MACs alone as macs_*.
    """

    space: SearchSpace
    supernet_sha256: str
    features: tuple[str, ...]
    weights: np.ndarray
    intercept: float
    link: MonotoneLink
    residual_spread: float
    scores: dict[str, float]

    @functools.cached_property
    def terms(self) -> AdditiveTerms:
        """The prediction as terms of this predictor's space."""
        return self.additive_terms(self.space)

    def predict(self, genome: np.ndarray) -> np.ndarray:
        """(n,) predicted error, a fraction, of (n, n_choices) genomes of `space`."""
        return self.terms.evaluate(genome)

    def additive_terms(self, space: SearchSpace) -> AdditiveTerms:
        """The prediction for a space of the same geometry, as a sum and a link.

        Raises:
            TableError: another geometry, or an option that was not fitted.
        """
        check_serves(self, space)
        terms = score_terms(space, self.features, self.weights, self.intercept)
        return replace(terms, link=self.link)


def score_terms(
    space: SearchSpace, features: tuple[str, ...], weights: np.ndarray, intercept: float
) -> AdditiveTerms:
    """The score of a linear predictor on the encoding, as a sum over blocks.

    Args:
        space: the search space.
        features: names of columns; other options weigh nothing.
        weights: (F,).
        intercept: score of no feature.
    """
    weight = dict(zip(features, weights.tolist(), strict=True))
    n_blocks, n_resolutions, n_depths, n_kernels, n_expands = layout(space).shape

    def of(column: int, size: int) -> np.ndarray:
        choice = space.choices[column]
        values = [weight.get(f"{choice.name}={option}", 0.0) for option in choice.options]
        return np.pad(values, (0, size - len(values)))

    kernel = np.stack([of(block.kernel, n_kernels) for block in space.blocks])
    expand = np.stack([of(block.expand, n_expands) for block in space.blocks])
    cells = kernel[:, :, None] + expand[:, None, :]
    depth = np.zeros((len(space.stages), n_depths))
    for block in space.blocks:
        if block.depth >= 0:
            depth[block.stage] = of(block.depth, n_depths)
    return AdditiveTerms(
        space,
        intercept + of(0, n_resolutions),
        np.broadcast_to(cells, (n_resolutions, n_blocks, n_kernels, n_expands)),
        np.broadcast_to(depth, (n_resolutions, *depth.shape)),
    )


def feature_names(space: SearchSpace) -> tuple[str, ...]:
    """Columns of the encoding: each option of each choice, but the expand ratio 0 (no block)."""
    return tuple(
        f"{choice.name}={option}" for choice in space.choices for option in choice.options if option
    )


def encode(space: SearchSpace, genome: np.ndarray) -> np.ndarray:
    """(n, F) masked one-hot of (n, n_choices) genomes: 1 where the option is chosen and live.

    Dead choices are all zeros, because their canonical value is 0 and no feature is an option 0.
    """
    pairs = [(i, o) for i, choice in enumerate(space.choices) for o in choice.options if o]
    columns, options = np.array(pairs).T
    return np.asarray(space.canonical(genome)[:, columns] == options, dtype=np.float64)


def check_serves(predictor: Predictor, space: SearchSpace) -> None:
    """Refuse a space that the predictor was not fitted for.

    Raises:
        TableError: another geometry, or an option that was not fitted.
    """
    _check_geometry(space, predictor.space.name, predictor.space.geometry)
    missing = sorted(set(feature_names(space)) - set(predictor.features))
    if missing:
        raise TableError(
            f"accuracy predictor was fitted without {missing[0]} ({len(missing)} options lack); "
            "measure subnets of this space: `hwnas evaluate`"
        )


def _check_geometry(space: SearchSpace, name: str, geometry: str) -> None:
    if geometry != space.geometry:
        raise TableError(
            f"accuracy predictor was fitted for space {name} of geometry {geometry[:12]}, not for "
            f"{space.name} of geometry {space.geometry[:12]}; run `hwnas evaluate` for this space"
        )


# ---- file ---------------------------------------------------------------------------------------


def save(predictor: Predictor, path: Path) -> None:
    """Write predictor.npz atomically: plain arrays, equal predictors give equal bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        format=np.array(FORMAT),
        encoding=np.array(ENCODING),
        space=np.array(predictor.space.name),
        geometry=np.array(predictor.space.geometry),
        supernet_sha256=np.array(predictor.supernet_sha256),
        features=np.array(predictor.features),
        weights=predictor.weights.astype("<f8"),
        intercept=np.array(predictor.intercept),
        link_score=predictor.link.score.astype("<f8"),
        link_value=predictor.link.value.astype("<f8"),
        residual_spread=np.array(predictor.residual_spread),
        score_names=np.array(sorted(predictor.scores)),
        score_values=np.array([predictor.scores[name] for name in sorted(predictor.scores)]),
    )
    write_atomic(Path(path), buffer.getvalue())


def load(path: Path, space: SearchSpace) -> Predictor:
    """The predictor of a file, for a space of the same geometry.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was fitted for another geometry, or without an option of the space.
    """
    data = _read(Path(path))
    _check_geometry(space, str(data["space"]), str(data["geometry"]))
    predictor = Predictor(
        space,
        str(data["supernet_sha256"]),
        tuple(data["features"].tolist()),
        data["weights"],
        float(data["intercept"]),
        MonotoneLink(data["link_score"], data["link_value"]),
        float(data["residual_spread"]),
        dict(zip(data["score_names"].tolist(), data["score_values"].tolist(), strict=True)),
    )
    check_serves(predictor, space)
    return predictor


def _read(path: Path) -> dict[str, Any]:
    """The arrays of a file, of the right kinds and sizes."""
    try:
        data = _arrays(path.read_bytes())
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; `hwnas evaluate` writes it") from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(
            f"{path} cannot be read as an accuracy predictor ({error}); it is truncated or edited"
        ) from error
    if str(data.get("format")) != FORMAT:
        raise FileFormatError(f"{path} has format {data.get('format')}, expected {FORMAT!r}")
    problem = _problem(data)
    if problem:
        raise FileFormatError(f"{path} is no valid accuracy predictor: {problem}")
    return data


def _arrays(content: bytes) -> dict[str, Any]:
    """The arrays of an .npz file.

    Sizes and checksums come first: the reader of arrays trusts what it is given.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
            raise ValueError("it holds more than 64 MiB")
        broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _problem(data: dict[str, Any]) -> str:
    """What is wrong with the arrays of a file; empty if nothing is."""
    numbers = (*_ARRAYS, "intercept", "residual_spread")
    for name in (*_TEXTS, *numbers, "features", "score_names"):
        if name not in data:
            return f"it lacks {name}"
        if data[name].dtype.kind != ("f" if name in numbers else "U"):
            return f"{name} holds {data[name].dtype}"
        if name in numbers and not np.isfinite(data[name]).all():
            return f"{name} is not finite"
        scalar = name in _TEXTS or name in ("intercept", "residual_spread")
        if data[name].ndim != (0 if scalar else 1):
            return f"{name} has shape {data[name].shape}"
    if str(data["encoding"]) != ENCODING:
        return f"its encoding is {data['encoding']}, known is {ENCODING}"
    if len(data["features"]) != len(data["weights"]):
        return "features and weights differ in number"
    if len(data["score_names"]) != len(data["score_values"]):
        return "score names and values differ in number"
    score, value = data["link_score"], data["link_value"]
    if len(score) != len(value) or not len(score):
        return "the link's knots differ in number"
    if (np.diff(score) <= 0).any() or (np.diff(value) < 0).any():
        return "the link is not monotone"
    return ""
