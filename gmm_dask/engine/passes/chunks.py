"""Rows as a Dask array, or what one is made of: chunked along the rows only, one task a chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from dask._task_spec import DataNode, GraphNode, Task, TaskRef
from dask.base import is_dask_collection
from dask.highlevelgraph import HighLevelGraph

from gmm_dask.errors import DataError

if TYPE_CHECKING:
    import dask.array as da

Read = Callable[[], Iterator[tuple[Any, Any]]]

CHUNK_BYTES = 32 << 20  # large enough to hide a task's overhead, small enough to share out


@dataclass(frozen=True, eq=False)
class LazyArray:
    """What a Dask array along the rows is made of, for passes, which need no more than that.

    Importing `dask.array` takes a third of a second.

    Parameters
    ----------
    dask, name, chunks, meta
        As `dask.array.Array` takes them.
    """

    dask: HighLevelGraph
    name: str
    chunks: tuple[tuple[int, ...], ...]
    meta: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and, where there are two axes, columns."""
        return tuple(map(sum, self.chunks))

    @property
    def numblocks(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(map(len, self.chunks))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        dtype: np.dtype[Any] = self.meta.dtype
        return dtype

    def to_dask_array(self) -> da.Array:
        """The array, for whoever calculates with it."""
        import dask.array as da

        return da.Array(self.dask, self.name, self.chunks, meta=self.meta)


@dataclass(frozen=True, eq=False)
class Stream:
    """Chunks that one task reads, one after the other.

    Parameters
    ----------
    start, stop : int
        Of the chunks.
    read : () -> iterator of ((rows, n_features), (rows,) or None)
        All of them, in order; holds none that it gave away.
    scratch : DataNode, optional
        Of a Scratch, which may have them where the task runs.
    """

    start: int
    stop: int
    read: Read
    scratch: DataNode | None = None


@dataclass(frozen=True, eq=False)
class RowChunks:
    """The rows to fit: features, and weights with the same chunks where there are any.

    Parameters
    ----------
    X : Dask array (n, d), or what one is made of
        One chunk along the columns; chunk lengths may be unknown (nan).
    weights : the same (n,), optional
    names : tuple of str, optional
        What each chunk is called in messages; its index has the second place in every key.
    streams : tuple of Stream
        Runs of chunks that one task works on; all others have a task each.
    pieces : tuple of tuple of int, optional
        Rows of the pieces that each chunk was put together from; of one where not given.
    """

    X: LazyArray | da.Array
    weights: LazyArray | da.Array | None = None
    names: tuple[str, ...] | None = None
    streams: tuple[Stream, ...] = ()
    pieces: tuple[tuple[int, ...], ...] | None = None

    @property
    def lengths(self) -> tuple[int, ...] | None:
        """Rows of each chunk; None where Dask does not know them."""
        lengths = self.X.chunks[0]
        return None if any(math.isnan(n) for n in lengths) else tuple(int(n) for n in lengths)

    @property
    def units(self) -> list[range]:
        """The chunks that each task of a pass works on, in order."""
        found: list[range] = []
        chunk = 0
        for stream in (*self.streams, None):
            stop = self.X.numblocks[0] if stream is None else stream.start
            found.extend(range(i, i + 1) for i in range(chunk, stop))
            if stream is not None:
                found.append(range(stream.start, stream.stop))
                chunk = stream.stop
        return found

    @property
    def n_features(self) -> int:
        """Number of columns, d."""
        return int(self.X.shape[1])

    @property
    def row_bytes(self) -> int:
        """Bytes of a decoded row, with its weight."""
        weight = 0 if self.weights is None else int(self.weights.dtype.itemsize)
        return self.n_features * int(self.X.dtype.itemsize) + weight

    def with_lengths(self, lengths: Sequence[int]) -> RowChunks:
        """The same chunks with their lengths known."""
        X = _with_row_chunks(self.X, lengths)
        weights = None if self.weights is None else _with_row_chunks(self.weights, lengths)
        return replace(self, X=X, weights=weights)

    def with_graph(self, name: str, nodes: dict[Any, Any]) -> RowChunks:
        """The same chunks, made by these nodes."""
        graph = HighLevelGraph.from_collections(name, nodes)
        X = _like(self.X, graph, self.X.chunks)
        weights = self.weights
        if weights is not None:
            weights = _like(weights, graph, weights.chunks)
        return replace(self, X=X, weights=weights)

    def through(self, function: Callable[[Any, Any], Any], X: da.Array) -> RowChunks:
        """The same chunks, of which X holds what `function(rows, weights)` makes of each."""
        streams = (
            replace(stream, read=partial(_read_through, stream.read, function), scratch=None)
            for stream in self.streams
        )
        return replace(self, X=X, streams=tuple(streams))

    def tasks(self) -> tuple[dict[Any, GraphNode], list[tuple[Any, ...]]]:
        """The optimised graph, and for each chunk its key in X and, if any, in the weights."""
        arrays = [self.X] if self.weights is None else [self.X, self.weights]
        keys = [
            [(array.name, i, *[0] * (len(array.chunks) - 1)) for i in range(array.numblocks[0])]
            for array in arrays
        ]
        graph: Any = HighLevelGraph.merge(*(array.dask for array in arrays))
        of_user = [array for array in arrays if not isinstance(array, LazyArray)]
        if of_user:  # in ours there is nothing to optimise
            graph = of_user[0].__dask_optimize__(graph, [key for part in keys for key in part])
        return dict(graph), list(zip(*keys, strict=True))


def array_from_sources(
    load: Callable[[Any], np.ndarray[Any, Any]],
    sources: Sequence[Any],
    lengths: Sequence[int],
    *,
    n_features: int | None,
    dtype: str,
    name: str,
) -> LazyArray:
    """An array whose chunk i is `load(sources[i])`, of lengths[i] rows.

    Parameters
    ----------
    load : source -> (rows, n_features), or (rows,) where n_features is None
    name : str
        First word of the keys, as the dashboard shows it.
    """
    key = f"{name}-{uuid4().hex}"
    tail: tuple[int, ...] = () if n_features is None else (0,)
    graph = {
        (key, i, *tail): Task((key, i, *tail), load, source) for i, source in enumerate(sources)
    }
    return _array(graph, key, lengths, n_features, dtype)


def rows_from_sources(
    load: Callable[[Any], Any],
    sources: Sequence[Any],
    lengths: Sequence[int],
    *,
    n_features: int,
    dtype: str,
    weighted: bool,
    names: tuple[str, ...] | None = None,
    streams: tuple[Stream, ...] = (),
    pieces: tuple[tuple[int, ...], ...] | None = None,
) -> RowChunks:
    """RowChunks whose chunk i is `load(sources[i])`, of lengths[i] rows; one load for both parts.

    Parameters
    ----------
    load : source -> ((rows, n_features), (rows,) or None)
    weighted : bool
        Whether the second is there.
    names, streams, pieces
        As in RowChunks.
    """
    token = uuid4().hex
    both, X, weights = f"read_rows-{token}", f"features-{token}", f"weights-{token}"
    graph: dict[Any, GraphNode] = {}
    for i, source in enumerate(sources):
        if not weighted:
            graph[X, i, 0] = Task((X, i, 0), _features_of, load, source)
            continue
        graph[both, i] = Task((both, i), load, source)
        graph[X, i, 0] = Task((X, i, 0), itemgetter(0), TaskRef((both, i)))
        graph[weights, i] = Task((weights, i), itemgetter(1), TaskRef((both, i)))
    rows = RowChunks(
        _array(graph, X, lengths, n_features, dtype), names=names, streams=streams, pieces=pieces
    )
    if not weighted:
        return rows
    return replace(rows, weights=_array(graph, weights, lengths, None, "float64"))


def array_from_numpy(X: np.ndarray[Any, Any], lengths: Sequence[int]) -> LazyArray:
    """An array of views on X (n, d) or (n,), without a copy and without hashing it."""
    key = f"rows-{uuid4().hex}"
    tail: tuple[int, ...] = () if X.ndim == 1 else (0,)
    stops = np.cumsum(lengths).tolist()
    graph = {
        (key, i, *tail): DataNode((key, i, *tail), X[stop - n : stop])
        for i, (n, stop) in enumerate(zip(lengths, stops, strict=True))
    }
    n_features = None if X.ndim == 1 else X.shape[1]
    return _array(graph, key, lengths, n_features, str(X.dtype))


def row_chunks(X: Any, sample_weight: Any = None, chunk_bytes: int = CHUNK_BYTES) -> RowChunks:
    """Rows given by a user, as RowChunks.

    Parameters
    ----------
    X : (n, d) NumPy array, Dask array with any chunks, Dask DataFrame, or what numpy.asarray takes
    sample_weight : (n,), optional
    chunk_bytes : int
        Size of the chunks that arrays in memory are cut into.
    """
    if hasattr(X, "to_dask_array"):
        X = X.to_dask_array()
    is_lazy = is_dask_collection(X)
    if not is_lazy:
        X = _floating(np.asarray(X))
    if X.ndim != 2:
        raise DataError(f"X must have two axes, rows and features; it has {X.ndim}.")
    if X.shape[1] == 0 or math.isnan(X.shape[1]):
        raise DataError("X must have at least one feature, and their number must be known.")
    if not is_lazy:
        X = array_from_numpy(X, even_lengths(X.shape[0], X.shape[1], chunk_bytes))
    else:
        X = _floating(X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X)
    chunks = RowChunks(X)
    return chunks if sample_weight is None else replace(chunks, weights=_weights(X, sample_weight))


def even_lengths(n_rows: int, n_features: int, chunk_bytes: int) -> tuple[int, ...]:
    """Lengths of the fewest equal chunks of at most chunk_bytes of float64; one where n is 0."""
    largest = max(1, chunk_bytes // (8 * max(n_features, 1)))
    count = max(1, -(-n_rows // largest))
    edges = [n_rows * i // count for i in range(count + 1)]
    return tuple(b - a for a, b in pairwise(edges))


def _read_through(read: Read, function: Callable[[Any, Any], Any]) -> Iterator[tuple[Any, Any]]:
    return map(partial(_part_through, function), read())


def _part_through(function: Callable[[Any, Any], Any], part: tuple[Any, Any]) -> tuple[Any, Any]:
    return function(*part), part[1]


def dask_array(array: LazyArray | da.Array) -> da.Array:
    """The array for whoever calculates with it."""
    return array.to_dask_array() if isinstance(array, LazyArray) else array


def _features_of(load: Callable[[Any], Any], source: Any) -> Any:
    return load(source)[0]


def _floating(X: Any) -> Any:
    return X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)


def _weights(X: LazyArray | da.Array, sample_weight: Any) -> LazyArray | da.Array:
    if hasattr(sample_weight, "to_dask_array"):
        sample_weight = sample_weight.to_dask_array()
    if is_dask_collection(sample_weight):
        return _lazy_weights(X, sample_weight)
    lengths = [int(n) for n in X.chunks[0]] if not math.isnan(X.shape[0]) else None
    sample_weight = np.asarray(sample_weight, dtype=np.float64)
    if lengths is None or sample_weight.shape != (sum(lengths),):
        raise DataError(
            f"sample_weight has shape {sample_weight.shape}; it must have one value for each of "
            f"the {X.shape[0]} rows (for Dask rows of unknown length, give Dask weights, such as "
            "a column of the same DataFrame)."
        )
    return array_from_numpy(sample_weight, lengths)


def _lazy_weights(X: LazyArray | da.Array, weights: da.Array) -> da.Array:
    if weights.ndim != 1:
        raise DataError(
            f"sample_weight must have one axis, one value a row; it has {weights.ndim}."
        )
    known = not (math.isnan(X.shape[0]) or math.isnan(weights.shape[0]))
    if known and weights.shape[0] == X.shape[0]:
        return weights.rechunk((X.chunks[0],))
    if known or weights.numblocks[0] != X.numblocks[0]:
        raise DataError(
            f"sample_weight has {weights.shape[0]} values in {weights.numblocks[0]} chunks for "
            f"{X.shape[0]} rows in {X.numblocks[0]} chunks: give one value for each row, chunked "
            "as the rows are."
        )
    return weights


def _array(
    graph: dict[Any, GraphNode],
    key: str,
    lengths: Sequence[int],
    n_features: int | None,
    dtype: str,
) -> LazyArray:
    chunks: tuple[Any, ...] = (tuple(lengths),)
    if n_features is not None:
        chunks += ((n_features,),)
    meta = np.empty((0,) * len(chunks), dtype=dtype)
    return LazyArray(HighLevelGraph.from_collections(key, graph), key, chunks, meta)


def _with_row_chunks(array: LazyArray | da.Array, lengths: Sequence[int]) -> LazyArray | da.Array:
    return _like(array, array.dask, (tuple(lengths), *array.chunks[1:]))


def _like(array: LazyArray | da.Array, graph: HighLevelGraph, chunks: Any) -> LazyArray | da.Array:
    """An array of the same kind and name."""
    if isinstance(array, LazyArray):
        return LazyArray(graph, array.name, chunks, array.meta)
    return type(array)(graph, array.name, chunks, meta=array._meta)
