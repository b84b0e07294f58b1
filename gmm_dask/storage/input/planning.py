"""How a dataset is planned: from its footers alone, before any data is read."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from gmm_dask.errors import DataError
from gmm_dask.kinds import INEXACT
from gmm_dask.pace import Count, counted
from gmm_dask.storage.input.columns.column_types import holds_moments
from gmm_dask.storage.input.columns.common_schema import (
    Schema,
    common_schema,
    without_values,
)
from gmm_dask.storage.input.columns.selection import Cast, Selection, column_of
from gmm_dask.storage.input.columns.variants import ONE_TYPE
from gmm_dask.storage.input.inputs import REFUSALS, Problems, is_remote, open_input, unreadable
from gmm_dask.storage.input.listing import File, Listing, Paths, list_files
from gmm_dask.storage.input.parquet.footers import (
    Footer,
    footer_of_none,
    read_footer,
    stored_unit,
)
from gmm_dask.storage.input.plan import Chunk, Partition, Plan
from gmm_dask.words import numbered

REQUESTS_AT_ONCE = 16  # an object store answers many at the speed of one; a local disk does not


MAX_CHUNKS = 1_000_000  # a forged row count must not fill the memory with a plan


REMEDIES = {
    "null": "Fill them, or set data.missing: drop or em.",
    "inexact": INEXACT,
    "infinite": "Remove or replace them.",
    "negative": "Weights must not be negative.",
}


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
    between: Mapping[str, tuple[str, str]] | None = None,
    to_fit: bool = True,
    tell: Count | None = None,
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
        Columns or folder keys that go to the labels.
    chunk_bytes : int
        Size of a chunk's features as float64, at most.
    missing : {"error", "drop", "em"}
        Whether nulls in the features are a problem.
    cast : sequence of {"decimal", "bool"}
        Types that are taken for numbers: decimals are rounded to double, true is 1.
    ignore, version, between
        As list_files takes them.
    to_fit : bool
        Whether no rows, and a feature of no values, are problems.
    tell : (footers read, of how many) -> object, optional

    Raises
    ------
    DataError
        The files are not as promised; all problems at once, each with its place and remedy.
    """
    selection = Selection(
        None if features is None else tuple(features),
        tuple(id_columns),
        weight_column,
        "all" if keep == "all" else () if keep == "ids" else tuple(keep),
        missing,
        tuple(cast),
        to_fit,
    )
    problems = Problems()
    listing = list_files(path, problems, ignore, version, between)
    footers = _read_footers(listing, selection, problems, tell)
    return _planned(listing, footers, selection, problems, chunk_bytes)


def _planned(
    listing: Listing,
    footers: list[Footer],
    selection: Selection,
    problems: Problems,
    chunk_bytes: int,
) -> Plan:
    """The plan of the files; raises DataError with all problems, those of the listing too."""
    footers = footers or [footer_of_none(*each) for each in listing.without_files]
    if not footers:
        problems.raise_any()
    schema = common_schema(footers, selection, problems)
    _check_values(footers, schema, selection, problems)
    if selection.to_fit and not any(footer.n_rows for footer in footers) and not problems:
        n_files = len(listing.files)
        hold = "holds" if n_files == 1 else "hold"
        line = f"{listing.root}: {numbered(n_files, 'file')} {hold} no rows. Check data.path."
        problems.add("no rows", line)
    problems.raise_any()
    return _plan(listing, footers, schema, selection, chunk_bytes)


def _plan(
    listing: Listing,
    footers: Sequence[Footer],
    schema: Schema,
    selection: Selection,
    chunk_bytes: int,
) -> Plan:
    partitions = tuple(_partitions(footers))
    chunk_rows = max(1, chunk_bytes // (8 * len(schema.features)))
    cautions = listing.caution, without_values(schema, selection)
    return Plan(
        root=listing.root,
        features=schema.features,
        dtype=schema.dtype,
        feature_types=schema.feature_types,
        weight_column=selection.weight_column,
        id_columns=selection.id_columns,
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
        caution=" ".join(filter(None, cautions)) or None,
    )


def _read_footers(
    listing: Listing, selection: Selection, problems: Problems, tell: Count | None
) -> list[Footer]:
    """The footers of all files that have one, in order."""

    def read(each: File) -> Footer | DataError:
        name = each.name
        try:
            with open_input(listing.url(name)) as file:
                return read_footer(name, file, selection, each.keys, each.columns)
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

    n_files = len(listing.files)
    if is_remote(listing.root):
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            results = list(counted(pool.map(read, listing.files), n_files, tell))
    else:
        results = list(counted(map(read, listing.files), n_files, tell))
    footers = []
    for result in results:
        if isinstance(result, Footer):
            footers.append(result)
        else:
            for line in result.problems:
                problems.add("files that are not whole Parquet files", line)
    return footers


def _check_values(
    footers: Sequence[Footer], schema: Schema, selection: Selection, problems: Problems
) -> None:
    """Report what statistics and keys say of values that cannot be used."""
    names = dict(schema.columns)
    computed = {*(column_of(name, names) for name in schema.features), selection.weight_column}
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
            if odd.kind == "null" and odd.column == selection.weight_column:
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


def part_of(plan: Plan, partitions: Sequence[int]) -> Plan:
    """A plan of some of the partitions, by index; each has the chunks that it has in the whole."""
    kept: list[Partition] = []
    first_row = 0
    for i in partitions:
        kept.append(replace(plan.partitions[i], index=len(kept), first_row=first_row))
        first_row += kept[-1].n_rows
    chunks = _chunks(kept, plan.chunk_rows) or (Chunk(0, 0, 0, 0, 0),)
    return replace(plan, partitions=tuple(kept), chunks=chunks)


def _empty_chunk(footers: Sequence[Footer]) -> Chunk:
    """A chunk of no rows, of the first file that has columns."""
    return Chunk(0, next((i for i, each in enumerate(footers) if each.columns), 0), 0, 0, 0)


def row_ranges(row_groups: Sequence[int], max_rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of at most max_rows: whole row groups together, or equal parts of a larger one."""
    start = stop = 0  # the range being gathered
    for rows in row_groups:
        if stop + rows - start > max_rows and stop > start:
            yield start, stop
            start = stop
        stop += rows
        if rows > max_rows:
            parts = -(-rows // max_rows)
            edges = [start + rows * i // parts for i in range(parts + 1)]
            yield from pairwise(edges)
            start = stop
    if stop > start:
        yield start, stop
