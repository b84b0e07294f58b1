"""Keys of folders `key=value`: values that all rows of a file have in common."""

from __future__ import annotations

from urllib.parse import unquote

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # the folder name that stands for a missing value

Keys = tuple[tuple[str, str | None], ...]  # in path order; None stands for a missing value


def hive_keys(name: str) -> Keys:
    """The pairs of the folders `key=value` in a name, decoded; the null folder gives None."""
    pairs = (folder.partition("=") for folder in name.split("/")[:-1])
    return tuple(
        (unquote(key), None if value == HIVE_NULL else unquote(value))
        for key, equals, value in pairs
        if key and equals
    )
