"""Files that changed, or that are damaged, are refused and named, and never read."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gmm_dask.errors import DataError, InputChangedError, InputError
from gmm_dask.storage.input.inputs import LocalInput
from gmm_dask.storage.input.parquet.reader import (
    read_features,
    read_table,
)
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.storage.conftest import Write, write_file
from tests.storage.test_reader import run_script


def test_a_file_that_changed_is_never_read(
    write: Write, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    file = write("a.parquet", {"x": np.arange(9.0)}, **plain)
    (source,) = sources(plan_dataset(data))
    status = file.stat()
    original = shutil.copy2(file, tmp_path / "original")

    def refused(what: str) -> None:
        for read in (read_features, read_table):
            arguments = ("float64",) if read is read_features else ()
            with pytest.raises(
                InputChangedError, match=rf"a\.parquet: changed .*{what}.*Run again"
            ):
                read(source, ("x",), *arguments)

    write("a.parquet", {"x": np.arange(10.0)}, **plain)
    refused("size went from")
    shutil.copy2(original, file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    refused("written to or replaced")
    write("a.parquet", {"x": np.arange(9.0) + 1}, **plain)  # as large, and made to look as old
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == source.size
    refused("its time of status")
    with monkeypatch.context() as patch:
        patch.setattr(LocalInput, "state", lambda _: source.state)  # as where nothing tells more
        refused("footer is another")
    file.unlink()
    refused("gone")
    file.mkdir()
    refused("folder")
    file.rmdir()
    shutil.copy2(original, file)
    refused("it is a copy")
    (source,) = sources(plan_dataset(data))
    assert read_features(source, ("x",), "float64")[:, 0].tolist() == list(range(9))


@pytest.mark.parametrize("how", ["in place", "by a file moved to its name", "mapped"])
def test_a_file_rewritten_under_its_old_size_footer_and_time_is_never_read(
    how: str, write: Write, data: Path, tmp_path: Path
) -> None:
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    values = np.r_[-9.0, np.arange(8.0), 9.0]
    file = write("a.parquet", {"x": values}, **plain)
    (source,) = sources(plan_dataset(data))
    status = file.stat()
    other = write_file(tmp_path / "other", {"x": np.r_[-9.0, np.arange(8.0)[::-1], 9.0]}, **plain)
    if how == "in place":
        with file.open("r+b") as stream:
            stream.write(other.read_bytes())
    elif how == "mapped":
        with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
            mapped[:] = other.read_bytes()
    else:
        other.replace(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputChangedError, match=r"a\.parquet: .*its time of status.*Run again"):
        read_features(source, ("x",), "float64")


def test_a_file_replaced_after_it_was_opened_is_never_mixed_with_the_other(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is that of the open file: a replacement under its name cannot slip in."""
    file = write("a.parquet", {"x": np.arange(9.0)})
    (source,) = sources(plan_dataset(data))
    other = write_file(data.parent / "other", {"x": np.zeros(9)})
    real_open = os.open

    def open_then_replace(*arguments: Any) -> int:
        descriptor = real_open(*arguments)
        if other.exists():
            other.replace(file)
        return descriptor

    monkeypatch.setattr("gmm_dask.storage.input.inputs._open_without_waiting", open_then_replace)
    for _ in range(2):  # the planned one without a name, then the other
        with pytest.raises(InputChangedError):
            read_features(source, ("x",), "float64")


