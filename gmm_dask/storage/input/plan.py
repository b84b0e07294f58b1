"""The plan: every file, row group and row of a dataset, known before any data is read."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from gmm_dask.errors import DataError
from gmm_dask.kinds import INEXACT
from gmm_dask.storage.input.columns.column_types import holds_moments
from gmm_dask.storage.input.columns.lists import column_of
from gmm_dask.storage.input.columns.one_type import ONE_TYPE
from gmm_dask.storage.input.columns.roles import Cast, Roles
from gmm_dask.storage.input.columns.schema import Schema, common_schema
from gmm_dask.storage.input.inputs import REFUSALS, is_remote, open_input, unreadable
from gmm_dask.storage.input.listing import File, Listing, Paths, joined, list_files
from gmm_dask.storage.input.parquet.footers import (
    Column,
    Footer,
    footer_of_none,
    read_footer,
    stored_unit,
)
from gmm_dask.storage.input.problems import Problems
from gmm_dask.storage.input.shards import Chunk, Shard, row_ranges, shards_of

REQUESTS_AT_ONCE = 16  # an object store answers many at the speed of one; a local disk does not
MAX_CHUNKS = 1_000_000  # a forged row count must not fill the memory with a plan
REMEDIES = {
    "null": "Fill them, or set data.missing: drop or em.",
    "inexact": INEXACT,
    "infinite": "Remove or replace them.",
    "negative": "Weights must not be negative.",
}


@dataclass(frozen=True)
class Partition:
    """One file.

    Parameters
    ----------
    index : int
    name : str
        Posix path relative to the root.
    size, mtime_ns, etag, changed_ns
        What tells that the file changed; see FileState.
    footer_sha256 : str
        What the file is, on every machine.
    row_groups : tuple of int
        Rows of each.
    first_row : int
        Position of its first row in the dataset.
    keys : tuple of (str, str or None)
        Folder keys in path order; None stands for a missing value.
    absent : tuple of str
        Columns of its table that the file is older than: it has missing values there.
    """

    index: int
    name: str
    size: int
    mtime_ns: int
    etag: str | None
    changed_ns: int
    footer_sha256: str
    row_groups: tuple[int, ...]
    first_row: int
    keys: tuple[tuple[str, str | None], ...]
    absent: tuple[str, ...] = ()

    @cached_property
    def n_rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Plan:
    """A dataset as it was when planned; the chunks hold every row once, in order.

    A dataset of no rows has one chunk, of none: its label part says which columns labels have.

    Parameters
    ----------
    root : str
        Absolute path or URL.
    features : tuple of str
        Columns, and elements of columns of lists, such as "embedding[0]".
    dtype : {"float32", "float64"}
        The narrower one that holds every value of the features.
    feature_types : tuple of str
        Arrow type of each, the widest over all files.
    weight_column : str or None
    id_columns : tuple of str
    columns : tuple of (name, Arrow type)
        All columns of the files, in the first file's order.
    key_columns : tuple of str
        Keys of the folders `key=value`.
    partitions : tuple of Partition
    chunks : tuple of Chunk
    chunk_rows : int
        Rows of a chunk at most.
    cast : tuple of (name, Arrow type)
        Columns that are taken for numbers because the settings ask for it.
    n_ignored, n_hidden : int
        Files left out as the settings ask, and names left out that start with "_" or ".".
    widened : tuple of (name, Arrow type)
        Columns and keys that have another type in labels than in some file.
    tables : tuple of (str, int)
        The Delta tables that the files are of: name relative to the root, and version.
    caution : str or None
        What must be known of files that were named one by one.
    """

    root: str
    features: tuple[str, ...]
    dtype: str
    feature_types: tuple[str, ...]
    weight_column: str | None
    id_columns: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    key_columns: tuple[str, ...]
    partitions: tuple[Partition, ...]
    chunks: tuple[Chunk, ...]
    chunk_rows: int
    cast: tuple[tuple[str, str], ...] = ()
    n_ignored: int = 0
    n_hidden: int = 0
    widened: tuple[Column, ...] = ()
    tables: tuple[tuple[str, int], ...] = ()
    caution: str | None = None

    @cached_property
    def n_rows(self) -> int:
        """Rows of the dataset."""
        return sum(partition.n_rows for partition in self.partitions)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """Columns of the files that the features are read from."""
        names = dict(self.columns)
        return tuple(dict.fromkeys(column_of(name, names) for name in self.features))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's features in memory."""
        return len(self.features) * (4 if self.dtype == "float32" else 8)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All chunks in order, as tasks read them."""
        row_groups = [partition.row_groups for partition in self.partitions]
        return tuple(shards_of(self.chunks, row_groups, self.chunk_rows))

    @cached_property
    def n_arrays(self) -> int:
        """Arrays in memory that a pass works on."""
        return sum(len(shard.arrays) for shard in self.shards)

    @cached_property
    def array_bytes(self) -> int:
        """Bytes of the largest array of features in memory."""
        rows = (sum(c.n_rows for c in array) for shard in self.shards for array in shard.arrays)
        return max(rows, default=0) * self.row_bytes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and footers, the same wherever and whenever they were copied.

        Of Delta tables also their versions, and the partition values in their logs. Other data have
        another fingerprint, but for values between the least and the greatest of a column;
        storage.contents tells those apart.
        """
        digest = hashlib.sha256()
        lines: list[Any] = [
            [each.name, each.size, each.footer_sha256, *([each.keys] if self.tables else [])]
            for each in self.partitions
        ]
        for line in (*lines, *self.tables):
            digest.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
        return digest.hexdigest()

    def url(self, partition: Partition) -> str:
        """Where a partition is opened."""
        return joined(self.root, partition.name)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        document = asdict(self) | {"n_rows": self.n_rows, "fingerprint": self.fingerprint}
        document["columns"], document["cast"] = dict(self.columns), dict(self.cast)
        document["tables"] = dict(self.tables)
        document["widened"] = {name: str(type_) for name, type_ in self.widened}
        for partition, entry in zip(self.partitions, document["partitions"], strict=True):
            entry["n_rows"] = partition.n_rows
            entry["keys"] = dict(partition.keys)
        return json.loads(json.dumps(document))  # type: ignore[no-any-return]


