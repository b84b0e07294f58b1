"""Rows as a sequence of read units: what one task reads, as chunks one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate, count, pairwise, repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode

from gmm_dask.engine.passes.tree_sum import PartialSum

Rows = npt.NDArray[Any]
Chunk = tuple[Rows, Rows | None]  # features (n, d), and weights (n,) where there are any
Change = Callable[[Rows, Rows | None, int], Rows]  # of a chunk with its index

CHUNK_BYTES = 32 << 20  # large enough to hide a task's overhead, small enough to share out


class Read(Protocol):
    """Reads the chunks of a unit in order; whoever asks for the next one is done with the last."""

    def __call__(self, *needs: Any) -> Iterable[Chunk]:
        """The chunks, from the values that the unit needs."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A run of rows that one task reads: a block of an array, a row group, several small files.

    Parameters
    ----------
    read : (*needs) -> iterable of ((rows, n_features), (rows,) or None)
        All chunks in order. A reader that keeps no chunk bounds the memory of a task.
    lengths : tuple of int or None
        Rows of each chunk; None where they are not known before the chunk is read.
    needs : tuple of keys
        The nodes of `RowChunks.shared` whose values `read` is given.
    pieces : tuple of tuple of int, optional
        Rows of the pieces, such as small files, that each chunk was put together from.
    """

    read: Read
    lengths: tuple[int | None, ...]
    needs: tuple[Any, ...] = ()
    pieces: tuple[tuple[int, ...], ...] | None = None

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self.lengths)

    def through(self, function: Change, first: int) -> Unit:
        """A copy that reads `function(rows, weights, index)` for the rows of each chunk.

        Parameters
        ----------
        first : int
            Index of the first chunk among those of all units.
        """
        return replace(self, read=partial(_through, self.read, function, first))


class Run:
    """Units that follow each other and that one task works through.

    A run is packed once, however many passes send it, and unpacked where its units are used: a
    scheduler that hands it on never looks into it.

    Parameters
    ----------
    first : int
        Index of the first chunk.
    units : tuple of Unit
        Or the bytes that another process packed them in.
    """

    def __init__(self, first: int, units: tuple[Unit, ...] | bytes) -> None:
        self.first, self._given = first, units

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.first, self._packed)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The units in order."""
        if not isinstance(self._given, bytes):
            return self._given
        from distributed.protocol.pickle import loads  # what Dask packs every task with

        return loads(self._given)  # type: ignore[no-any-return]

    @cached_property
    def _packed(self) -> bytes:
        if isinstance(self._given, bytes):
            return self._given
        from distributed.protocol.pickle import dumps

        packed: bytes = dumps(self._given)
        return packed

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return sum(unit.n_chunks for unit in self.units)

    @property
    def needs(self) -> tuple[Any, ...]:
        """What the units need, each once."""
        return tuple(dict.fromkeys(key for unit in self.units for key in unit.needs))

    def chunks(self, values: Sequence[Any]) -> Iterator[Chunk]:
        """The chunks of all units, from the values of `needs`; holds none that it gave away."""
        known = dict(zip(self.needs, values, strict=True))
        for unit in self.units:
            yield from unit.read(*(known[key] for key in unit.needs))

    def mapped(
        self,
        function: Callable[..., Any],
        each: Sequence[tuple[Any, ...]] | None,
        common: Any,
        *values: Any,
    ) -> list[Any]:
        """`function(common, *each[i], X[, weights])` of each chunk i of the run.

        Parameters
        ----------
        each : sequence of tuple, optional
            What else the function is given of each chunk.
        values
            The values of the nodes in `needs`.
        """
        return list(self._results(function, repeat(()) if each is None else each, common, values))

    def summed(self, function: Callable[..., Any], common: Any, *values: Any) -> PartialSum[Any]:
        """The partial sum of `function(common, X[, weights])` over the chunks of the run."""
        return PartialSum.of(self.first, self._results(function, repeat(()), common, values))

    def _results(
        self,
        function: Callable[..., Any],
        each: Iterable[tuple[Any, ...]],
        common: Any,
        values: Sequence[Any],
    ) -> Iterator[Any]:
        # `map` and not a loop, whose variable would hold a chunk while the next one is read.
        return map(partial(_applied, function, common), each, self.chunks(values))

    def halves(self) -> tuple[Run, ...]:
        """Two runs of the same units; none where there is but one unit."""
        if len(self.units) < 2:
            return ()
        middle = len(self.units) // 2
        before = Run(self.first, self.units[:middle])
        return before, Run(self.first + before.n_chunks, self.units[middle:])


