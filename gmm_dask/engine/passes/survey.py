"""The first look at all rows: what is unusable, and a sample to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.cluster.backends import Backend
from gmm_dask.engine.passes.chunk_map import ChunkMap, Tell
from gmm_dask.engine.passes.tree_sum import tree_sum
from gmm_dask.engine.passes.units import RowChunks
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic
from gmm_dask.sampling import ColumnSpread, Draw, Sketch, chosen_rows, fewer

LARGEST_SAMPLE_BYTES = 32 << 20  # the driver has it three times over while it is drawn
LARGEST_SAMPLE_PART = 32  # of all rows: EM on it has to be cheap beside a pass

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
    has_missing, has_infinite : (d,)
        Whether a feature has such values in rows that are not of weight 0.
    first_missing, first_infinite : (d,)
        Row within the chunk of the first such value; -1 where there is none.
    n_bad_weights : int
        Weights that are negative, NaN or infinite.
    first_bad_weight : int
        Row within the chunk of the first such weight; -1 where there is none.
    sum_weight : float
    n_counted : int
        Usable rows of positive weight.
    n_eligible : int
        Usable rows with at least one value: a start can be found on them.
    spread : ColumnSpread
        Spread of the columns over the usable rows.
    """

    n_rows: int
    n_usable: int
    n_missing: npt.NDArray[np.int64]
    n_infinite: npt.NDArray[np.int64]
    has_missing: npt.NDArray[np.bool_]
    has_infinite: npt.NDArray[np.bool_]
    first_missing: npt.NDArray[np.int64]
    first_infinite: npt.NDArray[np.int64]
    n_bad_weights: int
    first_bad_weight: int
    sum_weight: float
    n_counted: int
    n_eligible: int
    spread: ColumnSpread


@dataclass(frozen=True, eq=False)
class Survey:
    """The survey of all chunks, in chunk order.

    Parameters
    ----------
    chunks : tuple of ChunkSurvey
        One for each piece of a chunk that was put together.
    sample : (m, d)
        Rows to start from: all that can be, in their order, or a sample; see `gmm_dask.sampling`.
    sample_weight : (m,) or None
        Weights of the rows of the sample, in `unit`.
    unit : float
    n_reads : int
        Times that all rows were read for it.
    is_drawn : bool
        Whether there were more rows than the sample has room for.
    is_all : bool
        Whether the sample says all that the rows say: there are not more different ones.
    copies : float
        Rows, of those that a start can be found on, for each different row of a sample that was
        drawn, by an estimate where the sample is not all; else 1.
    """

    chunks: tuple[ChunkSurvey, ...]
    sample: Rows
    sample_weight: Array | None
    unit: float = 1.0
    n_reads: int = 1
    is_drawn: bool = False
    is_all: bool = True
    copies: float = 1.0

    @property
    def replaces_rows(self) -> bool:
        """Whether EM on the sample is EM on all rows, with fewer to read."""
        return self.is_drawn and self.is_all

    @property
    def n_rows(self) -> int:
        """The number of all rows."""
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
        """Total weight of the usable rows; infinite where the total is beyond float64."""
        return sum(chunk.sum_weight for chunk in self.chunks)

    @property
    def spread(self) -> ColumnSpread:
        """Mean and variance of each column over the usable rows."""
        return tree_sum(chunk.spread for chunk in self.chunks)

    def with_fewer(self, sample_rows: int, larger_rows: int) -> Survey:
        """The survey that had asked for this larger sample alone; its weights are so to rounding.

        A size that the sample does not have was too dear, so that `sample_rows` are left.
        """
        weight, n_there = self.sample_weight, len(self.sample)
        size = max(sample_rows, larger_rows if larger_rows <= n_there else 0)
        if not self.is_drawn or self.is_all or weight is None or n_there <= size:
            return self
        X, weight = fewer(self.sample, weight, size)
        return replace(self, sample=X, sample_weight=weight)


