"""Types of columns, and the one type that holds a column which files write with several types."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce
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
        Type of the value; null where nobody tells it, as names of folders do not.
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


FLOAT_BITS = {16: 11, 32: 24, 64: 53}  # of an integer that a float of so many bits holds exactly
EXACT_BITS = ((pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53))
DECIMAL128_DIGITS, DECIMAL256_DIGITS = 38, 76
UNITS = ("s", "ms", "us", "ns")


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type that labels carry: writers differ in dictionaries, large and viewed strings."""
    if isinstance(type_, pa.OpaqueType):
        return plain_type(type_.storage_type)
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    return type_


def has_nested_dictionary(type_: pa.DataType) -> bool:
    """Whether there is a dictionary somewhere inside of a list, a structure or a map."""
    if isinstance(type_, pa.BaseExtensionType):
        return has_nested_dictionary(type_.storage_type)
    if not pa.types.is_nested(type_):
        return False
    inner = [type_.field(i).type for i in range(type_.num_fields)]
    return any(pa.types.is_dictionary(each) or has_nested_dictionary(each) for each in inner)


def common_type(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """The narrowest plain type that holds every value of all the types; None where none does.

    A finer unit of time holds a coarser one but for moments beyond its range, which exact_cast
    refuses.
    """
    # In an order of their own, whichever files come first; decimals hold integers of any kind.
    plain = sorted(set(map(plain_type, types)), key=str)
    return reduce(_common, plain[1:], plain[0]) if plain else None


def exact_cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """The values as another type.

    Raises
    ------
    pa.ArrowInvalid
        One of them has no place in it.
    """
    if array.type == type_:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    return array.cast(type_)


def holds_moments(type_: pa.DataType, unit: str, bounds: tuple[int, int]) -> bool:
    """Whether a type of time holds every moment between two bounds, given in this unit."""
    factor = 1000 ** (UNITS.index(type_.unit) - UNITS.index(unit))
    return all(-(2**63) < bound * factor < 2**63 for bound in bounds)


def _common(one: pa.DataType | None, two: pa.DataType) -> pa.DataType | None:
    if one is None or one == two or pa.types.is_null(two):
        return one
    if pa.types.is_null(one):
        return two
    found = (rule(one, two) for rule in _RULES)
    return next((each for each in found if each is not None), None)


def _of_integers(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if not (pa.types.is_integer(one) and pa.types.is_integer(two)):
        return None
    if pa.types.is_signed_integer(one) == pa.types.is_signed_integer(two):
        return max(one, two, key=lambda each: each.bit_width)
    unsigned, signed = sorted((one, two), key=pa.types.is_signed_integer)
    bits = max(signed.bit_width, 2 * unsigned.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits)


def _of_floats(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if not any(map(pa.types.is_floating, (one, two))):
        return None
    bits = [
        FLOAT_BITS[each.bit_width] if pa.types.is_floating(each) else _integer_bits(each)
        for each in (one, two)
    ]
    return next((type_ for type_, exact in EXACT_BITS if exact >= max(bits)), None)


def _integer_bits(type_: pa.DataType) -> float:
    """Bits of the largest magnitude of an integer type; infinitely many for every other type."""
    if not pa.types.is_integer(type_):
        return math.inf
    return float(type_.bit_width) - bool(pa.types.is_signed_integer(type_))


def _of_decimals(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    digits = [_decimal_digits(each) for each in (one, two)]
    known = [each for each in digits if each is not None]
    if len(known) < 2 or not any(map(pa.types.is_decimal, (one, two))):
        return None
    whole, scale = (max(each) for each in zip(*known, strict=True))
    if whole + scale > DECIMAL256_DIGITS:
        return None
    kind = pa.decimal128 if whole + scale <= DECIMAL128_DIGITS else pa.decimal256
    return kind(whole + scale, scale)


def _decimal_digits(type_: pa.DataType) -> tuple[int, int] | None:
    """Digits before and after the point of a decimal or integer type; None for every other type."""
    if pa.types.is_decimal(type_):
        return type_.precision - type_.scale, type_.scale
    if pa.types.is_integer(type_):
        return len(str(2 ** int(_integer_bits(type_)))), 0
    return None


def _of_times(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(two):
        if (one.tz is None) != (two.tz is None):
            return None
        return pa.timestamp(_finer(one, two), one.tz if one.tz == two.tz else "UTC")
    if pa.types.is_time(one) and pa.types.is_time(two):
        unit = _finer(one, two)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if pa.types.is_duration(one) and pa.types.is_duration(two):
        return pa.duration(_finer(one, two))
    if {one, two} == {pa.date32(), pa.date64()}:
        return pa.date32()
    return None


def _finer(one: pa.DataType, two: pa.DataType) -> str:
    return str(max(one.unit, two.unit, key=UNITS.index))


def _of_bytes(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    kinds = pa.types.is_fixed_size_binary, pa.types.is_binary
    both = all(any(kind(each) for kind in kinds) for each in (one, two))
    return pa.binary() if both else None


def _of_lists(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if pa.types.is_map(one) and pa.types.is_map(two):
        key, item = (
            common_type([getattr(one, part), getattr(two, part)])
            for part in ("key_type", "item_type")
        )
        return None if key is None or item is None else pa.map_(key, item)
    if not all(any(kind(each) for kind in _LISTS) for each in (one, two)):
        return None
    value = common_type([one.value_type, two.value_type])
    if value is None:
        return None
    is_large = any(map(pa.types.is_large_list, (one, two)))
    return pa.large_list(value) if is_large else pa.list_(value)


def _of_structures(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if not (pa.types.is_struct(one) and pa.types.is_struct(two)):
        return None
    fields, others = ([each.field(i) for i in range(each.num_fields)] for each in (one, two))
    types = {each.name: each.type for each in others}
    if len(fields) != len(others) or {each.name for each in fields} != set(types):
        return None
    shared = [(each.name, common_type([each.type, types[each.name]])) for each in fields]
    return None if any(type_ is None for _, type_ in shared) else pa.struct(shared)


_LISTS = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
_RULES: tuple[Callable[[pa.DataType, pa.DataType], pa.DataType | None], ...] = (
    _of_integers,
    _of_floats,
    _of_decimals,
    _of_times,
    _of_bytes,
    _of_lists,
    _of_structures,
)
