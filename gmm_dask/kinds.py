"""One rule for each kind of value, in whatever form rows arrive.

Numbers are taken exactly, an absent value is a missing one, and every other kind is refused by the
name of its column, with the remedy.
"""

from __future__ import annotations

import datetime
import re
import sys
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

MAX_EXACT = 2**53  # beyond it float64 does not hold every integer
INEXACT = "float64 would round them: subtract an offset, or leave the column out."

Kind = Literal[
    "number", "absent", "object",
    "bool", "decimal", "date", "duration", "text", "category", "complex", "nested", "long", "other",
]  # fmt: skip
TAKEN: frozenset[Kind] = frozenset({"number", "absent"})
MAY_BE_TAKEN = TAKEN | {"object"}  # of a column of objects each has a kind of its own
REMEDIES: dict[Kind, str] = {
    "bool": "convert it to float64, true as 1",
    "decimal": "convert it to float64, which rounds",
    "date": "put a number in its place, such as the days since a date",
    "duration": "put a number in its place, such as its seconds",
    "text": "put numbers in its place",
    "category": "put a column of 0.0 and 1.0 for each category in its place",
    "complex": "put its real and imaginary parts in its place (Complex data not supported)",
    "nested": "put a column for each value, or one list of fixed length, in its place",
    "long": "convert it to float64, which rounds",
    "other": "convert it to float64",
}

_ELEMENT = re.compile(r"(.+)\[(0|[1-9][0-9]{0,8})\]", re.DOTALL)
_OF_DTYPE: dict[str, Kind] = {
    **dict.fromkeys("iuf", "number"),
    **dict.fromkeys("UST", "text"),
    "b": "bool",
    "c": "complex",
    "M": "date",
    "m": "duration",
    "V": "nested",
    "O": "object",
}
_OF_CLASS: tuple[tuple[Kind, tuple[type, ...]], ...] = (
    ("bool", (bool, np.bool_)),
    ("long", (np.longdouble,) if np.dtype(np.longdouble).itemsize > 8 else ()),
    ("duration", (datetime.timedelta, np.timedelta64)),  # to NumPy the latter is an integer
    ("number", (int, float, np.integer, np.floating)),
    ("absent", (type(None), np.ma.core.MaskedConstant)),
    ("decimal", (Decimal,)),
    ("date", (datetime.date, datetime.time, np.datetime64)),  # NaT of pandas is one as well
    ("complex", (complex, np.complexfloating)),
    ("text", (str, bytes)),
    ("nested", (list, tuple, dict, set, frozenset, np.ndarray)),
)


def refusal(
    where: str,
    what: str,
    kind: Kind,
    without: str | None = "",
    remedy: str = "",
    wanted: str = "a number",
) -> str:
    """The message about a column that is no number.

    Parameters
    ----------
    where : str
        Names the column.
    what : str
        A verb and the type, such as "is bool".
    without : str or None
        Where it can be left out of, such as " of data.features"; None where it is needed.
    remedy : str
        What the user can do; where not given, the remedy that belongs to the kind.
    wanted : str
        What the column should be.
    """
    remedy = remedy or REMEDIES[kind]
    if without is None:
        return f"{where}: {what}, not {wanted}. {remedy[0].upper()}{remedy[1:]}."
    return f"{where}: {what}, not {wanted}. Leave it out{without}, or {remedy}."


def kind_of_dtype(dtype: np.dtype[Any]) -> Kind:
    """What the values of an array of NumPy are."""
    if dtype.kind == "f" and dtype.itemsize > 8:
        return "long"
    return _OF_DTYPE.get(dtype.kind, "other")


@cache
def kind_of_class(cls: type) -> Kind:
    """What the objects of a class are."""
    for kind, classes in _OF_CLASS:
        if issubclass(cls, classes):
            return kind
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        if cls is type(pandas.NA):
            return "absent"
        if issubclass(cls, pandas.Period):
            return "date"
    return "other"


def inexact(values: npt.NDArray[Any]) -> int | None:
    """The integer of largest magnitude among those that float64 would round, if there is one."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return None
    if max(abs(int(values.min())), abs(int(values.max()))) <= MAX_EXACT:
        return None
    magnitude = np.abs(values).astype(np.uint64)  # that of -2^63 wraps round twice
    rounded = magnitude.astype(np.float64)
    inside = rounded < 2.0**64
    exact = inside & (np.where(inside, rounded, 0).astype(np.uint64) == magnitude)
    if exact.all():
        return None
    wrong = np.where(exact, 0, magnitude)
    return int(values.flat[int(wrong.argmax())])


def is_exact(integer: int) -> bool:
    """Whether float64 holds an integer of any size."""
    try:
        return abs(integer) <= MAX_EXACT or int(float(integer)) == integer
    except OverflowError:
        return False


def element(column: str, index: int) -> str:
    """What the feature is called that is an element of a column of lists."""
    return f"{column}[{index}]"


def element_of(feature: str) -> tuple[str, int] | None:
    """The column of lists and the place in them that a name of that form stands for."""
    found = _ELEMENT.fullmatch(feature)
    return (found[1], int(found[2])) if found else None


def lies_between(value: str, first: str, last: str) -> bool:
    """Whether a key's value lies in a range, ends included: of integers, or else of texts.

    Dates as 2026-11-30 are texts in the order of time.
    """
    try:
        return int(first) <= int(value) <= int(last)
    except ValueError:
        return first <= value <= last
