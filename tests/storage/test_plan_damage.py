"""Files that are none, or not whole, are named by the plan."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gmm_dask.storage.input import planning
from gmm_dask.storage.input.parquet.footers import FIRST_READ
from gmm_dask.storage.input.planning import plan_dataset
from tests.storage.conftest import Write, problems_of
from tests.storage.test_plan import GOOD, only, truncated

# Files that are none


@pytest.mark.parametrize("kept", [1, 3, 4, 7, 8, 11, 12, 100, -1, -4, -8, -9, -100])
def test_a_truncated_file_is_named(write: Write, data: Path, kept: int) -> None:
    write("a.parquet", GOOD)
    file = write("b.parquet", GOOD)
    truncated(file, kept if kept > 0 else file.stat().st_size + kept)
    only(problems_of(data), "b.parquet")
    assert any(word in problems_of(data)[0] for word in ("truncated", "not a Parquet"))


def test_a_file_of_no_bytes_is_named(write: Write, data: Path) -> None:
    (data / "a.parquet").touch()
    only(problems_of(data), "a.parquet", "0 bytes")


def test_another_kind_of_file_is_named(write: Write, data: Path) -> None:
    (data / "a.parquet").write_text("id,x\n1,2.0\n" * 10)
    only(problems_of(data), "a.parquet", "not a Parquet file")


def test_an_encrypted_file_is_named(write: Write, data: Path) -> None:
    file = write("a.parquet", GOOD)
    file.write_bytes(file.read_bytes()[:-4] + b"PARE")
    only(problems_of(data), "a.parquet", "encrypted")


def test_a_damaged_footer_is_named(write: Write, data: Path) -> None:
    file = write("a.parquet", GOOD)
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    content[-8 - length : -8] = b"\xff" * length
    file.write_bytes(content)
    only(problems_of(data), "a.parquet", "footer is damaged")


def test_a_file_without_its_middle_is_named(write: Write, data: Path) -> None:
    file = write("a.parquet", {"x": np.random.default_rng(0).normal(size=5000)})
    content = file.read_bytes()
    file.write_bytes(content[:1000] + content[-2000:])
    only(problems_of(data), "a.parquet, row group 0, column 'x'", "outside")


def test_a_column_that_lies_where_another_does_is_named(write: Write, data: Path) -> None:
    """Its pages are whole and of the right type, but those of another column."""
    file = write("a.parquet", GOOD, compression="none", use_dictionary=False)
    x, y = (pq.read_metadata(file).row_group(0).column(i).data_page_offset for i in range(2))
    content = file.read_bytes()
    at = content.rindex(varint(2 * y))
    file.write_bytes(content[:at] + varint(2 * x, len(varint(2 * y))) + content[at + 2 :])
    only(problems_of(data), "a.parquet, row group 0, column", "'x'", "'y'", "lies where")


def varint(value: int, width: int = 1) -> bytes:
    """A number as footers hold it, on at least that many bytes."""
    parts = [value & 127]
    while value := value >> 7:
        parts.append(value & 127)
    parts += [0] * (width - len(parts))
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def test_a_footer_larger_than_the_first_read_is_read(write: Write, data: Path) -> None:
    columns = {f"column_{i}": [1.0, 2.0] for i in range(1500)}
    file = write("a.parquet", columns)
    assert int.from_bytes(file.read_bytes()[-8:-4], "little") > FIRST_READ
    assert len(plan_dataset(data).features) == 1500


def test_a_forged_row_count_does_not_fill_the_memory(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.parquet", GOOD)
    monkeypatch.setattr(planning, "MAX_CHUNKS", 2)
    only(problems_of(data, chunk_bytes=1), "a.parquet", "memory.chunk_bytes")


def test_an_unreadable_file_is_named_with_the_reason(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.parquet", GOOD)

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("gmm_dask.storage.input.inputs._open_without_waiting", denied)
    only(problems_of(data), "a.parquet", "Permission denied", "read access")
