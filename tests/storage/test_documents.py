"""Canonical JSON: one form for equal documents, every float exactly; strict when read."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import ModelFileError, OutputError
from gmm_dask.storage.records.documents import canonical_json, parse_json

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
documents = st.dictionaries(text, values, max_size=4)


@given(documents)
def test_a_document_comes_back_as_it_was(document: dict[str, Any]) -> None:
    data = canonical_json(document)
    back = parse_json(data, "x.json")
    assert back == document
    assert canonical_json(back) == data  # also -0.0 and 1 against 1.0
    assert json.loads(data) == document


@given(documents)
def test_the_order_of_keys_makes_no_difference(document: dict[str, Any]) -> None:
    assert canonical_json(dict(reversed(document.items()))) == canonical_json(document)


@given(st.integers(0, 2**64 - 1))
def test_every_finite_float_comes_back_bit_for_bit(bits: int) -> None:
    (number,) = struct.unpack("<d", struct.pack("<Q", bits))
    if math.isfinite(number):
        back = parse_json(canonical_json({"x": number}), "x.json")["x"]
        assert struct.pack("<d", back) == struct.pack("<d", number)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, np.int64(1), b"bytes", {1, 2}, "\ud800", object()]
)
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(OutputError, match="cannot be written as JSON"):
        canonical_json({"x": [value]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[1]",
        b'"text"',
        b"{",
        b'{"a":1}}',
        b'{"a":1} {"b":2}',
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":%s}' % (b"9" * 31),
        b'{"a":%s}' % (b"9" * 10_000),
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b"\0" * 100,
        b"PAR1",
        b"\x80\x04\x95",
    ],
)
def test_what_is_not_strict_json_is_refused_by_file_name(data: bytes) -> None:
    for error in (OutputError, ModelFileError):
        with pytest.raises(error, match=r"^x\.json ") as raised:
            parse_json(data, "x.json", error)
        assert len(str(raised.value)) < 300