def plan_dataset(
    path: Paths,
    *,
    features: Sequence[str] | None = None,
    id_columns: Sequence[str] = (),
    weight_column: str | None = None,
    keep: Sequence[str] | Literal["ids", "all"] = (),
    chunk_bytes: int = 64 << 20,
    missing: Literal["error", "drop", "em"] = "error",
    cast: Sequence[Cast] = (),
    ignore: Sequence[str] = (),
    version: int | None = None,
    to_fit: bool = True,
) -> Plan:
    """Plan a dataset from its footers alone; the same files give the same chunks everywhere.

    Parameters
    ----------
    path : path, or sequence of paths
        Folder (searched in depth), one file, or glob; local, or a URL of an allowed scheme.
    features : sequence of str, optional
        All numeric columns without another role where not given.
    id_columns : sequence of str
        Columns or folder keys.
    weight_column : str, optional
    keep : sequence of str, "ids" or "all"
        Columns or folder keys that will go to the labels beside the ids.
    chunk_bytes : int
        Size of a chunk's features as float64, at most.
    missing : {"error", "drop", "em"}
        Whether nulls in the features are a problem.
    cast : sequence of {"decimal", "bool"}
        Types that are taken for numbers: decimals are rounded to double, true is 1.
    ignore : sequence of str
        Globs of files to leave out; see list_files.
    version : int, optional
        Of the Delta table to read; its latest where not given.
    to_fit : bool
        Whether no rows, and a feature of no values, are problems.

    Raises
    ------
    DataError
        The files are not as promised; all problems at once, each with its place and remedy.
    """
    roles = Roles(
        None if features is None else tuple(features),
        tuple(id_columns),
        weight_column,
        "all" if keep == "all" else () if keep == "ids" else tuple(keep),
        missing,
        tuple(cast),
        to_fit,
    )
    problems = Problems()
    listing = list_files(path, problems, ignore, version)
    footers = _read_footers(listing, roles, problems)
    footers = footers or [footer_of_none(*each) for each in listing.without_files]
    if not footers:
        problems.raise_any()
    schema = common_schema(footers, roles, problems)
    _check_values(footers, schema, roles, problems)
    if to_fit and not any(footer.n_rows for footer in footers) and not problems:
        n_files = len(listing.files)
        line = f"{listing.root}: the {n_files} files hold no rows. Check data.path."
        problems.add("no rows", line)
    problems.raise_any()
    partitions = tuple(_partitions(footers))
    chunk_rows = max(1, chunk_bytes // (8 * len(schema.features)))
    return Plan(
        root=listing.root,
        features=schema.features,
        dtype=schema.dtype,
        feature_types=schema.feature_types,
        weight_column=weight_column,
        id_columns=roles.id_columns,
        columns=schema.columns,
        key_columns=schema.key_columns,
        partitions=partitions,
        chunks=_chunks(partitions, chunk_rows) or (_empty_chunk(footers),),
        chunk_rows=chunk_rows,
        cast=schema.cast,
        n_ignored=listing.n_ignored,
        n_hidden=listing.n_hidden,
        widened=schema.widened,
        tables=listing.tables,
        caution=listing.caution,
    )


def _read_footers(listing: Listing, roles: Roles, problems: Problems) -> list[Footer]:
    """The footers of all files that have one, in order."""

    def read(each: File) -> Footer | DataError:
        name = each.name
        try:
            with open_input(listing.url(name)) as file:
                return read_footer(name, file, roles, each.keys, each.columns)
        except DataError as error:
            return error
        except OSError as error:
            if error.errno not in REFUSALS:
                raise unreadable(name, error) from error
            reason = error.strerror or error
            remedy = "Grant read access, or remove the file from the dataset."
            if error.errno == errno.ENOENT and listing.tables:
                remedy = "VACUUM removes files of old versions: correct data.version."
            return DataError(f"{name}: cannot be read: {reason}. {remedy}")

    if is_remote(listing.root):
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            results = list(pool.map(read, listing.files))
    else:
        results = list(map(read, listing.files))
    footers = []
    for result in results:
        if isinstance(result, Footer):
            footers.append(result)
        else:
            for line in result.problems:
                problems.add("files that are not whole Parquet files", line)
    return footers


def _check_values(
    footers: Sequence[Footer], schema: Schema, roles: Roles, problems: Problems
) -> None:
    """Report what statistics and keys say of values that cannot be used."""
    names = dict(schema.columns)
    computed = {*(column_of(name, names) for name in schema.features), roles.weight_column}
    for footer in footers:
        texts = {key.name: key.text for key in footer.keys}
        for name, other in footer.contradictions:
            line = (
                f"{footer.name}, column {name!r}: holds {other}, but its folder is that of "
                f"{name}={texts[name]!r}. Correct one of them, or rename the column or the folder."
            )
            problems.add(f"files with other values than their folder key {name!r}", line)
        _check_moments(footer, schema, problems)
        for odd in footer.oddities:
            if odd.column not in computed:
                continue
            remedy = REMEDIES[odd.kind]
            if odd.kind == "null" and odd.column == roles.weight_column:
                remedy = "Give every row a weight."
            where = f"{footer.name}, row group {odd.row_group}, column {odd.column!r}"
            problems.add(f"{odd.kind} in column {odd.column!r}", f"{where}: {odd.what}. {remedy}")


def _check_moments(footer: Footer, schema: Schema, problems: Problems) -> None:
    """Report time stamps beyond the range of the finer unit that other files have."""
    types = dict(footer.columns)
    for name, type_ in schema.widened:
        bounds = footer.moments.get(name)
        if bounds is None or holds_moments(type_, stored_unit(types[name]), bounds):
            continue
        line = (
            f"{footer.name}, column {name!r}: holds moments that {type_}, the type of other "
            f"files, has no room for. {ONE_TYPE}, or leave it out of the labels."
        )
        problems.add(f"moments of column {name!r} beyond the range of their type", line)


def _partitions(footers: Iterable[Footer]) -> Iterator[Partition]:
    first_row = 0
    for index, footer in enumerate(footers):
        yield Partition(
            index=index,
            name=footer.name,
            size=footer.state.size,
            mtime_ns=footer.state.mtime_ns,
            etag=footer.state.etag,
            changed_ns=footer.state.changed_ns,
            footer_sha256=footer.sha256,
            row_groups=footer.row_groups,
            first_row=first_row,
            keys=tuple((key.name, key.text) for key in footer.keys),
            absent=footer.absent,
        )
        first_row += footer.n_rows


def _chunks(partitions: Sequence[Partition], max_rows: int) -> tuple[Chunk, ...]:
    chunks: list[Chunk] = []
    for partition in partitions:
        if len(chunks) + partition.n_rows // max_rows > MAX_CHUNKS:
            raise DataError(
                f"{partition.name}: with its {partition.n_rows} rows the plan has more than "
                f"{MAX_CHUNKS} chunks. Raise memory.chunk_bytes, or check the file."
            )
        for start, stop in row_ranges(partition.row_groups, max_rows):
            first_row = partition.first_row + start
            chunks.append(Chunk(len(chunks), partition.index, start, stop, first_row))
    return tuple(chunks)


def _empty_chunk(footers: Sequence[Footer]) -> Chunk:
    """A chunk of no rows, of the first file that has columns."""
    return Chunk(0, next((i for i, each in enumerate(footers) if each.columns), 0), 0, 0, 0)
