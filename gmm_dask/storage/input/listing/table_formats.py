"""Tables that are more than their folder: a log says which of the files in it are data.

The others were removed or replaced and are kept for a while; to read them is to bring deleted rows
back. So a folder is looked at before its files are taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from gmm_dask.storage.store.object_errors import os_errors

DELTA_MARK = "_delta_log"
HUDI_MARK = ".hoodie"  # and with more after it, in the folder of a partition
ICEBERG_FOLDER = "metadata"
MARKS = (DELTA_MARK, HUDI_MARK, ICEBERG_FOLDER)
REQUESTS_AT_ONCE = 16
COUNTS = "a log says which of the files in its folder count, others may hold deleted rows"
INSTEAD = "an export of it, or a list of the files that count, each by name"


def table_format(names: Collection[str], names_in: Callable[[str], Collection[str]]) -> str | None:
    """What kind of table a folder is: "Delta", "Hudi", "Iceberg"; None for a plain folder.

    Parameters
    ----------
    names : collection of str
        Of what the folder holds.
    names_in : callable
        Gives the same of a folder in it.
    """
    if DELTA_MARK in names:
        return "Delta"
    if any(name.startswith(HUDI_MARK) for name in names):
        return "Hudi"
    if ICEBERG_FOLDER in names and any(map(_is_icebergs, names_in(ICEBERG_FOLDER))):
        return "Iceberg"
    return None


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
        with os_errors(), ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            found = iter(list(pool.map(lambda folder: _remote_format(files, folder), folders)))
    return next(((where, kind) for where, kind in zip(folders, found, strict=True) if kind), None)


def refusal(place: str, kind: str) -> str:
    """What is said of a table that cannot be read as one."""
    install = "Install the library that reads it (pip install 'gmm-dask[delta]'), or give"
    verb = install if kind == "Delta" else "Give"
    return f"{place}: is {_a(kind)} table: {COUNTS}. {verb} data.path {INSTEAD}."


def refusal_inside(place: str, table: str, kind: str) -> str:
    """What is said of a part of a table."""
    return (
        f"{place}: lies inside of the {kind} table {table}: {COUNTS}. "
        f"Give data.path {_itself(kind)}{INSTEAD}."
    )


def refusal_below(place: str, table: str, kind: str) -> str:
    """What is said of a folder with a table somewhere in it."""
    return (
        f"{table}: is {_a(kind)} table among the files of {place}: {COUNTS}. "
        f"Give data.path {_itself(kind)}{INSTEAD}."
    )


def _itself(kind: str) -> str:
    return "the table itself, " if kind == "Delta" else ""


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def _is_icebergs(name: str) -> bool:
    return name == "version-hint.text" or name.endswith(".metadata.json")


def _local_format(folder: str) -> str | None:
    def names_in(name: str) -> Collection[str]:
        with suppress(OSError):
            return os.listdir(f"{folder}/{name}")  # noqa: PTH208
        return ()

    return table_format([mark for mark in MARKS if os.path.lexists(f"{folder}/{mark}")], names_in)


def _remote_format(files: Any, folder: str) -> str | None:
    """Table format of a store's folder; one that must not be looked at is taken for plain."""

    def names_in(name: str) -> Collection[str]:
        return [key.rpartition("/")[2] for key in files.ls(f"{folder}/{name}", detail=False)]

    try:
        return table_format([mark for mark in MARKS if files.exists(f"{folder}/{mark}")], names_in)
    except PermissionError:
        return None
