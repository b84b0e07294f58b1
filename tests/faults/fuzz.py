"""Mutants of small Parquet files, read in a process of their own: `fuzz.py FOLDER FIRST COUNT`.

The file `last` says which mutant was read last, should the process die of it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import DataError
from gmm_dask.storage.input.parquet.reader import read_features, read_table
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources

COLUMNS = {"x": ("x",), "y": ("y",), "v": ("v[0]", "v[1]")}  # and the features that each is
KEPT = ("id", "word")
KINDS = ("flip", "bytes", "cut", "drop", "splice", "swap", "footer")


def originals() -> list[tuple[pa.Table, dict[str, Any]]]:
    """Tables and how they are written: all with checksums of their pages."""
    rng = np.random.default_rng(0)
    n = 40
    table = pa.table(
        {
            "x": rng.normal(size=n),
            "y": rng.integers(0, 1000, n).astype(np.int32),
            "id": np.arange(n),
            "word": [f"word {i % 7}" for i in range(n)],
            "v": rng.normal(size=(n, 2)).tolist(),
        }
    )
    floats = table.set_column(1, "y", pa.array(rng.normal(size=n), pa.float32()))
    floats = floats.set_column(4, "v", floats["v"].cast(pa.list_(pa.float32(), 2)))
    return [
        (table, {"compression": "snappy", "row_group_size": 20}),
        (table, {"compression": "zstd", "data_page_version": "2.0"}),
        (floats, {"compression": "none", "use_dictionary": False, "write_page_index": True}),
        (floats, {"compression": "gzip", "data_page_size": 64, "row_group_size": 33}),
    ]


def mutant(original: bytes, other: bytes, kind: str, dice: np.random.Generator) -> bytes:
    """The file, changed in one way."""
    content = bytearray(original)
    at, stop = sorted(dice.integers(0, len(content), 2).tolist())
    if kind == "flip":
        content[at] ^= 1 << int(dice.integers(8))
    elif kind == "footer":  # which no checksum guards
        length = int.from_bytes(content[-8:-4], "little")
        for place in dice.integers(8, 8 + length, dice.integers(1, 3)):
            content[-int(place) - 1] = int(dice.integers(256))
    elif kind == "bytes":
        for place in dice.integers(0, len(content), dice.integers(1, 6)):
            content[place] = int(dice.integers(256))
    elif kind == "cut":
        del content[at:]
    elif kind == "drop":
        del content[at : min(stop, at + 64)]
    elif kind == "splice":
        content[at : at + 32] = other[at : at + 32]
    else:
        width = min(16, stop - at)
        content[at : at + width], content[stop : stop + width] = (
            original[stop : stop + width],
            original[at : at + width],
        )
    return bytes(content)


def read(path: Path) -> tuple[list[tuple[bytes, ...]], list[dict[str, Any]]]:
    """Features as bytes and kept columns as values, chunk by chunk."""
    plan = plan_dataset(path, features=tuple(COLUMNS), id_columns=KEPT, chunk_bytes=32 * 15)
    chunks = sources(plan)
    features = [
        tuple(read_features(each, names, "float64").tobytes() for names in COLUMNS.values())
        for each in chunks
    ]
    return features, [read_table(each, KEPT).to_pydict() for each in chunks]


def joined(found: tuple[list[tuple[bytes, ...]], list[dict[str, Any]]]) -> tuple[Any, ...]:
    """The rows, however they are cut into chunks.

    Whether kept bytes are text is said by a footer alone, which nothing guards: that may change.
    """
    features = [b"".join(parts) for parts in zip(*found[0], strict=True)]
    kept = [as_bytes(value) for name in KEPT for chunk in found[1] for value in chunk[name]]
    return (*features, *kept)


def as_bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def main(folder: Path, first: int, count: int) -> None:
    files = []
    for i, (table, options) in enumerate(originals()):
        pq.write_table(table, folder / f"{i}.parquet", write_page_checksum=True, **options)
        files.append((folder / f"{i}.parquet").read_bytes())
    expected = [joined(read(folder / f"{i}.parquet")) for i in range(len(files))]
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + count):
        dice, which, kind = np.random.default_rng(seed), seed % 4, KINDS[seed // 4 % len(KINDS)]
        (folder / "last").write_text(f"{seed}: {kind} of file {which}")
        path = folder / "mutant.parquet"
        path.write_bytes(mutant(files[which], files[(which + 1) % 4], kind, dice))
        try:
            found = joined(read(path))
        except DataError as error:
            said = str(error)
            assert "mutant.parquet" in said or "data." in said, said
            outcomes["refused"] += 1
        else:
            outcomes["same" if found == expected[which] else "silent"] += 1
            if found != expected[which]:
                print(f"seed {seed}: {kind} of file {which} changed rows without an error")
    print(dict(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