@dataclass(frozen=True, eq=False)
class RowChunks:
    """The rows to fit, as read units.

    Parameters
    ----------
    units : tuple of Unit
    n_features : int
        Number of columns, d.
    dtype : str
        Type of the features.
    weight_dtype : str, optional
        Type of the weights; None where there are none.
    names : tuple of str, optional
        What each chunk is called in messages.
    shared : mapping
        Nodes of a Dask graph that units need: what several blocks of a user's array are made
        from, and values that are held in memory.
    """

    units: tuple[Unit, ...]
    n_features: int
    dtype: str = "float64"
    weight_dtype: str | None = None
    names: tuple[str, ...] | None = None
    shared: Mapping[Any, GraphNode] = field(default_factory=dict)

    @cached_property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return sum(unit.n_chunks for unit in self.units)

    @cached_property
    def lengths(self) -> tuple[int, ...] | None:
        """Rows of each chunk; None where some are not known."""
        lengths = [n for unit in self.units for n in unit.lengths]
        known = tuple(n for n in lengths if n is not None)
        return known if len(known) == len(lengths) else None

    @property
    def pieces(self) -> Iterator[tuple[int, ...]]:
        """Rows of the pieces of each chunk; one piece where nothing else is said."""
        for unit in self.units:
            yield from unit.pieces or ((n or 0,) for n in unit.lengths)

    @property
    def row_bytes(self) -> int:
        """Bytes of a decoded row, with its weight."""
        weight = 0 if self.weight_dtype is None else np.dtype(self.weight_dtype).itemsize
        return self.n_features * np.dtype(self.dtype).itemsize + weight

    def with_lengths(self, lengths: Iterable[int]) -> RowChunks:
        """A copy that knows the number of rows of each chunk, in their order."""
        known = iter(lengths)
        units = (
            replace(unit, lengths=tuple(next(known) for _ in unit.lengths)) for unit in self.units
        )
        return replace(self, units=tuple(units))

    def through(self, function: Change) -> RowChunks:
        """A copy that reads `function(rows, weights, index)` for the rows of each chunk."""
        firsts = accumulate((unit.n_chunks for unit in self.units), initial=0)
        units = (
            unit.through(function, first) for unit, first in zip(self.units, firsts, strict=False)
        )
        return replace(self, units=tuple(units))


@dataclass(frozen=True, eq=False)
class AtHand:
    """Gives rows that are in this process already.

    Parameters
    ----------
    X : (n, d)
    weights : (n,), optional
    """

    X: Rows
    weights: Rows | None = None

    def __call__(self) -> Iterator[Chunk]:
        """The rows as one chunk."""
        yield self.X, self.weights


def rows_at_hand(X: Rows, weights: Rows | None, lengths: Sequence[int]) -> RowChunks:
    """Rows X (n, d) and any weights (n,) as chunks of these lengths: views, and no copy."""
    edges = [0, *np.cumsum(lengths, dtype=int).tolist()]
    units = tuple(
        Unit(AtHand(X[a:b], None if weights is None else weights[a:b]), (b - a,))
        for a, b in pairwise(edges)
    )
    weight_dtype = None if weights is None else str(weights.dtype)
    return RowChunks(units, int(X.shape[1]), str(X.dtype), weight_dtype)


def even_lengths(n_rows: int, n_features: int, chunk_bytes: int) -> tuple[int, ...]:
    """Lengths of the fewest equal chunks of at most chunk_bytes of float64; one where n is 0."""
    largest = max(1, chunk_bytes // (8 * max(n_features, 1)))
    count = max(1, -(-n_rows // largest))
    edges = [n_rows * i // count for i in range(count + 1)]
    return tuple(b - a for a, b in pairwise(edges))


def _applied(
    function: Callable[..., Any], common: Any, extra: tuple[Any, ...], chunk: Chunk
) -> Any:
    X, weights = chunk
    return function(common, *extra, X) if weights is None else function(common, *extra, X, weights)


def _through(read: Read, function: Change, first: int, *needs: Any) -> Iterator[Chunk]:
    return map(partial(_chunk_through, function), read(*needs), count(first))


def _chunk_through(function: Change, chunk: Chunk, index: int) -> Chunk:
    return function(*chunk, index), chunk[1]
