"""Parts of labels: written once under names made of their content, with a receipt of each.

A receipt has sums over its rows, and for kept columns that are categories the rows by value and
label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.errors import DataError, OutputError
from gmm_dask.mixture.classification import NOT_COMPARED, Classification, Migration
from gmm_dask.storage.arrow import (
    parquet_bytes,
    read_parquet_bytes,
    to_numpy,
)
from gmm_dask.storage.records.codec import MAX_TEXT, Name, Place, Sha256, Size, record
from gmm_dask.storage.records.documents import Document, sha256_hex
from gmm_dask.storage.records.model_file import MODEL_KEY
from gmm_dask.storage.store.runs import RunFolder, damage_of, wrong_model

MAX_VALUES = 30  # of a category, a missing value among them; a column of more is none
FIRST_LOOK = 1 << 12  # rows, in which a column of keys shows itself
AT_ONCE = 1 << 16  # rows after them looked at together: their numbers stay in a processor's cache
NO_COMPONENTS = Classification.none(0)
PLAIN = (  # compressing would hardly make them smaller
    *("label", "log_density", "severity"),
    *("reason_scores", "reason_expected", "label_evidence"),
)


@dataclass(frozen=True)
class ValueCounts:
    """The rows of one value.

    Parameters
    ----------
    value : str or None
        As text; None for rows without a value.
    counts : tuple of k + 1 int
        Rows by label, those with the label -1 last.
    """

    value: str | None
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CrossTables:
    """Kept columns against labels; they add up.

    Parameters
    ----------
    columns : mapping of str to tuple of ValueCounts or None
        By name of the column, in the order of the values. None for a column that is no category:
        its values are of another type, too long or more than MAX_VALUES in any of the rows.
    """

    columns: Mapping[str, tuple[ValueCounts, ...] | None]

    @classmethod
    def of(cls, kept: pa.Table, labels: npt.NDArray[np.int32], n_components: int) -> CrossTables:
        """The cross-tables of n rows, made of their kept columns and their labels, (n,)."""
        at = np.where(labels < 0, np.int32(n_components), labels)
        pairs = zip(kept.column_names, kept.columns, strict=True)
        return cls({name: _counted(column, at, n_components + 1) for name, column in pairs})

    def __add__(self, other: CrossTables) -> CrossTables:
        return CrossTables(
            {name: _added(found, other.columns[name]) for name, found in self.columns.items()}
        )


NO_TABLES = CrossTables({})


def _is_category(type_: pa.DataType) -> bool:
    """Whether values of the type can name a category: text, booleans or integers."""
    if pa.types.is_dictionary(type_):
        return _is_category(type_.value_type)
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    return pa.types.is_integer(type_) or any(test(type_) for test in tests)


def _counted(
    column: pa.ChunkedArray, labels: npt.NDArray[np.int32], n_labels: int
) -> tuple[ValueCounts, ...] | None:
    found: tuple[ValueCounts, ...] | None = ()
    if not _is_category(column.type):
        return None
    first, step = 0, FIRST_LOOK
    while found is not None and first < len(column):
        for block in column.slice(first, step).chunks:
            here = labels[first : first + len(block)]
            found = _added(found, _of_block(block, here, n_labels))
            first += len(block)
        step = AT_ONCE
    return found


def _of_block(
    block: pa.Array, labels: npt.NDArray[np.int32], n_labels: int
) -> tuple[ValueCounts, ...] | None:
    if pa.types.is_dictionary(block.type):  # its dictionary may hold values that no row has
        block = block.dictionary_decode()
    encoded = block.dictionary_encode(null_encoding="encode")
    if len(encoded.dictionary) > MAX_VALUES:
        return None
    try:
        values = encoded.dictionary.cast(pa.string()).to_pylist()
    except UnicodeDecodeError:  # Parquet does not forbid bytes that are no text
        return None
    if any(value is not None and len(value) > MAX_TEXT for value in values):
        return None
    at = to_numpy(encoded.indices) * np.int64(n_labels) + labels
    table = np.bincount(at, minlength=len(values) * n_labels).reshape(-1, n_labels)
    pairs = zip(values, table.tolist(), strict=True)
    return _in_order({value: tuple(counts) for value, counts in pairs})


def _added(
    one: tuple[ValueCounts, ...] | None, other: tuple[ValueCounts, ...] | None
) -> tuple[ValueCounts, ...] | None:
    """The rows of both; None where that is too many values, or either has too many."""
    if one is None or other is None:
        return None
    sums = {each.value: each.counts for each in one}
    for each in other:
        before = sums.get(each.value, (0,) * len(each.counts))
        sums[each.value] = tuple(a + b for a, b in zip(before, each.counts, strict=True))
    return None if len(sums) > MAX_VALUES else _in_order(sums)


def _in_order(counts: Mapping[str | None, tuple[int, ...]]) -> tuple[ValueCounts, ...]:
    """By value, the missing one last: in whatever order rows come, the sum is the same."""
    order = sorted(counts, key=lambda value: (value is None, value or ""))
    return tuple(ValueCounts(value, counts[value]) for value in order)


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
