"""Names of objects in a store: relative, in POSIX form, and none leads out of it."""

from __future__ import annotations

from gmm_dask.errors import OutputError


def name_parts(name: str, url: str) -> list[str]:
    """The parts of a name; raises OutputError where it is none of an object in the store."""
    parts = name.split("/")
    # A leading dot is for unfinished files, and for "." and "..".
    if "\0" in name or "\\" in name or any(not part or part[0] == "." for part in parts):
        raise OutputError(f"{name!r} cannot be the name of an object in {url}.")
    return parts


def is_visible(name: str) -> bool:
    """Whether no part of a name begins with a dot."""
    return not any(part.startswith(".") for part in name.split("/"))
