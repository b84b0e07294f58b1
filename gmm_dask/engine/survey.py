"""The first look at all rows: what is unusable, and a sample to start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.engine.backends import Backend, LocalBackend
from gmm_dask.engine.chunk_map import ChunkMap
from gmm_dask.engine.chunks import RowChunks, row_chunks
from gmm_dask.engine.cluster import available_cores
from gmm_dask.engine.passes import Expectation, expectation
from gmm_dask.engine.reduce import tree_sum
from gmm_dask.engine.sample import Draw, Sketch, fewer
from gmm_dask.mixture import ColumnSpread
from gmm_dask.mixture.look import Keys, row_keys
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic

SAMPLE_CHUNK_BYTES = 1 << 20  # of a pass over the sample, so that every core has a part
LEAST_PARTS = 2  # of a sample, for one of them to be worth it
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
        Those of them with at least one value: a start can be found on them.
    spread : ColumnSpread
        Of the usable rows.
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
        Rows to start from: all that can be, in their order, or a sample; see `engine.sample`.
    sample_weight : (m,) or None
        Of these rows, in `unit`.
    unit : float
    n_reads : int
        Times that all rows were read for it.
    is_drawn : bool
        Whether there were more rows than the sample has room for.
    is_all : bool
        Whether the sample says all that the rows say: there are not more different ones.
    contents : mapping of int to str
        What `survey` was given to note of the pieces, by piece.
    """

    chunks: tuple[ChunkSurvey, ...]
    sample: Rows
    sample_weight: Array | None
    unit: float = 1.0
    n_reads: int = 1
    is_drawn: bool = False
    is_all: bool = True
    contents: Mapping[int, str] = field(default_factory=dict)

    @property
    def replaces_rows(self) -> bool:
        """Whether EM on the sample is EM on all rows, with fewer to read."""
        return self.is_drawn and self.is_all

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
        """Of the usable rows; infinite where it is beyond float64."""
        return sum(chunk.sum_weight for chunk in self.chunks)

    @property
    def spread(self) -> ColumnSpread:
        """Mean and variance of each column over the usable rows."""
        return tree_sum(chunk.spread for chunk in self.chunks)


def survey(
    chunks: RowChunks,
    backend: Backend,
    *,
    sample_rows: int,
    larger_rows: int = 0,
    seed: np.random.SeedSequence,
    missing: Missing = "error",
    by_value: bool = True,
    noting: Mapping[int, Callable[[], str]] | None = None,
) -> tuple[Survey, RowChunks]:
    """Look at every row; also returns the chunks with their lengths known.

    The sample depends on the seed and the rows only, neither on their chunks nor on their order.
    One look is enough, unless more than half of the rows cannot be used or equal others, or some
    that are not in the sample hold much of the weight.

    Parameters
    ----------
    sample_rows : int
        Rows of the sample; where there are no more, all are taken as they are.
    larger_rows : int
        Rows that it has instead, where they are few beside all and one look brings so many.
    by_value : bool
        False draws each row by its place, whatever its weight and however many are equal: a
        sample to look at, for which one look is nearly always enough.
    noting : mapping of int to callable, optional
        Called by the tasks that look at these pieces; what they return is in `contents`.
    """
    chunk_map = ChunkMap(chunks, backend)
    if chunks.lengths is None:
        chunks = chunks.with_lengths(chunk_map("count_rows", _count_rows, None))
        chunk_map = ChunkMap(chunks, backend)
    lengths = chunks.lengths or ()
    first_rows, n_rows = [0, *np.cumsum(lengths, dtype=int).tolist()[:-1]], sum(lengths)
    draw = None
    if n_rows > sample_rows:
        size = larger_rows if _is_cheap(larger_rows, chunks, n_rows, missing) else 0
        draw = Draw.first(seed, sample_rows, max(sample_rows, size), n_rows, by_value)
    arithmetic = RowArithmetic.chosen(missing)
    pieces = chunks.pieces or tuple((n,) for n in lengths)
    each = list(zip(first_rows, pieces, _by_chunk(noting or {}, pieces), strict=True))
    of_chunks = chunk_map("survey", partial(_survey_pieces, arithmetic), draw, each)
    looked = [of_piece for of_chunk in of_chunks for of_piece in of_chunk]
    seen = tuple(piece for piece, _, _ in looked)
    parts = [part for _, part, _ in looked]
    contents = {i: noted for i, (_, _, noted) in enumerate(looked) if noted is not None}
    if draw is None:
        weights = None if chunks.weights is None else np.concatenate([w for _, w in parts])
        sample = np.concatenate([X for X, _ in parts])
        return Survey(seen, sample, weights, contents=contents), chunks
    found, n_reads = Sketch.merged(draw, parts), 1
    n_eligible = sum(chunk.n_eligible for chunk in seen)
    while (again := found.next_draw(draw, n_eligible)) is not None:
        draw, n_reads = again, n_reads + 1
        parts = chunk_map("sample", partial(sample_chunk, arithmetic), draw, first_rows)
        found = Sketch.merged(draw, parts)
    is_all = found.is_all(draw) and n_eligible == sum(chunk.n_counted for chunk in seen)
    is_all = by_value and is_all
    drawn = Survey(seen, *found.chosen(draw), found.unit, n_reads, True, is_all, contents)
    return drawn, chunks