def test_a_file_written_to_while_it_is_read_is_refused(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("a.parquet", {"x": np.arange(9.0)})
    (source,) = sources(plan_dataset(data))
    real = pq.ParquetFile.iter_batches

    def write_and_iterate(self: pq.ParquetFile, *arguments: Any, **options: Any) -> Any:
        batches = list(real(self, *arguments, **options))
        with file.open("r+b") as stream:
            stream.write(b"PAR1")
        os.utime(file)
        yield from batches

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", write_and_iterate)
    with pytest.raises(InputChangedError, match=r"a\.parquet"):
        read_features(source, ("x",), "float64")


def test_fewer_rows_than_planned_are_an_error(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.parquet", {"x": np.arange(9.0)})
    (source,) = sources(plan_dataset(data))
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: iter(()))
    with pytest.raises(InputChangedError, match="0 of the 9 rows"):
        read_features(source, ("x",), "float64")


def damage(file: Path, column: int, row_group: int) -> None:
    """Flip a bit in the values of a column chunk; size, time and footer stay."""
    status = file.stat()
    chunk = pq.read_metadata(file).row_group(row_group).column(column)
    with file.open("r+b") as stream:
        at = chunk.data_page_offset + chunk.total_compressed_size - 3
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 0x10]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_every_damaged_column_is_named_with_its_row_group(write: Write, data: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 3))
    file = write(
        "a.parquet",
        {name: rows[:, j] for j, name in enumerate("xyz")},
        row_group_size=1000,
        use_dictionary=False,
        write_page_checksum=True,
    )
    damage(file, 1, 1)
    damage(file, 2, 2)
    (source,) = sources(plan_dataset(data))
    with pytest.raises(DataError) as caught:
        read_features(source, ("x", "y", "z"), "float64")
    assert not isinstance(caught.value, InputChangedError)
    first, second = caught.value.problems
    assert first.startswith("a.parquet, row group 1, column 'y': the data are damaged: ")
    assert second.startswith("a.parquet, row group 2, column 'z': the data are damaged: ")
    assert "Write the file again" in first
    with pytest.raises(DataError, match="row group 1, column 'y'"):
        read_table(source, ("y",))
    np.testing.assert_array_equal(read_features(source, ("x",), "float64")[:, 0], rows[:, 0])


def test_columns_that_cannot_be_read_are_all_named(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0], "s": ["a"]})
    (source,) = sources(plan_dataset(data))
    with pytest.raises(DataError) as caught:
        read_features(source, ("s", "q", "x"), "float64")
    first, second = caught.value.problems
    assert "a.parquet, column 's': is string" in first
    assert "a.parquet, column 'q': is missing" in second
    with pytest.raises(DataError, match="'q'"):
        read_table(source, ("x", "q"))


def test_an_error_of_the_disk_stays_what_it_is(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt may succeed, so it must not look like bad data."""
    write("a.parquet", {"x": [1.0]})
    (source,) = sources(plan_dataset(data))

    def failing(*_: object, **__: object) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", failing)
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read at present: Input/output"):
        read_features(source, ("x",), "float64")


MUTATE = """
import sys
from pathlib import Path
import numpy as np
from gmm_dask.errors import DataError
from gmm_dask.storage import plan_dataset
from gmm_dask.storage.input.parquet.reader import read_features
from gmm_dask.storage.input.sources import sources

original, place = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
place.write_bytes(original)
plan = plan_dataset(place)
expected = read_features(sources(plan)[0], plan.features, plan.dtype)
rng = np.random.default_rng(7)
footer = int.from_bytes(original[-8:-4], "little") + 8
outcomes = {"refused": 0, "same": 0}
for i in range(600):
    mutant = bytearray(original)
    if i % 4:
        for at in rng.integers(0, len(original) - footer, rng.integers(1, 4)):
            mutant[at] = rng.integers(256)
    else:
        del mutant[rng.integers(len(original)):]
    place.write_bytes(mutant)
    try:
        plan = plan_dataset(place, features=("x", "y"))
        X = np.concatenate([read_features(s, plan.features, plan.dtype) for s in sources(plan)])
    except DataError as error:
        assert place.name in str(error) or "data.features" in str(error), error
        outcomes["refused"] += 1
    else:
        assert np.array_equal(X, expected), "damage went unnoticed"
        outcomes["same"] += 1
print(outcomes)
assert outcomes["refused"] > 300
"""


def test_mutated_files_are_read_right_or_refused(tmp_path: Path) -> None:
    """Data pages and truncations, in a child process, so that a crash would be seen as one."""
    rows = np.random.default_rng(0).normal(size=(40, 2))
    file = write_file(
        tmp_path / "original.parquet",
        {"x": rows[:, 0], "y": rows[:, 1]},
        row_group_size=20,
        write_page_checksum=True,
    )
    run_script(MUTATE, str(file), str(tmp_path / "mutant.parquet"))
