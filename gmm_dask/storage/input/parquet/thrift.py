"""Thrift's compact protocol, as much of it as Parquet footers use.

PyArrow ends the whole process where the statistics of a damaged footer contradict themselves, so
what lies in a footer below the schema is read here: the worst it can do is raise ThriftError.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 16  # a footer is five deep; a forged one must not exhaust the stack

Fields = dict[int, Any]  # field id -> int, bool, bytes, Fields, or a list of these

_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE = 1, 2, 3, (4, 5, 6), 7
_BINARY, _LISTS, _STRUCT = 8, (9, 10), 12


class ThriftError(ValueError):
    """Bytes that are no structure of this protocol, or not the one expected."""


def walk(content: bytes, lazily: int) -> Iterator[tuple[int, Any]]:
    """The fields of the structure that the bytes are; field `lazily`, a list, item by item.

    Raises
    ------
    ThriftError
        The bytes end too early, or have a type that footers do not use.
    """
    try:
        field = at = 0
        while True:
            kind, field, at = _field(content, at, field)
            if kind == 0:
                return
            if field == lazily and kind in _LISTS:
                item, count, at = _list_head(content, at)
                for _ in range(count):
                    value, at = _value(content, at, item, 1)
                    yield field, value
            else:
                value, at = _value(content, at, kind, 1)
                yield field, value
    except IndexError:
        raise ThriftError("it ends in the middle of a value") from None


def integer(fields: Fields, field: int) -> int:
    """A field that must be there and be an integer."""
    value = fields.get(field)
    if type(value) is not int:
        raise ThriftError(f"field {field} is not a number")
    return value


def structure(fields: Fields, field: int) -> Fields:
    """A field that is a structure, empty where it is missing."""
    value = fields.get(field, {})
    if type(value) is not dict:
        raise ThriftError(f"field {field} is not a structure")
    return value


def structures(fields: Fields, field: int) -> list[Fields]:
    """A field that is a list of structures, empty where it is missing."""
    values = fields.get(field, [])
    if type(values) is not list or any(type(value) is not dict for value in values):
        raise ThriftError(f"field {field} is not a list of structures")
    return values


def binary(fields: Fields, field: int) -> bytes | None:
    """A field of bytes, None where it is missing."""
    value = fields.get(field)
    if value is not None and type(value) is not bytes:
        raise ThriftError(f"field {field} is not of bytes")
    return value


def _field(content: bytes, at: int, field: int) -> tuple[int, int, int]:
    """Type and id of the next field, and where its value starts; type 0 ends the structure."""
    head = content[at]
    at += 1
    if head == 0:
        return 0, field, at
    if head >> 4:
        return head & 15, field + (head >> 4), at
    field, at = _varint(content, at)
    return head & 15, (field >> 1) ^ -(field & 1), at


def _value(content: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        value, at = _varint(content, at)
        return (value >> 1) ^ -(value & 1), at
    if kind == _BINARY:
        size, at = _varint(content, at)
        if size > len(content) - at:
            raise ThriftError("a text is longer than the rest")
        return content[at : at + size], at + size
    if kind == _STRUCT:
        return _struct(content, at, depth + 1)
    if kind in _LISTS:
        kind, count, at = _list_head(content, at)
        items = []
        for _ in range(count):
            item, at = _value(content, at, kind, depth + 1)
            items.append(item)
        return items, at
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _BYTE:
        return content[at], at + 1
    if kind == _DOUBLE:
        return content[at : at + 8], at + 8
    raise ThriftError(f"there is a value of the unknown type {kind}")


def _struct(content: bytes, at: int, depth: int) -> tuple[Fields, int]:
    """A structure; the integers are read in place, because footers are made of them."""
    if depth > MAX_DEPTH:
        raise ThriftError("its structures are too deep")
    fields: Fields = {}
    field = 0
    while True:
        head = content[at]
        at += 1
        if head == 0:
            return fields, at
        if head >> 4:
            field += head >> 4
        else:
            field, at = _varint(content, at)
            field = (field >> 1) ^ -(field & 1)
        kind = head & 15
        if 4 <= kind <= 6:
            value = content[at]
            at += 1
            if value > 127:
                value, at = _varint(content, at - 1)
            fields[field] = (value >> 1) ^ -(value & 1)
        else:
            fields[field], at = _value(content, at, kind, depth)


def _list_head(content: bytes, at: int) -> tuple[int, int, int]:
    head = content[at]
    count, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(content, at + 1)
    if head & 15 in (_TRUE, _FALSE):
        return _BYTE, count, at  # in a list each truth value is a byte
    if count > len(content) - at:
        raise ThriftError("a list is longer than the rest")
    return head & 15, count, at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ThriftError("a number is too long")
