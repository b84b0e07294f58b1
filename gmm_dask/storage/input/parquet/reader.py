"""Reads the rows of chunks, and nothing but the files that were planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.storage.input.parquet.opened import PlannedFiles, open_planned
from gmm_dask.storage.input.plan import Plan
from gmm_dask.storage.input.sources import ChunkSource, sources

Features = npt.NDArray[np.floating[Any]]
Weights = npt.NDArray[np.float64]


def read_features(source: ChunkSource, columns: Sequence[str], dtype: str) -> Features:
    """The features of a chunk, one row after the other; a null is NaN.

    Parameters
    ----------
    columns : sequence of str
        In the order of the result's columns.
    dtype : {"float32", "float64"}

    Returns
    -------
    (n, d), C-contiguous

    Raises
    ------
    InputChangedError
        The file is not the one that was planned.
    DataError
        The file is damaged, or a column is missing, not a number, or too large for float64.
    """
    with open_planned(source) as chunk:
        return chunk.features(columns, dtype)


def read_rows(
    sources: Sequence[ChunkSource],
    columns: Sequence[str],
    dtype: str,
    weight_column: str | None = None,
) -> tuple[Features, Weights | None]:
    """Features (n, d) of chunks that follow each other, as one array, and weights (n,), if any.

    A file is opened once for those of its chunks. Raises as read_features does.
    """
    with PlannedFiles() as files:
        return _rows(files, sources, columns, dtype, weight_column)


def read_parts(
    sources: Sequence[ChunkSource],
    columns: Sequence[str],
    dtype: str,
    weight_column: str | None = None,
) -> Iterator[tuple[Features, Weights | None]]:
    """As read_rows, chunk after chunk; what they have of one row group is decoded once.

    Who is done with one when it asks for the next takes the memory of one.
    """
    with PlannedFiles() as files:
        for source in sources:
            yield _rows(files, (source,), columns, dtype, weight_column)


def read_table(source: ChunkSource, columns: Sequence[str]) -> pa.Table:
    """Columns and folder keys of a chunk; see OpenChunk.table. Raises as read_features does."""
    with open_planned(source) as chunk:
        return chunk.table(columns)


def carried_schema(plan: Plan, columns: Sequence[str]) -> pa.Schema:
    """Types that columns and folder keys have in the labels of a plan; no row is read."""
    first = sources(plan)[0]
    return read_table(replace(first, stop=first.start), columns).schema


def _rows(
    files: PlannedFiles,
    sources: Sequence[ChunkSource],
    columns: Sequence[str],
    dtype: str,
    weight_column: str | None,
) -> tuple[Features, Weights | None]:
    n_rows = sum(source.n_rows for source in sources)
    X = np.empty((n_rows, len(columns)), dtype=dtype)
    weights = None if weight_column is None else np.empty((n_rows, 1))
    first = 0
    for source in sources:
        chunk, at = files.open(source), slice(first, first + source.n_rows)
        if weight_column is not None and weights is not None:
            chunk.check_columns((*columns, weight_column), numbers=True)
            chunk.fill(weights[at], (weight_column,))
        chunk.fill(X[at], columns)
        first = at.stop
    return X, None if weights is None else weights[:, 0]
