"""Labels as a Delta table: one version of the table for each publication, written at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from gmm_dask.errors import DataError, GmmDaskError, OutputError
from gmm_dask.storage.input.columns.column_types import exact_cast, plain_type
from gmm_dask.storage.input.inputs import Problems, open_input
from gmm_dask.storage.input.listing.places import places_of
from gmm_dask.storage.input.listing.table_formats import (
    DELTA_MARK,
    is_installed,
    said,
    storage_options,
)
from gmm_dask.storage.store.object_store import brief

OURS = "Labels of gmm_dask"  # begins the description of a table that may be overwritten
PREFIX = "gmm_dask."
MAX_COMMITS = 20  # of the table's log that are looked through for one of ours
MAX_COMMIT_BYTES = 16 << 20  # of one entry; ours begin with what is looked for
MAX_DECIMAL_DIGITS = 38
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.null(): pa.string(),
}


@dataclass(frozen=True)
class TableOrigin:
    """Which labels a version of the table holds.

    Parameters
    ----------
    output : str
        Where the version is published.
    number : int
        Number of that version.
    run_id : str
    manifest_sha256 : str
    """

    output: str
    number: int
    run_id: str
    manifest_sha256: str

    def metadata(self) -> dict[str, str]:
        """The fields by which a commit of the table tells its origin."""
        return {f"{PREFIX}{key}": str(value) for key, value in asdict(self).items()}

    @classmethod
    def of_line(cls, line: bytes) -> TableOrigin | None:
        """The origin that a line of the log tells; None where we did not write the line."""
        try:
            commit = json.loads(line)["commitInfo"]
            found = {key: commit[f"{PREFIX}{key}"] for key in cls.__dataclass_fields__}
            return cls(**found | {"number": int(found["number"])})
        except (KeyError, TypeError, ValueError, RecursionError):
            return None


def check_target(url: str) -> None:
    """Refuse a place where no Delta table of ours is or can be.

    Raises
    ------
    OutputError
        It holds something else, cannot be looked at, or the library is missing.
    """
    if not is_installed():
        raise OutputError(
            f"labels.delta_table: {url} needs the library that writes Delta tables: "
            "pip install 'gmm-dask[delta]'."
        )
    with _explained(url):
        places = places_of(url, Problems())
        is_file = any(each.kind == "file" for each in places)
        table = None if is_file else _table(url)
        if table is not None:
            _check_is_ours(url, table)
        elif is_file or any(each.folders().entries("") for each in places):
            raise OutputError(
                f"labels.delta_table: {url} holds files and is no Delta table. Choose a new folder."
            )


def delta_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that a Delta table has for these columns, each type as wide as need be.

    Raises
    ------
    DataError
        Columns that no Delta table holds, all of them.
    """
    types = {field.name: _delta_type(field.type) for field in schema}
    problems = [
        f"labels.delta_table: a Delta table has no type for the column {name!r}, which is "
        f"{schema.field(name).type}. Leave it out of the labels."
        for name, type_ in types.items()
        if type_ is None
    ]
    counts = Counter(name.lower() for name in types)
    problems += [
        f"labels.delta_table: a Delta table does not tell the column {name!r} from another by "
        "upper and lower case alone. Leave one of them out of the labels."
        for name in types
        if counts[name.lower()] > 1
    ]
    if problems:
        raise DataError(problems)
    return pa.schema(list(types.items()))


def write_table(
    url: str, parts: Iterable[pa.Table], schema: pa.Schema, origin: TableOrigin
) -> int | None:
    """Make the labels the next version of the table, in one commit.

    Labels that the table holds already are not written again. None stands for a table that holds
    the labels of a later version of the same output, which are left.

    Parameters
    ----------
    url : str
    parts : iterable of Table
        Read one after the other.
    schema : pa.Schema
        As delta_schema gives it.
    origin : TableOrigin

    Returns
    -------
    The version of the table that holds the labels.

    Raises
    ------
    OutputError
        The table is not ours, its storage fails, or somebody wrote to it at the same moment.
    """
    with _explained(url):
        table = _table(url)
        if table is None:
            _commit(url, url, parts, schema, origin)
            return 0
        _check_is_ours(url, table)
        commits = _commits(url, int(table.version()))
        last = next(commits)
        if last == origin:
            return int(table.version())
        last = last or next((each for each in commits if each is not None), None)
        if last is not None and last.output == origin.output and last.number > origin.number:
            return None
        _commit(url, table, parts, schema, origin)
        return int(table.version())


