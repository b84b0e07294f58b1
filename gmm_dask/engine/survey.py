"""The first look at all rows: what is unusable, and a random sample to start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.backends import Backend
from gmm_dask.engine.chunks import RowChunks
from gmm_dask.engine.passes import ChunkMap, usable_rows

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ChunkSurvey:
    """One chunk's share of the survey.

    Parameters
    ----------
    n_rows, n_usable : int
        Rows, and rows without a missing value.
    n_missing, n_infinite : (d,)
        Values per feature that are NaN and infinite.
    first_missing, first_infinite : (d,)
        Row within the chunk of the first such value; -1 where there is none.
    n_bad_weights : int
        Weights that are negative, NaN or infinite.
    first_bad_weight : int
        Row within the chunk of the first such weight; -1 where there is none.
    sum_weight : float
    sample : (m, d)
        The usable ones of the rows that were asked for.
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
    sample: Rows
    sample_weight: Array | None


@dataclass(frozen=True, eq=False)
class Survey:
    """The survey of all chunks, in chunk order."""

    chunks: tuple[ChunkSurvey, ...]

    @property
    def n_rows(self) -> int:
        """All rows."""
        return sum(chunk.n_rows for chunk in self.chunks)

    @property
    def n_usable(self) -> int:
        """Rows without a missing value."""
        return sum(chunk.n_usable for chunk in self.chunks)

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
    chunks: RowChunks, backend: Backend, *, sample_rows: int, seed: np.random.SeedSequence
) -> tuple[Survey, RowChunks]:
    """Look at every row once; also returns the chunks with their lengths known.

    The sample depends on the seed and the number of rows only: another chunking or another
    number of workers draws the same rows.
    """
    chunk_map = ChunkMap(chunks, backend)
    if chunks.lengths is None:
        chunks = chunks.with_lengths(chunk_map("count_rows", _count_rows, None))
        chunk_map = ChunkMap(chunks, backend)
    lengths = chunks.lengths or ()
    rows = draw_rows(sum(lengths), sample_rows, seed)
    stops = np.cumsum(lengths)
    cuts = np.split(rows, np.searchsorted(rows, stops[:-1]))
    wanted = [cut - (stop - n) for cut, stop, n in zip(cuts, stops, lengths, strict=True)]
    return Survey(tuple(chunk_map("survey", survey_chunk, None, wanted))), chunks


def draw_rows(n_rows: int, size: int, seed: np.random.SeedSequence) -> npt.NDArray[np.int64]:
    """Sorted row numbers, drawn without replacement; all rows where there are no more than size."""
    if n_rows <= size:
        return np.arange(n_rows)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n_rows, size, replace=False, shuffle=False))


def survey_chunk(
    common: None, wanted: npt.NDArray[np.int64], X: Rows, weights: Rows | None = None
) -> ChunkSurvey:
    """Survey of one chunk X (n, d); `wanted` are the rows to sample."""
    missing, infinite = np.isnan(X), np.isinf(X)
    usable = usable_rows(X, weights)
    sample = wanted[usable[wanted]]
    bad_weight = np.zeros(0, bool) if weights is None else ~((weights >= 0) & np.isfinite(weights))
    return ChunkSurvey(
        X.shape[0],
        int(usable.sum()),
        missing.sum(axis=0),
        infinite.sum(axis=0),
        _first(missing),
        _first(infinite),
        int(bad_weight.sum()),
        int(_first(bad_weight[:, None])[0]),
        float(usable.sum()) if weights is None else float(weights[usable].sum()),
        X[sample],
        None if weights is None else np.asarray(weights[sample], dtype=np.float64),
    )


def _count_rows(common: None, X: Rows, weights: Rows | None = None) -> int:
    return int(X.shape[0])


def _first(bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    if bad.shape[0] == 0:
        return np.full(bad.shape[1], -1)
    return np.where(bad.any(axis=0), bad.argmax(axis=0), -1)