class OnRows(NamedTuple):
    """Rows that are here.

    Parameters
    ----------
    X : (m, d)
    weight : (m,), optional
        Of which only the ratios matter.
    expectation : Expectation, optional
        A pass over them, as heavy as all rows; None where they are all.
    """

    X: Rows
    weight: Array | None
    expectation: Expectation | None


class Expectations(NamedTuple):
    """What EM asks.

    Parameters
    ----------
    over_all : Expectation
        A pass over all rows; over the sample, where that says all that they say.
    sample : OnRows
        That starts are found on.
    part : OnRows, optional
        Fewer of its rows, where it is large.
    on_larger : Expectation, optional
        A pass over a larger sample, where there is one, as heavy as all rows.
    """

    over_all: Expectation
    sample: OnRows
    part: OnRows | None = None
    on_larger: Expectation | None = None


def expectations(
    surveyed: Survey,
    chunks: RowChunks,
    backend: Backend,
    *,
    arithmetic: RowArithmetic,
    unit: float,
    sample_rows: int,
    part_rows: int,
) -> Expectations:
    """Passes over all rows, over so many of the sample as are said, and over all of it."""
    over_all = expectation(chunks, backend, unit=unit, arithmetic=arithmetic)
    X, weight = surveyed.sample, surveyed.sample_weight
    if not surveyed.is_drawn or weight is None:
        return Expectations(over_all, OnRows(X, weight, None))

    def on(X: Rows, weight: Array) -> Expectation:
        rows = row_chunks(X, weight * (surveyed.unit / unit), SAMPLE_CHUNK_BYTES)
        # Here, whatever the backend: the driver holds the sample, and a pass takes no time.
        here = LocalBackend(min(available_cores(), rows.X.numblocks[0]))
        return expectation(rows, here, arithmetic=arithmetic)

    on_all = on(X, weight)
    if surveyed.replaces_rows:
        return Expectations(replace(on_all, n_rows=surveyed.n_usable), OnRows(X, weight, None))
    is_larger = len(X) > sample_rows
    if is_larger:
        X, weight = fewer(X, weight, sample_rows)
    sample = OnRows(X, weight, on(X, weight) if is_larger else on_all)
    part = None
    if part_rows <= len(X) // LEAST_PARTS:
        of_part = fewer(X, weight, part_rows)
        part = OnRows(*of_part, on(*of_part))
    return Expectations(over_all, sample, part, on_all if is_larger else None)


def _is_cheap(larger_rows: int, chunks: RowChunks, n_rows: int, missing: Missing) -> bool:
    """Whether the driver has the memory and the time for a sample of so many rows."""
    return (
        missing != "em"  # which takes as long for a row as others for twenty
        and larger_rows * LARGEST_SAMPLE_PART <= n_rows
        and larger_rows * chunks.row_bytes <= LARGEST_SAMPLE_BYTES
    )


