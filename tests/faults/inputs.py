"""Input that is not as promised: how each case is made, and what is to come of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import DataError, GmmDaskError
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from
from gmm_dask.stage.watch import Watcher

BAD_DATA = Path(__file__).parent / "bad_data"
N = 40  # rows of the sound file that most cases spoil or have beside them
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One input.

    Parameters
    ----------
    make : folder -> anything
        Writes the dataset into the folder.
    said : tuple of str
        What the refusal must say; empty where the data are read right.
    data, fit, memory, labels : mapping
        Settings beside the defaults of the test.
    error : type
        Of the refusal.
    n_rows, n_dropped : int
        Of data that are read right.
    values : mapping
        Columns that the features, or kept columns, must come out as.
    """

    make: Make
    said: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    error: type[GmmDaskError] = DataError
    n_rows: int = N
    n_dropped: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


def xy(n: int = N, **columns: Any) -> pa.Table:
    """Sound rows; columns replace or extend x and y."""
    rng = np.random.default_rng(5)
    sound = {"x": rng.normal(size=n), "y": rng.normal(size=n)}
    return pa.table(sound | columns)


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    """Write a file; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def one(table: pa.Table, name: str = "a.parquet", **options: Any) -> Make:
    """A dataset of one file."""
    return lambda folder: write(folder / name, table, **options)


def files(**tables: pa.Table) -> Make:
    """A dataset of files a.parquet, b.parquet and so on."""

    def make(folder: Path) -> None:
        for name, table in tables.items():
            write(folder / f"{name}.parquet", table)

    return make


def both(*makes: Make) -> Make:
    """One after the other."""
    return lambda folder: [make(folder) for make in makes]


SOUND = one(xy(), "sound.parquet")


def spoiled(change: Callable[[bytes], bytes], **options: Any) -> Make:
    """A file whose bytes are changed after it was written."""

    def make(folder: Path) -> None:
        path = write(folder / "a.parquet", xy(), **options)
        path.write_bytes(change(path.read_bytes()))

    return make


def with_column(name: str, values: Any, **options: Any) -> Make:
    return one(xy(**{name: values}), **options)


def bad_file(name: str) -> Make:
    return lambda folder: shutil.copy(BAD_DATA / name, folder / name)


def footer_length(content: bytes) -> int:
    return int.from_bytes(content[-8:-4], "little")


def with_footer(content: bytes, footer: bytes) -> bytes:
    body = content[: -8 - footer_length(content)]
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def garbage_footer(content: bytes) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, footer_length(content), np.uint8)
    return with_footer(content, noise.tobytes())


def long_list_footer(content: bytes) -> bytes:
    """The list of schema elements claims two thousand million of them."""
    footer = content[-8 - footer_length(content) : -8]
    at = footer.index(b"\x19")  # the first field that is a list
    return with_footer(content, footer[: at + 1] + b"\xfc\xff\xff\xff\xff\x07" + footer[at + 2 :])


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def without_middle(content: bytes) -> bytes:
    return content[:100] + content[300:]


def lzo(content: bytes) -> bytes:
    """The column x says that it is compressed with LZO; the codec follows the name."""
    assert content.count(b"\x01x\x15\x04") == 1  # gzip, the third in the list, as zigzag
    return content.replace(b"\x01x\x15\x04", b"\x01x\x15\x06")


def readme(folder: Path) -> None:
    (folder / "README.md").write_text("About these data.")
    (folder / "sound.parquet.tmp").write_text("half")


def twice_by_link(folder: Path) -> None:
    (folder / "again.parquet").symlink_to(folder / "sound.parquet")


def hidden(folder: Path) -> None:
    for name in ("_metadata", "_part", ".part", "_SUCCESS", ".sound.parquet.crc"):
        (folder / name).write_bytes(b"no Parquet")


def zeros(folder: Path) -> None:
    """A small file of two million rows of zeros."""
    n = 2_000_000
    write(folder / "a.parquet", pa.table({"x": np.zeros(n), "y": np.zeros(n)}), compression="zstd")


def dictionary_bomb(folder: Path) -> None:
    """One word of a megabyte, named by every row."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * N, pa.int32()), ["w" * (1 << 20)])
    write(folder / "a.parquet", xy(word=words))


def keyed(folder_name: str) -> Make:
    return one(xy(), f"{folder_name}/a.parquet")


def many_row_groups(n: int) -> Make:
    return one(xy(n), row_group_size=1)


def empty_row_groups(folder: Path) -> None:
    table = xy()
    with pq.ParquetWriter(folder / "a.parquet", table.schema) as writer:
        for part in (table[:0], table[:7], table[:0], table[7:], table[:0]):
            writer.write_table(part)


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "a.parquet")


def floats(*values: float, n: int = N) -> np.ndarray:
    """Values at the end of otherwise sound ones."""
    column = np.random.default_rng(6).normal(size=n)
    column[n - len(values) :] = values
    return column


def run_case(case: Case, folder: Path, watcher: Watcher | None = None) -> Published:
    """Run the stage on the case in `folder / "data"`, into `folder / "out"`."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    case.make(data)
    sections: dict[str, dict[str, Any]] = {
        "data": {"path": str(data), "features": ["x", "y"], **case.data},
        "fit": {"max_iter": 2, **case.fit},
        "memory": dict(case.memory),
        "labels": dict(case.labels),
        "cluster": {"workers": 1},
        "output": {"path": str(folder / "out")},
    }
    return run(settings_from(sections), watcher)