def _commits(url: str, version: int) -> Iterator[TableOrigin | None]:
    """The origins of the last commits of a table, the latest first; None for commits of others.

    The library has a way to this that holds all threads up while it waits for a store.
    """
    for number in range(version, max(-1, version - MAX_COMMITS), -1):
        try:
            with open_input(f"{url}/{DELTA_MARK}/{number:020}.json") as file:
                lines = file.stream.read(MAX_COMMIT_BYTES).splitlines()
        except FileNotFoundError:
            yield None  # old entries are taken away once in a while
            return
        yield next(filter(None, map(TableOrigin.of_line, lines)), None)


def _commit(
    url: str, table: Any, parts: Iterable[pa.Table], schema: pa.Schema, origin: TableOrigin
) -> None:
    """Replace what the table held when it was opened; who came in between is not overwritten."""
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    batches = _Batches(parts, schema)
    try:
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(schema, batches),
            mode="overwrite",
            schema_mode="overwrite",
            description=f"{OURS}; each version of the table replaces them all.",
            storage_options=storage_options(url),
            commit_properties=CommitProperties(origin.metadata(), max_commit_retries=0),
        )
    except (DeltaError, OSError, pa.ArrowException, ValueError):
        if batches.error is not None:
            raise batches.error from None  # the library knows nothing but its text
        raise


class _Batches:
    """The parts as batches of one schema; `error` is what reading them ended in."""

    def __init__(self, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
        self._batches = self._of(parts, schema)
        self.error: GmmDaskError | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except GmmDaskError as error:
            self.error = error
            raise

    def _of(self, parts: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for part in parts:
            for batch in part.to_batches():
                columns = [_cast(batch.column(field.name), field) for field in schema]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(array: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return exact_cast(array, field.type)
    except pa.ArrowInvalid as error:
        raise OutputError(
            f"labels.delta_table: the column {field.name!r} holds a value that {field.type}, its "
            f"type in a Delta table, has no room for: {brief(error)}. Leave it out of the labels."
        ) from error


def _delta_type(type_: pa.DataType) -> pa.DataType | None:
    """The type of a Delta table that holds the values; None where there is none."""
    type_ = _WIDER.get(type_, plain_type(type_))
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", None if type_.tz is None else "UTC")
    if pa.types.is_decimal(type_):
        fits = type_.precision <= MAX_DECIMAL_DIGITS and type_.scale >= 0
        return pa.decimal128(type_.precision, type_.scale) if fits else None
    if pa.types.is_map(type_):
        key, item = _delta_type(type_.key_type), _delta_type(type_.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if (
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    ):
        value = _delta_type(type_.value_type)
        return None if value is None else pa.list_(value)
    if pa.types.is_struct(type_):
        fields = [(field.name, _delta_type(field.type)) for field in type_]
        return None if any(kind is None for _, kind in fields) else pa.struct(fields)
    if pa.types.is_fixed_size_binary(type_):
        return pa.binary()
    return type_ if type_ in _SAME else None


_SAME = {
    *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
    *(pa.string(), pa.binary(), pa.date32()),
}


def _table(url: str) -> Any:
    """The table; None where there is none yet."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        # DeltaTable.is_deltatable would hold all threads up while it waits for a store.
        return DeltaTable(url, storage_options=storage_options(url))
    except TableNotFoundError:
        return None


def _check_is_ours(url: str, table: Any) -> None:
    if not (table.metadata().description or "").startswith(OURS):
        raise OutputError(
            f"labels.delta_table: {url} is a Delta table that was not made for labels, which would "
            "replace what it holds. Choose a new folder."
        )


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what the library raises into errors of ours."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise OutputError(
            f"labels.delta_table: somebody else wrote to {url} at the same moment. Run again: "
            "what is published stays, and the table is written once more."
        ) from error
    except (DeltaError, OSError) as error:
        raise OutputError(
            f"labels.delta_table: {url} cannot be used: {said(error)}. Correct that and run again."
        ) from error
