"""Keys of folders `key=value`: values that all rows of a file have in common."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # the folder name that stands for a missing value


class Key(NamedTuple):
    """A value that all rows of a file have.

    Parameters
    ----------
    name : str
    text : str or None
        The value as text; None stands for a missing value.
    type : pa.DataType
        Of the value; null where nobody tells it, as names of folders do not.
    """

    name: str
    text: str | None
    type: pa.DataType = pa.null()


Keys = tuple[Key, ...]  # in path order


def hive_keys(name: str) -> Keys:
    """The pairs of the folders `key=value` in a name, decoded; the null folder gives None."""
    pairs = (folder.partition("=") for folder in name.split("/")[:-1])
    return tuple(
        Key(unquote(key), None if value == HIVE_NULL else unquote(value))
        for key, equals, value in pairs
        if key and equals
    )


def key_value(text: str | None, type_: pa.DataType) -> pa.Scalar:
    """The value that a text stands for; a moment without a zone is one of UTC.

    Raises
    ------
    pa.ArrowException
        The text stands for no value of the type.
    """
    if text is None:
        return pa.scalar(None, type_)
    value = pa.scalar(text, pa.string())
    if pa.types.is_time(type_):
        return pa.scalar(f"1970-01-01 {text}").cast(pa.timestamp(type_.unit)).cast(type_)
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        try:
            return value.cast(type_)
        except pa.ArrowInvalid:
            utc = value.cast(pa.timestamp(type_.unit)).cast(pa.timestamp(type_.unit, "UTC"))
            return utc.cast(type_)
    return value.cast(type_)
