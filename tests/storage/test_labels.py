"""Label parts: one row per input row, named by content, readable by anyone."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.errors import DataError, OutputError
from gmm_dask.mixture import RowScores
from gmm_dask.storage.arrow import parquet_bytes, read_parquet_bytes
from gmm_dask.storage.records.codec import At, record
from gmm_dask.storage.records.documents import canonical_json
from gmm_dask.storage.records.labels import LABEL_COLUMNS, label_table
from gmm_dask.storage.records.receipts import PartReceipt, write_part
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.runs import RunFolder
from tests.storage.stores import (
    CHUNK,
    RUN,
    FaultStore,
    MemoryStore,
    part_table,
    put_part,
    small_model,
)

USABLE = np.array([True, False, True])
SCORES = RowScores(
    np.array([2, -1, 0], np.int32), np.array([-1.5, np.nan, -700.0]), np.array([0.5, np.nan, 1.0])
)
RESPONSIBILITIES = np.array([[0.25, 0.25, 0.5], [np.nan] * 3, [1.0, 0.0, 0.0]])


def kept() -> pa.Table:
    return pa.table({"flower": ["a", "b", None], "price": pa.array([1, 2, 3], pa.int16())})


def labels(**changes: Any) -> pa.Table:
    arguments: dict[str, Any] = {"usable": USABLE, "responsibilities": RESPONSIBILITIES} | changes
    return label_table(10, arguments.pop("kept", kept()), SCORES, **arguments)


# --- the table -------------------------------------------------------------------------------


def test_every_row_keeps_its_place_and_unusable_rows_say_why() -> None:
    assert labels().to_pydict() == {
        "row_id": [10, 11, 12],
        "flower": ["a", "b", None],
        "price": [1, 2, 3],
        "label": [2, -1, 0],
        "log_density": [-1.5, None, -700.0],
        "max_responsibility": [0.5, None, 1.0],
        "reason": [None, "missing", None],
        "responsibilities": [[0.25, 0.25, 0.5], None, [1.0, 0.0, 0.0]],
    }


def test_columns_have_the_promised_types_and_order() -> None:
    schema = labels().schema
    assert [name for name in schema.names if name in LABEL_COLUMNS] == list(LABEL_COLUMNS)
    assert schema.names[1:3] == ["flower", "price"]
    assert {name: schema.field(name).type for name in LABEL_COLUMNS} == LABEL_COLUMNS
    assert schema.field("price").type == pa.int16()
    assert "responsibilities" not in labels(responsibilities=None).schema.names


def test_what_the_scores_say_of_unusable_rows_is_not_looked_at() -> None:
    other = RowScores(np.array([2, 7, 0], np.int32), *(np.nan_to_num(a) for a in SCORES[1:]))
    assert label_table(10, kept(), other, usable=USABLE).equals(labels(responsibilities=None))


def test_no_columns_need_be_kept_and_no_rows_need_be_there() -> None:
    assert labels(kept=pa.table({})).num_rows == 3
    empty = label_table(
        7, kept()[:0], RowScores(*(a[:0] for a in SCORES)), usable=USABLE[:0],
        responsibilities=RESPONSIBILITIES[:0],
    )  # fmt: skip
    assert empty.num_rows == 0
    assert empty.schema == labels().schema


@pytest.mark.parametrize("name", LABEL_COLUMNS)
def test_a_kept_column_may_not_hide_one_of_ours(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' cannot be kept.*Rename it"):
        labels(kept=pa.table({name: [1, 2, 3]}))
    for other in (name.upper(), name.capitalize()):
        with pytest.raises(DataError, match=f"'{other}' cannot be kept.*do not tell upper"):
            labels(kept=pa.table({other: [1, 2, 3]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"kept": kept()[:2]},
        {"usable": USABLE[:2]},
        {"responsibilities": RESPONSIBILITIES[:2]},
    ],
)
def test_lengths_that_differ_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"have [23] rows from row 10 on"):
        labels(**changes)


# --- bytes -----------------------------------------------------------------------------------


def test_identical_tables_give_identical_bytes_however_they_are_cut_and_annotated() -> None:
    table = labels()
    data = parquet_bytes(table)
    cut = pa.concat_tables([table[:1], table[1:2], table[2:]])
    sliced = pa.concat_tables([table, table])[3:]
    annotated = table.replace_schema_metadata({"pandas": "{}", "written": "today"})
    flower = table.schema.get_field_index("flower")
    encoded = table.set_column(flower, "flower", table.column(flower).dictionary_encode())
    for same in (
        labels(),
        cut,
        sliced,
        annotated,
        encoded,
        pa.table(table.to_pydict(), table.schema),
    ):
        assert parquet_bytes(same) == data
    assert parquet_bytes(labels(responsibilities=None)) != data


def test_where_pages_are_cut_does_not_depend_on_where_the_table_was() -> None:
    long = pa.table({"note": [str(i) * 300 for i in range(4000)]})
    data = parquet_bytes(long)
    for edge in (1, 333, 2000):
        assert parquet_bytes(pa.concat_tables([long[:edge], long[edge:]])) == data


def test_values_survive_bit_for_bit() -> None:
    table = labels()
    assert read_parquet_bytes(parquet_bytes(table)).equals(table)
    hard = np.array([5e-324, -0.0, 1e308, np.nextafter(1, 2)])
    back = read_parquet_bytes(parquet_bytes(pa.table({"x": hard}))).column("x").to_numpy()
    assert back.tobytes() == hard.tobytes()


def test_any_kept_column_of_a_parquet_file_can_be_written() -> None:
    table = pa.table(
        {
            "a.b": ["x", "y"],
            "": [1, 2],
            "day": pa.array([1, 2], pa.date32()),
            "at": pa.array([1, 2], pa.timestamp("ns", "UTC")),
            "money": pa.array([1, 2], pa.decimal128(9, 2)),
            "list": [[{"u": 1}], None],
            "nothing": pa.nulls(2),
            "half": pa.array(np.array([1, 2], np.float16)),
            "key": pa.array(["k", None]).dictionary_encode(),
        }
    )
    back = read_parquet_bytes(parquet_bytes(table))
    assert back.to_pylist() == table.to_pylist()
    assert back.schema.field("key").type == pa.string()


def test_a_column_that_parquet_cannot_hold_is_named() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(OutputError, match=r"odd: .*union.* cannot be written as Parquet"):
        parquet_bytes(pa.table({"odd": union}))


def test_lists_of_too_many_values_for_a_part_are_named() -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, 2**30 + 1], pa.int32()), pa.nulls(2**30 + 1))
    table = pa.table({"id": [1, 2], "long": pa.chunked_array([lists, lists])})
    with pytest.raises(OutputError, match=r"'long'.*memory\.chunk_bytes"):
        parquet_bytes(table)


def test_responsibilities_of_too_many_rows_for_a_part_are_refused() -> None:
    few, many = np.zeros((1, 1)), 2**16
    wide = np.broadcast_to(few, (many, many))
    scores = RowScores(np.zeros(many, np.int32), np.zeros(many), np.zeros(many))
    with pytest.raises(OutputError, match=r"65536 rows.*memory\.chunk_bytes"):
        label_table(0, pa.table({}), scores, usable=np.ones(many, bool), responsibilities=wide)


def test_a_part_with_any_bit_flipped_is_not_taken_for_whole() -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    receipt = put_part(folder, 0)
    key, (data,) = f"runs/{RUN}/{receipt.name}", store.objects.values()
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 200):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        store.objects[key] = bytes(flipped)
        assert not receipt.is_whole(folder)
    store.objects[key] = data
    assert receipt.is_whole(folder)


# --- parts -----------------------------------------------------------------------------------


def test_a_part_is_named_by_its_content_and_says_where_its_rows_come_from() -> None:
    store = MemoryStore()
    receipt = put_part(RunFolder(store, RUN), 1)
    ((name, data),) = store.objects.items()
    assert name == f"runs/{RUN}/labels/part-00001-{receipt.sha256[:16]}.parquet"
    assert (receipt.bytes, receipt.rows, receipt.first_row) == (len(data), CHUNK, CHUNK)
    metadata = pq.read_metadata(io.BytesIO(data)).metadata
    assert metadata[b"gmm_dask.model_sha256"].decode() == small_model().sha256
    assert metadata[b"gmm_dask.file"] == b"part-0.parquet"
    assert (metadata[b"gmm_dask.start"], metadata[b"gmm_dask.stop"]) == (b"4", b"8")


def test_writing_a_part_again_writes_nothing_and_other_bits_get_another_name() -> None:
    memory = MemoryStore()
    first = put_part(RunFolder(memory, RUN), 0)
    counting = FaultStore(memory)
    assert put_part(RunFolder(counting, RUN), 0) == first
    assert "put" not in counting.operations
    other = put_part(RunFolder(memory, RUN), 0, noise=1e-12)
    assert other.name != first.name
    assert len(memory.objects) == 2


def test_a_damaged_part_is_not_taken_for_a_whole_one_and_is_written_again() -> None:
    store = MemoryStore()
    folder = RunFolder(store, RUN)
    receipt = put_part(folder, 0)
    for damaged in (b"", b"torn", None):
        if damaged is None:
            store.objects.clear()
        else:
            store.objects[f"runs/{RUN}/{receipt.name}"] = damaged
        assert not receipt.is_whole(folder)
        assert receipt.name in str(receipt.damage(folder))
        assert put_part(folder, 0) == receipt
        assert receipt.is_whole(folder)


def test_a_table_of_another_length_than_its_range_is_refused() -> None:
    folder = RunFolder(MemoryStore(), RUN)
    with pytest.raises(DataError, match=r"in\.parquet, rows 0 to 5: 4 labels were made"):
        write_part(
            folder,
            0,
            part_table(0),
            first_row=0,
            file="in.parquet",
            start=0,
            stop=5,
            model_sha256="0" * 64,
        )


def test_a_run_folder_crosses_process_borders(tmp_path: Path) -> None:
    folder = RunFolder(LocalStore(str(tmp_path)), RUN)
    receipt = put_part(pickle.loads(pickle.dumps(folder)), 0)
    assert pickle.loads(pickle.dumps(receipt)).is_whole(folder)
    assert folder.path() == str(tmp_path / "runs" / RUN)


def test_pandas_and_duckdb_read_a_part_without_us(tmp_path: Path) -> None:
    path = str(tmp_path / "part.parquet")
    Path(path).write_bytes(parquet_bytes(labels()))
    frame = pd.read_parquet(path)
    assert frame["label"].tolist() == [2, -1, 0]
    assert frame["reason"].isna().tolist() == [True, False, True]
    query = "select row_id, responsibilities[3] from read_parquet(?) where label >= 0 order by 1"
    assert duckdb.execute(query, [path]).fetchall() == [(10, 0.5), (12, 0.0)]


# --- receipts --------------------------------------------------------------------------------

RECEIPT = PartReceipt(3, "labels/p.parquet", "0" * 64, 10, 4, 12, "a/b.parquet", 0, 4, "1" * 64)


def test_a_receipt_survives_a_document() -> None:
    folder = RunFolder(MemoryStore(), RUN)
    folder.put("receipts/00003.json", canonical_json(record(PartReceipt).dump(RECEIPT)))
    folder.put(
        "receipts/00003.json", canonical_json(record(PartReceipt).dump(RECEIPT))
    )  # may be written again
    assert read_receipt(folder.get_json("receipts/00003.json")) == RECEIPT


def read_receipt(document: object) -> PartReceipt:
    return record(PartReceipt).load(document, At("receipt"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", -1),
        ("index", True),
        ("index", 1.0),
        ("name", 1),
        ("sha256", "0" * 63),
        ("sha256", "G" * 64),
        ("sha256", None),
        ("model_sha256", None),
        ("model_sha256", "1" * 16),
        ("bytes", "10"),
        ("rows", None),
        ("file", ["a"]),
        ("stop", 1.5),
    ],
)
def test_a_damaged_receipt_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(OutputError, match=f"receipt: {field} is"):
        read_receipt(record(PartReceipt).dump(RECEIPT) | {field: value})


def test_a_receipt_with_a_field_too_many_or_too_few_is_refused() -> None:
    with pytest.raises(OutputError, match="'extra' is an unknown field"):
        read_receipt(record(PartReceipt).dump(RECEIPT) | {"extra": 1})
    document = record(PartReceipt).dump(RECEIPT)
    del document["rows"]
    with pytest.raises(OutputError, match="rows is absent"):
        read_receipt(document)