def survey(
    chunks: RowChunks,
    backend: Backend,
    *,
    sample_rows: int,
    larger_rows: Sequence[int] = (),
    seed: np.random.SeedSequence,
    missing: Missing = "error",
    by_value: bool = True,
    tell: Tell | None = None,
) -> tuple[Survey, RowChunks]:
    """Look at every row; also returns the chunks with their lengths known.

    The sample depends on the seed and the rows only, neither on their chunks nor on their order.
    One look is enough, unless more than half of the rows cannot be used or equal others, or some
    that are not in the sample hold much of the weight.

    Parameters
    ----------
    sample_rows : int
        The number of rows in the sample; where the data have no more, all are taken as they are.
    larger_rows : ints
        The most of these that is few beside all is its size instead, if one look brings so many.
    by_value : bool
        False draws each row by its place, whatever its weight and however many are equal: a
        sample to look at, for which one look is nearly always enough.
    tell : callable, optional
        Called after each task.
    """
    chunk_map = ChunkMap(chunks, backend, tell)
    if chunks.lengths is None:
        chunks = chunks.with_lengths(chunk_map("count_rows", _count_rows, None))
        chunk_map = ChunkMap(chunks, backend, tell)
    lengths = chunks.lengths or ()
    first_rows, n_rows = [0, *np.cumsum(lengths, dtype=int).tolist()[:-1]], sum(lengths)
    draw = None
    if n_rows > sample_rows:
        cheap = (size for size in larger_rows if _is_cheap(size, chunks, n_rows, missing))
        size = max((sample_rows, *cheap))
        draw = Draw.first(seed, sample_rows, size, n_rows, by_value)
    arithmetic = RowArithmetic.chosen(missing)
    each = list(zip(first_rows, chunks.pieces, strict=True))
    of_chunks = chunk_map("survey", partial(_survey_pieces, arithmetic), draw, each)
    looked = [of_piece for of_chunk in of_chunks for of_piece in of_chunk]
    seen = tuple(piece for piece, _ in looked)
    parts = [part for _, part in looked]
    if draw is None:
        return Survey(seen, *_joined(parts)), chunks
    found, n_reads = Sketch.merged(draw, parts), 1
    n_eligible = sum(chunk.n_eligible for chunk in seen)
    while (again := found.next_draw(draw, n_eligible)) is not None:
        draw, n_reads = again, n_reads + 1
        parts = chunk_map("sample", partial(_sample_chunk, arithmetic), draw, first_rows)
        found = Sketch.merged(draw, parts)
    is_all = found.is_all(draw) and n_eligible == sum(chunk.n_counted for chunk in seen)
    is_all, chosen = by_value and is_all, found.chosen(draw)
    copies = n_eligible / max(found.n_different(draw), 1.0)
    return Survey(seen, *chosen, found.unit, n_reads, True, is_all, copies), chunks


def _joined(parts: Sequence[tuple[Rows, Array | None]]) -> tuple[Rows, Array | None]:
    """Rows of all chunks and their weights, in order."""
    weights = [weight for _, weight in parts if weight is not None]
    return np.concatenate([X for X, _ in parts]), np.concatenate(weights) if weights else None


def _is_cheap(larger_rows: int, chunks: RowChunks, n_rows: int, missing: Missing) -> bool:
    """Whether the driver has the memory and the time for a sample of so many rows."""
    return (
        missing != "em"  # which takes as long for a row as others for twenty
        and larger_rows * LARGEST_SAMPLE_PART <= n_rows
        and larger_rows * chunks.row_bytes <= LARGEST_SAMPLE_BYTES
    )


