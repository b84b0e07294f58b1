"""Delta tables: the files that a version of the table is made of, as its log says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from gmm_dask.errors import DataError
from gmm_dask.storage.input.inputs import is_remote, unreadable
from gmm_dask.storage.input.listing.keys import Key, Keys
from gmm_dask.storage.input.listing.table_formats import INSTEAD
from gmm_dask.storage.store.object_errors import brief

# Features that a reader of plain Parquet gets right; the first two where they are not in use.
READABLE = frozenset(
    {
        *("deletionVectors", "columnMapping"),
        *("timestampNtz", "typeWidening", "typeWidening-preview"),
        *("v2Checkpoint", "vacuumProtocolCheck"),
    }
)
NO_DELETED_ROWS = (
    "Have its deleted rows taken out of the files (REORG TABLE ... APPLY (PURGE)), or give "
    "data.path an export of it."
)
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\n\s+\d+: <unknown>.*", re.DOTALL)


@dataclass(frozen=True)
class Snapshot:
    """One version of a table.

    Parameters
    ----------
    version : int
    keys : mapping of str to Keys
        The partition values of each file, by its name relative to the table.
    columns : tuple of str
        Columns of the table that are no partition values. A file that is older than one of them
        is without it, and has missing values there.
    schema : Schema
        All columns of the table.
    """

    version: int
    keys: Mapping[str, Keys]
    columns: tuple[str, ...]
    schema: pa.Schema


def is_installed() -> bool:
    """Whether the library that reads Delta tables is there."""
    return find_spec("deltalake") is not None


def read_snapshot(root: str, version: int | None = None) -> Snapshot:
    """The files of a version of the table, the latest one where none is named.

    Parameters
    ----------
    root : str
        Absolute path or URL.
    version : int, optional

    Raises
    ------
    DataError
        There is no such version, or to read its files is not to read the table.
    InputError
        Its storage fails.
    """
    if not is_remote(root) and unquote(root) != root:
        raise DataError(
            f"{root}: the library that reads Delta tables takes %XX in a path for another "
            "character. Rename the folder."
        )
    table = _opened(root, version)
    with _explained(root):
        _check_features(root, table)
        _check_deleted_rows(root, table)
        added = pa.table(table.get_add_actions())
        schema = pa.schema(table.schema())
    keys = dict(zip(_names(root, added), _keys(root, added), strict=True))
    partitions = set(table.metadata().partition_columns)
    columns = tuple(name for name in schema.names if name not in partitions)
    return Snapshot(int(table.version()), keys, columns, schema)


def _opened(root: str, version: int | None) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    with _explained(root):
        table = DeltaTable(root, storage_options=storage_options(root))
        if version is None or version == table.version():
            return table
        try:
            return DeltaTable(root, version=version, storage_options=storage_options(root))
        except DeltaError as error:
            raise DataError(
                f"{root}: has no version {version} that can be read ({said(error)}); the "
                f"latest is {table.version()}. Correct data.version, or leave it out."
            ) from error


def storage_options(root: str) -> dict[str, str]:
    """How the library reaches a store; credentials come from the environment, as ours do."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
    return {"allow_http": "true"} if is_remote(root) and endpoint.startswith("http://") else {}


def _check_features(root: str, table: Any) -> None:
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode != "none":
        raise DataError(
            f"{root}: the Delta table maps its columns to other names in the files "
            f"(delta.columnMapping.mode is {mode}), which is not read. Give data.path "
            f"{INSTEAD}."
        )
    unknown = sorted({*(table.protocol().reader_features or ())} - READABLE)
    if unknown:
        raise DataError(
            f"{root}: the Delta table needs the features {', '.join(unknown)}, which are "
            f"not read. Give data.path {INSTEAD}."
        )


def _check_deleted_rows(root: str, table: Any) -> None:
    """Rows that are marked as deleted beside the files must not come back."""
    from deltalake.exceptions import DeltaError

    try:
        batch = next((each for each in table.deletion_vectors() if each.num_rows), None)
    except DeltaError as error:
        may_have = "deletionVectors" in (table.protocol().reader_features or ())
        if not may_have and "Unsupported table features" in str(error):
            return  # for which the library does not look
        raise DataError(
            f"{root}: the Delta table may have deletion vectors, and these cannot be "
            f"looked at: {said(error)}. {NO_DELETED_ROWS}"
        ) from error
    if batch is not None:
        first = str(pa.record_batch(batch).column("filepath")[0])
        raise DataError(
            f"{root}: rows of the Delta table are deleted through deletion vectors (of "
            f"{first.rpartition('/')[2]}, for one), which are not read. {NO_DELETED_ROWS}"
        )


def _names(root: str, added: pa.Table) -> Iterator[str]:
    """Names relative to the table; the log has them as URLs."""
    for path in added.column("path").to_pylist():
        name = unquote(path)
        if "://" in path or name.startswith("/") or ".." in name.split("/"):
            raise DataError(
                f"{root}: the Delta table refers to files elsewhere ({name}, for "
                "one), as a shallow clone does. Give data.path the table that it was cloned from, "
                "or a deep clone."
            )
        yield name


def _keys(root: str, added: pa.Table) -> Iterator[Keys]:
    """The partition values of each file, as text and type."""
    if "partition" not in added.column_names:
        yield from ((),) * added.num_rows
        return
    values = added.column("partition").combine_chunks()
    fields = [values.type.field(i) for i in range(values.type.num_fields)]
    try:
        texts = [values.field(each.name).cast(pa.string()).to_pylist() for each in fields]
    except pa.ArrowException as error:
        raise DataError(
            f"{root}: the Delta table is partitioned by values that are no text: "
            f"{brief(error)}. Give data.path {INSTEAD}."
        ) from error
    for row in zip(*texts, strict=True):
        yield tuple(
            Key(field.name, text, field.type) for field, text in zip(fields, row, strict=True)
        )


@contextmanager
def _explained(root: str) -> Iterator[None]:
    """Turn what the library raises into errors of ours."""
    from deltalake.exceptions import DeltaError

    try:
        yield
    except OSError as error:
        raise unreadable(root, OSError(error.errno, said(error))) from error
    except DeltaError as error:
        raise DataError(
            f"{root}: cannot be read as the Delta table that it looks like: {said(error)}. "
            f"Repair its log, or give data.path {INSTEAD}."
        ) from error


def said(error: Exception) -> str:
    """The library's words without its colours and its stack."""
    return brief(Exception(_NOISE.sub("", str(error))))
