"""The columns of labels: a table with one row for each input row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.errors import DataError, OutputError
from gmm_dask.mixture import RowScores
from gmm_dask.storage.arrow import (
    to_arrow,
    to_arrow_lists,
    words_to_arrow,
)

MISSING = "missing"  # the reason of a row that could not be used
NOISE = "noise"  # the reason of a row that belongs to no component most probably
MAX_LIST_VALUES = 2**31 - 1  # of all lists of a column of a part
LABEL_COLUMNS = {
    "row_id": pa.int64(),
    "label": pa.int32(),
    "log_density": pa.float64(),
    "max_responsibility": pa.float64(),
    "reason": pa.string(),
    "responsibilities": pa.list_(pa.float64()),
}
_WORDS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
# What stands beside them where the settings ask for it.
FURTHER_COLUMNS = {
    "cluster": pa.int32(),
    "entropy": pa.float64(),
    "severity": pa.float64(),
    "anomaly": pa.bool_(),
    "reason_columns": _WORDS,
    "reason_scores": _NUMBERS,
    "reason_expected": _NUMBERS,
    "next_label": pa.int32(),
    "label_columns": _WORDS,
    "label_evidence": _NUMBERS,
}


def check_kept(names: Iterable[str], further: Collection[str] = ()) -> None:
    """Refuse input columns that are named like a column of ours, in whatever case.

    DuckDB, Spark and Delta tell no `Label` from `label`.

    Parameters
    ----------
    names : iterable of str
    further : collection of str
        The columns of FURTHER_COLUMNS that the labels will have.

    Raises
    ------
    DataError
        One line per column.
    """
    ours = {*LABEL_COLUMNS, *further}
    problems = [
        f"The column {name!r} cannot be kept in the labels, which have "
        f"{'a column of that name' if name in ours else _in_lower_case(name)}. "
        "Rename it in the input, or leave it out of labels.keep and data.id_columns."
        for name in names
        if name.lower() in ours
    ]
    if problems:
        raise DataError(problems)


def _in_lower_case(name: str) -> str:
    return f"the column {name.lower()!r}, and many readers do not tell upper from lower case"


def label_schema(
    kept: pa.Schema, responsibilities: bool, further: Collection[str] = ()
) -> pa.Schema:
    """Schema of the tables that label_table makes."""
    first, *others, last = LABEL_COLUMNS.items()
    beside = [(name, FURTHER_COLUMNS[name]) for name in further]
    return pa.schema([first, *kept, *others, *beside, *([last] if responsibilities else [])])


def label_table(
    first_row: int,
    kept: pa.Table,
    scores: RowScores,
    *,
    usable: npt.NDArray[np.bool_],
    responsibilities: npt.NDArray[np.float64] | None = None,
    further: Mapping[str, pa.Array] | None = None,
) -> pa.Table:
    """The labels of consecutive rows, in input order; unusable rows keep their place.

    Parameters
    ----------
    first_row : int
        row_id of the first.
    kept : Table
        Columns to carry through; none, or of n rows.
    scores : RowScores
        Scores of all n rows; what they say of unusable rows is not looked at.
    usable : (n,)
        Others get label -1, no score, and a reason; noise has a score.
    responsibilities : (n, k), optional
    further : mapping of str to Array, optional
        Some of FURTHER_COLUMNS, of n rows.

    Raises
    ------
    DataError
        A kept column has the name of one of ours, or lengths differ.
    """
    n, further = usable.shape[0], further or {}
    check_kept(kept.column_names, further)
    lengths = {"the scores": len(scores.labels)}
    if kept.num_columns:
        lengths["the kept columns"] = kept.num_rows
    if responsibilities is not None:
        lengths["the responsibilities"] = responsibilities.shape[0]
    lengths |= {f"the values of {name}": len(values) for name, values in further.items()}
    for what, length in lengths.items():
        if length != n:
            raise DataError(f"{what} have {length} rows from row {first_row} on, not {n}")
    unusable = ~usable
    columns = {
        "row_id": to_arrow(np.arange(first_row, first_row + n), pa.int64()),
        **dict(zip(kept.column_names, kept.columns, strict=True)),
        "label": to_arrow(np.where(usable, scores.labels, -1), pa.int32()),
        "log_density": to_arrow(scores.log_density, pa.float64(), unusable),
        "max_responsibility": to_arrow(scores.max_responsibility, pa.float64(), unusable),
        "reason": _reasons(usable, scores.labels),
        **further,
    }
    if responsibilities is not None:
        columns["responsibilities"] = _lists(responsibilities, unusable)
    return pa.table(columns)


def _reasons(usable: npt.NDArray[np.bool_], labels: npt.NDArray[np.integer[Any]]) -> pa.Array:
    """The reason of each row that has no component; null for rows that have one."""
    is_noise = usable & (labels < 0)
    labelled = usable & ~is_noise
    if labelled.all():
        return pa.nulls(len(usable), pa.string())
    return words_to_arrow((MISSING, NOISE)).take(to_arrow(is_noise, pa.int32(), labelled))


def _lists(values: npt.NDArray[np.float64], nulls: npt.NDArray[np.bool_]) -> pa.ListArray:
    n, k = values.shape
    if n * k > MAX_LIST_VALUES:
        raise OutputError(
            f"{n} rows with {k} responsibilities each are too many for one label part. Set "
            "memory.chunk_bytes lower, or labels.responsibilities: false."
        )
    return to_arrow_lists(values, nulls)