def _survey_pieces(
    arithmetic: RowArithmetic,
    draw: Draw | None,
    place: tuple[int, Sequence[int]],
    X: Rows,
    weights: Rows | None = None,
) -> list[tuple[ChunkSurvey, Any]]:
    """Survey of each piece of a chunk, so that what is wrong can be told by file."""
    first_row, lengths = place
    found, start = [], 0
    for n_rows in lengths:
        at = slice(start, start + n_rows)
        of_piece = None if weights is None else weights[at]
        found.append(survey_chunk(arithmetic, draw, first_row + start, X[at], of_piece))
        start = at.stop
    return found


def survey_chunk(
    arithmetic: RowArithmetic,
    draw: Draw | None,
    first_row: int,
    X: Rows,
    weights: Rows | None = None,
) -> tuple[ChunkSurvey, Any]:
    """Survey of one chunk X (n, d), and what it has for the sample.

    Without a draw that is all eligible rows and their weights.
    """
    odd = _OddRows.of(X)
    bad_weight = (
        np.zeros(len(X), bool) if weights is None else ~((weights >= 0) & np.isfinite(weights))
    )
    usable = ~bad_weight
    if arithmetic.missing != "em":
        usable[odd.rows[odd.absent.any(axis=1)]] = False
    taken = X if usable.all() else X[usable]
    counted = None if weights is None else np.asarray(weights[usable], dtype=np.float64)
    counts = np.ones(len(X), bool) if weights is None else weights != 0
    eligible = arithmetic.eligible(X, weights, usable)
    with np.errstate(over="ignore"):
        sum_weight = float(len(taken)) if counted is None else float(counted.sum())
    salt = draw.salt if draw is not None and draw.by_value else None
    spread, keys = arithmetic.spread_and_keys(taken, counted, salt)
    surveyed = ChunkSurvey(
        len(X),
        len(taken),
        odd.absent.sum(axis=0),
        odd.infinite.sum(axis=0),
        odd.absent[counts[odd.rows]].any(axis=0),
        odd.infinite[counts[odd.rows]].any(axis=0),
        odd.first(odd.absent),
        odd.first(odd.infinite),
        int(bad_weight.sum()),
        int(bad_weight.argmax()) if bad_weight.any() else -1,
        sum_weight,
        int((usable & counts).sum()),
        int(eligible.sum()),
        spread,
    )
    if draw is None:
        return surveyed, chosen_rows(eligible, X, weights)
    if not draw.by_value:
        return surveyed, Sketch.of_chunk(draw, first_row, eligible, X, weights)
    keys = keys if eligible.all() else keys[eligible[usable]]
    return surveyed, Sketch.of_chunk(draw, first_row, eligible, X, weights, keys)


def _sample_chunk(
    arithmetic: RowArithmetic,
    draw: Draw,
    first_row: int,
    X: Rows,
    weights: Rows | None = None,
) -> Sketch:
    """The rows of one chunk that may be in the sample."""
    return Sketch.of_chunk(draw, first_row, arithmetic.eligible(X, weights), X, weights)


def _count_rows(common: None, X: Rows, weights: Rows | None = None) -> int:
    return int(X.shape[0])


@dataclass(frozen=True, eq=False)
class _OddRows:
    """The rows of a chunk that may hold a value which is not finite; of most data, none.

    Parameters
    ----------
    rows : (m,), ascending
    absent, infinite : (m, d)
        The values of the odd rows that are NaN, and those that are infinite.
    """

    rows: npt.NDArray[np.intp]
    absent: npt.NDArray[np.bool_]
    infinite: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, X: Rows) -> _OddRows:
        """The odd ones of rows X (n, d): the sum of a row is finite only if all values are."""
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.flatnonzero(~np.isfinite(X @ np.ones(X.shape[1], X.dtype)))
        values = X[rows]
        return cls(rows, np.isnan(values), np.isinf(values))

    def first(self, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The first row in which each column is bad, (d,); -1 where it is in none."""
        if not len(bad):
            return np.full(bad.shape[1], -1)
        return np.where(bad.any(axis=0), self.rows[bad.argmax(axis=0)], -1)
