"""Tables that are more than their folder: a log says which of the files in it are data.

The others were removed or replaced and are kept for a while; to read them is to bring deleted rows
back. So a folder is looked at before its files are taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from gmm_dask.errors import DataError
from gmm_dask.storage.input.columns.column_types import Key, Keys
from gmm_dask.storage.input.inputs import is_remote, unreadable
from gmm_dask.storage.store.object_store import brief, os_errors

DELTA_MARK = "_delta_log"
# Folders by which a table is known, its kind, and what a name in the folder must be.
MARKS: dict[str, tuple[str, str | None]] = {
    DELTA_MARK: ("Delta", None),
    ".hoodie": ("Hudi", None),
    "metadata": ("Iceberg", r"version-hint\.text|.*\.metadata\.json(\.gz)?|snap-.*\.avro"),
    "schema": ("Paimon", r"schema-\d+"),
    "_versions": ("Lance", r".*\.manifest"),
    "_spark_metadata": ("Spark streaming", None),
}
# Names of files and folders of which one is enough.
NAMED = (
    ("Hudi", re.compile(r"\.hoodie.*")),  # in the folder of a partition
    ("Hive ACID", re.compile(r"(delete_)?delta_\d+_\d+(_\d+)?(_v\d+)?|base_\d{7}(_v\d+)?")),
    ("DuckLake", re.compile(r"ducklake-[0-9a-f-]{36}(-delete)?\.parquet")),
)
_COMMIT = re.compile(r"_(started|committed)_(\d+)")  # of Databricks, beside the files
REQUESTS_AT_ONCE = 16
COUNTS = "a log says which of the files count, others may hold deleted rows, or rows twice"
INSTEAD = "an export of it, or a list of the files that count, each by name"


def table_format(names: Collection[str], names_in: Callable[[str], Collection[str]]) -> str | None:
    """What kind of table a folder is, such as "Delta" or "Iceberg"; None for a plain folder.

    Parameters
    ----------
    names : collection of str
        Names of what the folder holds.
    names_in : callable
        Gives the same of a folder in it.
    """
    for mark, (kind, inside) in MARKS.items():
        if mark in names and (
            inside is None or any(re.fullmatch(inside, name) for name in names_in(mark))
        ):
            return kind
    kinds = filter(None, map(_kind_by_name, names))
    return next(kinds, "Databricks" if _has_commits(names) else None)


def _kind_by_name(name: str) -> str | None:
    return next((kind for kind, pattern in NAMED if pattern.fullmatch(name)), None)


def _has_commits(names: Iterable[str]) -> bool:
    """Whether jobs of Databricks failed, or wrote to a folder more than once and may replace files.

    A single job that ended leaves its files and nothing else.
    """
    jobs: dict[str, set[str]] = {}
    for found in filter(None, map(_COMMIT.fullmatch, names)):
        jobs.setdefault(found[2], set()).add(found[1])
    return len(jobs) > 1 or any(len(steps) < 2 for steps in jobs.values())


def table_around(root: str, files: Any = None) -> tuple[str, str] | None:
    """The nearest table that a folder is or lies in, and what kind of table it is.

    Parameters
    ----------
    root : str
        Absolute path; bucket and key where `files` is the filesystem of a store.

    Raises
    ------
    OSError
        The store cannot be asked.
    """
    if files is None:
        links = dict.fromkeys((root, os.path.realpath(root)))
        folders = [str(each) for link in links for each in (link, *Path(link).parents)]
        found: Iterator[str | None] = map(_local_format, folders)
    else:
        parts = root.split("/")
        folders = ["/".join(parts[:n]) for n in range(len(parts), 0, -1) if parts[0]]  # a bucket
        found = _remote_formats(files, folders)
    for where, kind in zip(folders, found, strict=True):
        above, _, name = where.rpartition("/")
        if kind is not None:
            return where, kind
        if (of_parent := _kind_by_name(name)) is not None:
            return above, of_parent
    return None


def refusal(place: str, kind: str) -> str:
    """The message that refuses a table of a kind that is not read here."""
    install = "Install the library that reads it (pip install 'gmm-dask[delta]'), or give"
    verb = install if kind == "Delta" else "Give"
    return f"{place}: is {_a(kind)} table: {COUNTS}. {verb} data.path {INSTEAD}."


def refusal_inside(place: str, table: str, kind: str) -> str:
    """The message that refuses a folder or a file inside of a table."""
    return (
        f"{place}: lies inside of the {kind} table {table}: {COUNTS}. "
        f"Give data.path {_itself(kind)}{INSTEAD}."
    )


def refusal_below(place: str, table: str, kind: str) -> str:
    """The message that refuses a folder with a table somewhere below."""
    return (
        f"{table}: is {_a(kind)} table among the files of {place}: {COUNTS}. "
        f"Give data.path {_itself(kind)}{INSTEAD}."
    )


def _itself(kind: str) -> str:
    return "the table itself, " if kind == "Delta" else ""


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def _local_format(folder: str) -> str | None:
    def names_in(name: str) -> Collection[str]:
        with suppress(OSError):
            return os.listdir(f"{folder}/{name}")  # noqa: PTH208
        return ()

    return table_format([mark for mark in MARKS if os.path.lexists(f"{folder}/{mark}")], names_in)


def _remote_formats(files: Any, folders: Sequence[str]) -> Iterator[str | None]:
    """Table formats of a store's folders; what must not be looked at is taken for plain."""

    def is_there(folder: str, mark: str) -> bool:
        with suppress(PermissionError):
            return bool(files.exists(f"{folder}/{mark}"))
        return False

    def names_in(folder: str, mark: str) -> Collection[str]:
        with suppress(PermissionError):
            found = files.ls(f"{folder}/{mark}", detail=False)
            return [key.rpartition("/")[2] for key in found]
        return ()

    with os_errors(), ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        pairs = [(folder, mark) for folder in folders for mark in MARKS]
        there = dict(zip(pairs, pool.map(is_there, *zip(*pairs, strict=True)), strict=True))
        for folder in folders:
            marks = [mark for mark in MARKS if there[folder, mark]]
            yield table_format(marks, partial(names_in, folder))


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
        The storage of the table fails.
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
