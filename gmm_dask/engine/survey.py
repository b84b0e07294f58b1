"""The first look at all rows: what is unusable, and a random sample to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.backends import Backend
from gmm_dask.engine.chunks import RowChunks
from gmm_dask.engine.passes import ChunkMap, Missing, usable_rows
from gmm_dask.engine.reduce import tree_sum
from gmm_dask.mixture import ColumnSpread

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ChunkSurvey:
    """One chunk's share of the survey.

    Parameters
    ----------
    n_rows, n_usable : int
        Rows, and rows that a fit can use.
    n_missing, n_infinite : (d,)
        Values per feature that are NaN and infinite.
    first_missing, first_infinite : (d,)
        Row within the chunk of the first such value; -1 where there is none.
    n_bad_weights : int
        Weights that are negative, NaN or infinite.
    first_bad_weight : int
        Row within the chunk of the first such weight; -1 where there is none.
    sum_weight : float
    n_eligible : int
        Usable rows of positive weight with at least one value: a start can be found on them.
    spread : ColumnSpread
        Of the usable rows.
    sample : (m, d)
        The eligible ones of the rows that were asked for.
    sample_weight : (m,) or None
    """

    n_rows: int
    n_usable: int
    n_missing: npt.NDArray[np.int64]
    n_infinite: npt.NDArray[np.int64]
    first_missing: npt.NDArray[np.int64]
    first_infinite: npt.NDArray[np.int64]
    n_bad_weights: int
    first_bad_weight: int
    sum_weight: float
    n_eligible: int
    spread: ColumnSpread
    sample: Rows
    sample_weight: Array | None


@dataclass(frozen=True, eq=False)
class Survey:
    """The survey of all chunks, in chunk order.

    Parameters
    ----------
    chunks : tuple of ChunkSurvey
    n_reads : int
        Times that all rows were read for it.
    """

    chunks: tuple[ChunkSurvey, ...]
    n_reads: int = 1

    @property
    def n_rows(self) -> int:
        """All rows."""
        return sum(chunk.n_rows for chunk in self.chunks)

    @property
    def n_usable(self) -> int:
        """Rows that a fit can use."""
        return sum(chunk.n_usable for chunk in self.chunks)

    @property
    def n_eligible(self) -> int:
        """Rows that a start can be found on."""
        return sum(chunk.n_eligible for chunk in self.chunks)

    @property
    def sum_weight(self) -> float:
        """Of the usable rows."""
        return sum(chunk.sum_weight for chunk in self.chunks)

    @property
    def spread(self) -> ColumnSpread:
        """Mean and variance of each column over the usable rows."""
        return tree_sum(chunk.spread for chunk in self.chunks)

    @property
    def sample(self) -> Rows:
        """The sampled rows, (m, d), in row order."""
        return np.concatenate([chunk.sample for chunk in self.chunks])

    @property
    def sample_weight(self) -> Array | None:
        """Weights of the sampled rows, (m,)."""
        weights = [chunk.sample_weight for chunk in self.chunks]
        return None if weights[0] is None else np.concatenate([w for w in weights if w is not None])


def survey(
    chunks: RowChunks,
    backend: Backend,
    *,
    sample_rows: int,
    seed: np.random.SeedSequence,
    missing: Missing = "error",
) -> tuple[Survey, RowChunks]:
    """Look at every row once; also returns the chunks with their lengths known.

    The sample depends on the seed and the rows only: another chunking or another number of
    workers draws the same rows. Where most of the rows drawn cannot be used, the usable ones are
    counted by then, and a second look draws from them.
    """
    chunk_map = ChunkMap(chunks, backend)
    if chunks.lengths is None:
        chunks = chunks.with_lengths(chunk_map("count_rows", _count_rows, None))
        chunk_map = ChunkMap(chunks, backend)
    lengths = chunks.lengths or ()
    look = partial(survey_chunk, missing)
    wanted = _per_chunk(draw_rows(sum(lengths), sample_rows, seed), lengths)
    found = Survey(tuple(chunk_map("survey", look, None, wanted)))
    eligible = [chunk.n_eligible for chunk in found.chunks]
    if 2 * len(found.sample) < min(sample_rows, found.n_eligible):
        wanted = _per_chunk(draw_rows(found.n_eligible, sample_rows, seed), eligible)
        samples = chunk_map("sample", partial(sample_chunk, missing), None, wanted)
        renewed = (
            replace(chunk, sample=X, sample_weight=weight)
            for chunk, (X, weight) in zip(found.chunks, samples, strict=True)
        )
        found = Survey(tuple(renewed), n_reads=2)
    return found, chunks


def _per_chunk(rows: npt.NDArray[np.int64], lengths: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Row numbers of all rows as row numbers within each chunk."""
    stops = np.cumsum(lengths)
    cuts = np.split(rows, np.searchsorted(rows, stops[:-1]))
    return [cut - (stop - n) for cut, stop, n in zip(cuts, stops, lengths, strict=True)]


def draw_rows(n_rows: int, size: int, seed: np.random.SeedSequence) -> npt.NDArray[np.int64]:
    """Sorted row numbers, drawn without replacement; all rows where there are no more than size."""
    if n_rows <= size:
        return np.arange(n_rows)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n_rows, size, replace=False, shuffle=False))


def survey_chunk(
    missing: Missing,
    common: None,
    wanted: npt.NDArray[np.int64],
    X: Rows,
    weights: Rows | None = None,
) -> ChunkSurvey:
    """Survey of one chunk X (n, d); `wanted` are the rows to sample."""
    absent, infinite = np.isnan(X), np.isinf(X)
    usable, eligible = usable_rows(X, weights, missing), eligible_rows(X, weights, missing)
    sample = wanted[eligible[wanted]]
    bad_weight = np.zeros(0, bool) if weights is None else ~((weights >= 0) & np.isfinite(weights))
    all_used = usable.all()
    counted = None if weights is None else np.asarray(weights[usable], dtype=np.float64)
    return ChunkSurvey(
        X.shape[0],
        int(usable.sum()),
        absent.sum(axis=0),
        infinite.sum(axis=0),
        _first(absent),
        _first(infinite),
        int(bad_weight.sum()),
        int(_first(bad_weight[:, None])[0]),
        float(usable.sum()) if counted is None else float(counted.sum()),
        int(eligible.sum()),
        ColumnSpread.of(X if all_used else X[usable], counted),
        X[sample],
        None if weights is None else np.asarray(weights[sample], dtype=np.float64),
    )


def sample_chunk(
    missing: Missing,
    common: None,
    wanted: npt.NDArray[np.int64],
    X: Rows,
    weights: Rows | None = None,
) -> tuple[Rows, Array | None]:
    """Rows of one chunk and their weights; `wanted` counts the eligible ones."""
    rows = np.flatnonzero(eligible_rows(X, weights, missing))[wanted]
    return X[rows], None if weights is None else np.asarray(weights[rows], dtype=np.float64)


def eligible_rows(X: Rows, weights: Rows | None, missing: Missing) -> npt.NDArray[np.bool_]:
    """Usable rows of positive weight with at least one value, (n,)."""
    eligible = usable_rows(X, weights, missing)
    if missing == "em":
        eligible &= ~np.isnan(X).all(axis=1)
    return eligible if weights is None else np.asarray(eligible & (weights > 0))


def _count_rows(common: None, X: Rows, weights: Rows | None = None) -> int:
    return int(X.shape[0])


def _first(bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    if bad.shape[0] == 0:
        return np.full(bad.shape[1], -1)
    return np.where(bad.any(axis=0), bad.argmax(axis=0), -1)
