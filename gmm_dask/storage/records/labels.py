"""Label parts: Parquet files named by their content, with one row for each input row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.errors import DataError, OutputError
from gmm_dask.mixture import RowScores
from gmm_dask.mixture.classification import NOT_COMPARED, Classification, Migration
from gmm_dask.storage.arrow import (
    parquet_bytes,
    read_parquet_bytes,
    to_arrow,
    to_arrow_lists,
    to_numpy,
    words_to_arrow,
)
from gmm_dask.storage.records.codec import Name, Place, Sha256, Size, record
from gmm_dask.storage.records.cross_tables import NO_TABLES, CrossTables
from gmm_dask.storage.records.documents import Document, sha256_hex
from gmm_dask.storage.records.model_file import MODEL_KEY
from gmm_dask.storage.store.runs import RunFolder, damage_of, wrong_model

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
NO_COMPONENTS = Classification.none(0)
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
PLAIN = (  # compressing would hardly make them smaller
    *("label", "log_density", "severity"),
    *("reason_scores", "reason_expected", "label_evidence"),
)


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


@dataclass(frozen=True)
class FileRows:
    """Rows start..stop of an input file.

    Parameters
    ----------
    file : str
        Relative to the data set.
    start, stop : int
    """

    file: Place
    start: int
    stop: int


@dataclass(frozen=True)
class PartReceipt:
    """The receipt of a written part: where its rows come from, and the hash of its bytes.

    Parameters
    ----------
    index : int
        Number of the part's first chunk.
    name : str
        Relative to the run's folder.
    sha256 : str
    bytes, rows : int
    first_row : int
        row_id of its first row.
    file : str
        The input file, relative to the data set.
    start, stop : int
        Rows of that file.
    model_sha256 : str
        Checksum of the model that gave the labels.
    others : tuple of FileRows
        Small files whose rows follow in the same part.
    """

    index: int
    name: Name
    sha256: Sha256
    bytes: int
    rows: int
    first_row: int
    file: Place
    start: int
    stop: int
    model_sha256: Sha256
    others: tuple[FileRows, ...] = ()

    def damage(self, folder: RunFolder) -> str | None:
        """What is wrong with the part, naming it; None where all of it is as recorded.

        Raises
        ------
        OutputError
            The storage fails, or refuses to give the part.
        """
        try:
            data = folder.get(self.name, self.bytes)
        except OutputError as error:
            if error.is_of_storage:
                raise
            return str(error)
        path = folder.path(self.name)
        wrong = damage_of(data, self.bytes, self.sha256)
        wrong = wrong or content_problem(
            data, path, first_row=self.first_row, rows=self.rows, model_sha256=self.model_sha256
        )
        return None if wrong is None else f"{path} is damaged: {wrong}."

    def is_whole(self, folder: RunFolder) -> bool:
        """Whether the part was read back and is what the receipt says."""
        return self.damage(folder) is None


@dataclass(frozen=True)
class LabelSums:
    """Sums over labelled rows; they add up.

    Parameters
    ----------
    n_rows, n_dropped, n_incomplete : int
        Rows, rows left without a label, and rows labelled by what they hold beside missing values.
    sum_weight, log_likelihood : float
        Weighted.
    sum_log_max : float
        Weighted sum of log largest responsibility, for the integrated completed likelihood.
    n_labelled : tuple of int
        The number of rows of each component.
    n_anomalies : int
        Rows that were flagged.
    n_noise : int
        Rows that belong to no component most probably.
    classification, migration, cross_tables : Classification, Migration, CrossTables
        How surely they are labelled; by label under the version before; by values of kept columns.
    """

    n_rows: int
    n_dropped: int
    n_incomplete: int
    sum_weight: Size
    log_likelihood: float
    sum_log_max: float
    n_labelled: tuple[int, ...]
    n_anomalies: int = 0
    classification: Classification = NO_COMPONENTS
    n_noise: int = 0
    migration: Migration = NOT_COMPARED
    cross_tables: CrossTables = NO_TABLES

    @property
    def largest(self) -> float:
        """The largest magnitude among the sums over densities."""
        return max(abs(self.log_likelihood), abs(self.sum_log_max))

    def __add__(self, other: LabelSums) -> LabelSums:
        pairs = zip(self.n_labelled, other.n_labelled, strict=True)
        sums = {name: value + vars(other)[name] for name, value in vars(self).items()}
        return LabelSums(**sums | {"n_labelled": tuple(a + b for a, b in pairs)})


@dataclass(frozen=True, eq=False)
class LabelledPart:
    """The chunks of one part labelled, as its receipt notes it for a later attempt of the run.

    Parameters
    ----------
    receipt : PartReceipt or None
        None where nothing is written.
    contents : tuple of str
        SHA-256 of the input's pages, chunk by chunk.
    sums : LabelSums
    """

    receipt: PartReceipt | None
    contents: tuple[Sha256, ...]
    sums: LabelSums

    def note(self, folder: RunFolder) -> None:
        """Write the receipt; nothing where there is none."""
        if self.receipt is not None:
            folder.put(receipt_name(self.receipt.index), RECEIPT.dump(self))

    @classmethod
    def noted(cls, folder: RunFolder, index: int) -> tuple[LabelledPart, PartReceipt]:
        """What the receipt of a part says; raises OutputError where it is absent or damaged."""
        name = receipt_name(index)
        labelled = RECEIPT.load(folder.get(name), folder.path(name))
        if labelled.receipt is None:
            raise OutputError(f"{folder.path(name)} names no part.")
        return labelled, labelled.receipt


RECEIPT = Document(record(LabelledPart))


def labelled_before(folder: RunFolder, index: int, **origin: Any) -> LabelledPart | None:
    """The part that an earlier attempt wrote, where it is whole and of this origin.

    None where there is no such part, or its receipt is damaged: then it is made once more.

    Parameters
    ----------
    index : int
        Number of the chunk.
    origin
        As `write_part` takes it.
    """
    try:
        labelled, receipt = LabelledPart.noted(folder, index)
    except OutputError:
        return None
    is_of_origin = receipt == replace(receipt, index=index, **origin)
    return labelled if is_of_origin and receipt.is_whole(folder) else None


def write_part(
    folder: RunFolder,
    index: int,
    table: pa.Table,
    *,
    first_row: int,
    file: str,
    start: int,
    stop: int,
    model_sha256: str,
    others: Sequence[FileRows] = (),
) -> PartReceipt:
    """Write one part under a name made of its content; doing it again writes nothing.

    Parameters
    ----------
    model_sha256 : str
        Checksum of the model that gave the labels; the part says it.
    others : sequence of FileRows
        Small files whose rows follow; the part says which they are.

    Raises
    ------
    DataError
        The table has another number of rows than the ranges.
    OutputError
    """
    if table.num_rows != stop - start + sum(each.stop - each.start for each in others):
        raise DataError(f"{file}, rows {start} to {stop}: {table.num_rows} labels were made")
    origin: dict[str, Any] = {"first_row": first_row, "file": file, "start": start, "stop": stop}
    origin |= {MODEL_KEY: model_sha256}
    metadata = {f"gmm_dask.{key}": str(value) for key, value in origin.items()}
    if others:
        metadata["gmm_dask.others"] = json.dumps([[*vars(each).values()] for each in others])
    data = parquet_bytes(table, metadata, counting=["row_id"], plain=PLAIN)
    sha256 = sha256_hex(data)
    name = f"labels/part-{index:05d}-{sha256[:16]}.parquet"
    if not folder.put_if_absent(name, data):
        # The name says what the content must be, so what is there is damaged.
        folder.put(name, data)
    return PartReceipt(
        index, name, sha256, len(data), table.num_rows, **origin, others=tuple(others)
    )


def receipt_name(index: int) -> str:
    """The name of the receipt of the part that begins with a chunk."""
    return f"receipts/{index:05d}.json"


def content_problem(
    data: bytes, path: str, *, first_row: int, rows: int, model_sha256: str | None
) -> str | None:
    """Why a part does not hold exactly these rows with labels of that model; None if it does."""
    try:
        row_ids = read_parquet_bytes(data, ["row_id"]).column(0).combine_chunks()
    except (pa.ArrowException, OSError, IndexError) as error:
        return f"it is no label file ({error})"
    if not np.array_equal(to_numpy(row_ids), np.arange(first_row, first_row + rows)):
        return f"it does not hold exactly the {rows} rows from {first_row} on"
    return wrong_model(data, path, model_sha256)


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
