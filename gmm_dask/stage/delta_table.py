"""The labels of the latest version as a Delta table, for readers of tables.

The version is what counts: the table follows it, and says which version its labels are of.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import OutputError, SettingsError
from gmm_dask.redaction import redacted
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.storage import (
    Plan,
    TableOrigin,
    carried_schema,
    check_target,
    delta_schema,
    is_remote,
    label_schema,
    lies_in,
    open_store,
    overlaps,
    read_manifest,
    would_list,
    write_table,
)

_NO_PATH = re.compile(r"[\x00-\x1f\x7f\[\]^|\\]")  # of a local table, to the library that makes it


def check_delta_table(
    settings: Settings | ScoreSettings, dataset: Plan, kept: tuple[str, ...]
) -> None:
    """Refuse, before any work, a Delta table that could not hold the labels.

    Raises
    ------
    SettingsError
        It lies among the data or in the output, or around them, or the output is to be private.
    OutputError
        The place holds something else, or the library is missing.
    DataError
        Columns that no Delta table holds.
    """
    if settings.labels.delta_table is None:
        return
    url = _url(settings.labels.delta_table)
    data, output = settings.data, open_store(settings.output.path).url
    if would_list(data.path, f"{url}/part.parquet") or overlaps(data.path, url):
        raise SettingsError(
            f"labels.delta_table: {url} lies inside of data.path, {data.in_short}, or around it: "
            "the next run would take labels for data. Choose a folder beside the data."
        )
    if lies_in(url, output) or lies_in(output, url):
        raise SettingsError(
            f"labels.delta_table: {url} lies inside of output.path, {output}, or around it: each "
            "would take the other's files for its own. Choose a folder beside the output."
        )
    if settings.output.private:
        raise SettingsError(
            "labels.delta_table: its files would be readable as the umask says, and output.private "
            "asks for more. Leave out one of the two."
        )
    check_target(url)
    delta_schema(label_schema(carried_schema(dataset, kept), settings.labels.responsibilities))


def write_delta_table(settings: Settings | ScoreSettings, published: Published) -> str | None:
    """Make the labels of a published version the next version of the table, if that is asked for.

    Doing it again writes nothing; a table with labels of a later version is left.

    Returns
    -------
    What was done, in a sentence; None where no table is asked for.

    Raises
    ------
    OutputError
        The table cannot be written; the version stays published, and the same command tries again.
    """
    if settings.labels.delta_table is None:
        return None
    url, version = _url(settings.labels.delta_table), published.version
    store = published.folder.store
    parts = _parts(published, read_manifest(store, version))
    origin = TableOrigin(
        redacted(store.url), version.number, version.run_id, version.manifest_sha256
    )
    try:
        first = next(parts)
        number = write_table(url, _all(first, parts), delta_schema(first.schema), origin)
    except OutputError as error:
        raise OutputError(f"Version {version.number} is published. {error}") from error
    what = "holds labels of a later version" if number is None else f"version {number} holds them"
    return f"Labels as a Delta table, {redacted(url)}: {what}."


def _url(delta_table: str) -> str:
    """The place as an absolute path or a URL."""
    url = open_store(delta_table).url
    if not is_remote(url) and (unquote(url) != url or _NO_PATH.search(url)):
        raise OutputError(
            f"labels.delta_table: the library that writes Delta tables takes %XX in {url} for "
            "another character, and has no place for control characters and any of [ ] ^ | \\. "
            "Choose a folder with another name."
        )
    return url


def _all(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others


def _parts(published: Published, manifest: dict[str, Any]) -> Iterator[pa.Table]:
    """The label parts, one after the other, each as the manifest lists it."""
    for name in manifest["labels"]:
        data = published.folder.get_verified(name, manifest)
        yield pq.read_table(io.BytesIO(data), use_threads=False)