def _by_chunk(
    noting: Mapping[int, Callable[[], str]], pieces: Sequence[Sequence[int]]
) -> Iterator[tuple[Callable[[], str] | None, ...]]:
    of_pieces = map(noting.get, count())
    return (tuple(islice(of_pieces, len(lengths))) for lengths in pieces)


def _survey_pieces(
    arithmetic: RowArithmetic,
    draw: Draw | None,
    place: tuple[int, Sequence[int], Sequence[Callable[[], str] | None]],
    X: Rows,
    weights: Rows | None = None,
) -> list[tuple[ChunkSurvey, Any, str | None]]:
    """Survey of each piece of a chunk, so that what is wrong can be told by file."""
    first_row, lengths, noting = place
    found, start = [], 0
    for n_rows, note in zip(lengths, noting, strict=True):
        at = slice(start, start + n_rows)
        of_piece = None if weights is None else weights[at]
        looked = survey_chunk(arithmetic, draw, first_row + start, X[at], of_piece)
        found.append((*looked, None if note is None else note()))
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
    eligible = _eligible(X, weights, usable, arithmetic)
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
        return surveyed, _chosen(eligible, X, weights)
    if not draw.by_value:
        return surveyed, _sketch(draw, first_row, eligible, X, weights)
    keys = keys if eligible.all() else keys[eligible[usable]]
    return surveyed, _sketch(draw, first_row, eligible, X, weights, keys)


def sample_chunk(
    arithmetic: RowArithmetic,
    draw: Draw,
    first_row: int,
    X: Rows,
    weights: Rows | None = None,
) -> Sketch:
    """What one chunk has for the sample."""
    eligible = _eligible(X, weights, arithmetic.usable(X, weights), arithmetic)
    return _sketch(draw, first_row, eligible, X, weights)


def _sketch(
    draw: Draw,
    first_row: int,
    eligible: npt.NDArray[np.bool_],
    X: Rows,
    weights: Rows | None,
    keys: Keys | None = None,
) -> Sketch:
    """Of the eligible rows; where rows are drawn by their place, it is hashed instead of them."""
    X, weight = _chosen(eligible, X, weights)
    if not draw.by_value:
        keys = row_keys(first_row + np.flatnonzero(eligible)[:, None], draw.salt)
    elif keys is None:
        keys = row_keys(X, draw.salt)
    return Sketch.of(draw, keys, X, weight)


def _chosen(
    chosen: npt.NDArray[np.bool_], X: Rows, weights: Rows | None
) -> tuple[Rows, Array | None]:
    if not chosen.all():
        X, weights = X[chosen], None if weights is None else weights[chosen]
    return X, None if weights is None else np.asarray(weights, dtype=np.float64)


def _eligible(
    X: Rows, weights: Rows | None, usable: npt.NDArray[np.bool_], arithmetic: RowArithmetic
) -> npt.NDArray[np.bool_]:
    """Usable rows of positive weight with at least one value, (n,)."""
    if arithmetic.missing == "em":
        usable = usable & ~np.isnan(X).all(axis=1)
    return usable if weights is None else np.asarray(usable & (weights > 0))


def _count_rows(common: None, X: Rows, weights: Rows | None = None) -> int:
    return int(X.shape[0])


@dataclass(frozen=True, eq=False)
class _OddRows:
    """The rows of a chunk that may hold a value which is not finite; of most data, none.

    Parameters
    ----------
    rows : (m,), ascending
    absent, infinite : (m, d)
        Which of their values are NaN, and infinite.
    """

    rows: npt.NDArray[np.intp]
    absent: npt.NDArray[np.bool_]
    infinite: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, X: Rows) -> _OddRows:
        """Of rows X (n, d): a sum is finite only where all values are."""
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.flatnonzero(~np.isfinite(X @ np.ones(X.shape[1], X.dtype)))
        values = X[rows]
        return cls(rows, np.isnan(values), np.isinf(values))

    def first(self, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The first row in which each column is bad, (d,); -1 where it is in none."""
        if not len(bad):
            return np.full(bad.shape[1], -1)
        return np.where(bad.any(axis=0), self.rows[bad.argmax(axis=0)], -1)
