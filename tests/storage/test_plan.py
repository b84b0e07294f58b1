"""The plan: exact rows of good data, and every problem of bad data at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import DataError
from gmm_dask.storage.input.inputs import MAX_ALIKE
from gmm_dask.storage.input.listing import would_list
from gmm_dask.storage.input.parquet.footers import FIRST_READ
from gmm_dask.storage.input.planning import plan_dataset, row_ranges
from tests.storage.conftest import Write, problems_of, write_file

GOOD = {"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.0]}


def only(problems: tuple[str, ...], *parts: str) -> None:
    """There is one problem, and its line says all the parts."""
    assert len(problems) == 1, problems
    for part in parts:
        assert part in problems[0]


def truncated(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


# Which rows


def test_rows_and_row_groups_are_those_of_the_footers(write: Write, data: Path) -> None:
    write("b.parquet", {"x": np.arange(7.0)}, row_group_size=3)
    write("a.parquet", {"x": np.arange(2.0)})
    plan = plan_dataset(data)
    assert [each.name for each in plan.partitions] == ["a.parquet", "b.parquet"]
    assert [each.row_groups for each in plan.partitions] == [(2,), (3, 3, 1)]
    assert [each.first_row for each in plan.partitions] == [0, 2]
    assert plan.n_rows == 9
    assert plan.root == str(data)


@given(
    groups=st.lists(st.integers(0, 40), max_size=12),
    max_rows=st.integers(1, 50),
)
def test_ranges_partition_the_rows(groups: list[int], max_rows: int) -> None:
    ranges = list(row_ranges(groups, max_rows))
    assert [0, *(stop for _, stop in ranges)] == [*(start for start, _ in ranges), sum(groups)]
    assert all(0 < stop - start <= max_rows for start, stop in ranges)
    edges = set(np.cumsum([0, *groups]).tolist())
    for (start, stop), (_, after) in pairwise(ranges):
        if {start, stop, after} <= edges:  # two neighbours of whole row groups did not fit together
            assert after - start > max_rows


def test_chunks_are_cut_by_rows_and_columns_not_by_what_files_say_of_bytes(
    write: Write, data: Path
) -> None:
    n = 2_000_000
    file = write("a.parquet", {"x": np.zeros(n), "y": np.zeros(n)}, compression="zstd")
    footer = pq.read_metadata(file)
    said = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    assert max(file.stat().st_size, said) < n * 16 // 500  # 32 MB decoded
    plan = plan_dataset(data, chunk_bytes=1 << 20)
    assert plan.chunk_rows == (1 << 20) // 16
    assert max(chunk.n_rows for chunk in plan.chunks) * 16 <= 1 << 20
    assert len(plan.chunks) >= n * 16 // (1 << 20)


def test_a_large_row_group_is_cut_into_equal_ranges(write: Write, data: Path) -> None:
    write("a.parquet", {"x": np.arange(10.0)}, row_group_size=10)
    plan = plan_dataset(data, chunk_bytes=4 * 8)
    assert [(chunk.start, chunk.stop) for chunk in plan.chunks] == [(0, 3), (3, 6), (6, 10)]


def test_small_row_groups_share_a_chunk_but_files_do_not(write: Write, data: Path) -> None:
    for name in "ab":
        write(f"{name}.parquet", {"x": np.arange(6.0)}, row_group_size=2)
    plan = plan_dataset(data, chunk_bytes=4 * 8)
    assert [(each.partition, each.start, each.stop, each.first_row) for each in plan.chunks] == [
        (0, 0, 4, 0),
        (0, 4, 6, 4),
        (1, 0, 4, 6),
        (1, 4, 6, 10),
    ]


def test_a_file_of_no_rows_keeps_its_place_without_a_chunk(write: Write, data: Path) -> None:
    write("a.parquet", {"x": np.arange(3.0)})
    write("b.parquet", pa.table({"x": pa.array([], pa.float64())}))
    write("c.parquet", {"x": np.arange(2.0)})
    plan = plan_dataset(data)
    assert [each.n_rows for each in plan.partitions] == [3, 0, 2]
    assert [chunk.partition for chunk in plan.chunks] == [0, 2]
    assert [chunk.first_row for chunk in plan.chunks] == [0, 3]


def test_a_file_of_no_rows_has_no_say_in_columns(write: Write, data: Path) -> None:
    write("a.parquet", pa.table({"x": pa.nulls(0)}))
    write("b.parquet", GOOD)
    assert plan_dataset(data).features == ("x", "y")


@pytest.mark.parametrize(
    "folder", ["a b", "größe=ü", "100%", "k=a%20b", "plus+and&", "[x]", "日本", "new\nline"]
)
def test_any_path_can_be_planned(tmp_path: Path, folder: str) -> None:
    file = write_file(tmp_path / folder / "p 1%.parquet", GOOD)
    assert plan_dataset(file.parent).n_rows == 3
    assert plan_dataset(file).n_rows == 3
    assert plan_dataset(tmp_path).partitions[0].name == f"{folder}/p 1%.parquet"


def test_one_file_is_a_dataset_whatever_its_name(tmp_path: Path) -> None:
    file = write_file(tmp_path / "_k=1" / "_rows", GOOD)
    plan = plan_dataset(str(file))
    assert (plan.root, plan.partitions[0].name) == (str(file.parent), "_rows")
    assert plan.key_columns == ()


def test_a_glob_names_files_and_folders(write: Write, data: Path) -> None:
    for name in ["k=1/a.parquet", "k=2/a.parquet", "k=2/_b.parquet", "other/a.dat"]:
        write(name, GOOD)
    names = [each.name for each in plan_dataset(f"{data}/k=*/*.parquet").partitions]
    assert names == ["k=1/a.parquet", "k=2/a.parquet"]
    assert plan_dataset(f"{data}/k=*").partitions == plan_dataset(f"{data}/k=?/*").partitions
    assert plan_dataset(f"{data}/**/*.parquet").key_columns == ("k",)
    assert plan_dataset(f"{data}/oth*/*.dat").n_rows == 3


def test_relative_paths_and_file_urls_are_the_same_data(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.parquet", GOOD)
    monkeypatch.chdir(data.parent)
    assert plan_dataset("data") == plan_dataset(f"file://{data}") == plan_dataset(data)
    assert plan_dataset(f"FILE://localhost{data}") == plan_dataset(data)


def test_markers_and_hidden_names_are_skipped(write: Write, data: Path) -> None:
    write("a.parquet", GOOD)
    for name in ["_SUCCESS", "_metadata", ".a.parquet.crc", "_log/0.json", ".tmp/b.parquet"]:
        place = data / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"not Parquet")
    assert [each.name for each in plan_dataset(data).partitions] == ["a.parquet"]


def test_a_file_url_is_decoded(tmp_path: Path) -> None:
    write_file(tmp_path / "a b%" / "p.parquet", GOOD)
    assert plan_dataset((tmp_path / "a b%").as_uri()).n_rows == 3
    assert "%20" in (tmp_path / "a b%").as_uri()


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("data", True),
        ("data/", True),
        ("data/*", True),
        ("data/*.parquet", False),
        ("data/**/*.parquet", True),
        ("data/o*t", True),
        ("data/[n-p]ut/runs/*/labels", True),
        ("data/in/*.parquet", False),
        ("*/out/**", True),
        ("data/a.parquet", False),
        ("da", False),
    ],
)
def test_files_to_come_are_seen_in_a_dataset(
    write: Write, data: Path, path: str, inside: bool
) -> None:
    write("a.parquet", GOOD)
    write_file(data.parent / "da" / "a.parquet", GOOD)
    part = "out/runs/0/labels/part.parquet"
    assert would_list(f"{data.parent}/{path}", f"{data}/{part}") is inside
    (data.parent / "link").symlink_to(data)
    assert would_list(f"{data.parent}/{path}", f"{data.parent}/link/{part}") is inside
    assert not would_list(f"{data.parent}/{path}", f"{data}/_hidden/{part}")
    (data.parent / "link").unlink()
    if inside:
        write(part, GOOD)
        names = [each.name for each in plan_dataset(f"{data.parent}/{path}").partitions]
        assert any(name.endswith("labels/part.parquet") for name in names)


# Sets of files


def test_a_missing_path_is_named_with_what_exists(tmp_path: Path) -> None:
    only(problems_of(tmp_path / "no" / "data"), f"{tmp_path}/no/data", "does not exist")
    only(problems_of(tmp_path / "no" / "*.parquet"), "matches no files")
    assert f"{tmp_path} does" in problems_of(tmp_path / "no" / "data")[0]


def test_an_empty_folder_is_a_problem(data: Path) -> None:
    only(problems_of(data), str(data), "no Parquet files")
    (data / "_SUCCESS").touch()
    only(problems_of(data), "no Parquet files")


def test_files_of_no_rows_are_a_problem(write: Write, data: Path) -> None:
    write("a.parquet", pa.table({"x": pa.array([], pa.float64())}))
    write("b.parquet", pa.table({"x": pa.array([], pa.float64())}))
    only(problems_of(data), "2 files", "no rows")


def test_other_files_are_a_problem_with_a_remedy(write: Write, data: Path) -> None:
    write("a.parquet", GOOD)
    (data / "README.md").write_text("hello")
    (data / "a.parquet.tmp").write_text("hello")
    problems = problems_of(data)
    assert [line.partition(":")[0] for line in problems] == ["README.md", "a.parquet.tmp"]
    assert all("glob" in line for line in problems)
    assert plan_dataset(f"{data}/*.parquet").n_rows == 3


def test_links_are_followed_but_rows_never_count_twice(write: Write, data: Path) -> None:
    elsewhere = write_file(data.parent / "elsewhere" / "b.parquet", GOOD)
    write("a.parquet", GOOD)
    (data / "linked").symlink_to(elsewhere.parent)
    assert plan_dataset(data).n_rows == 6
    (data / "again.parquet").symlink_to(data / "a.parquet")
    only(problems_of(data), "again.parquet", "a.parquet", "same file")
    (data / "again.parquet").unlink()
    (data / "loop").symlink_to(data)
    only(problems_of(data), "loop", "same folder")


def test_names_that_are_no_files_are_a_problem(
    write: Write, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.parquet", GOOD)
    monkeypatch.chdir(data)  # the path of a socket must be short
    (data / "gone.parquet").symlink_to(data / "nowhere")
    os.mkfifo(data / "pipe.parquet")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.parquet")
        problems = problems_of(data)
    assert [line.partition(":")[0] for line in problems] == [
        "gone.parquet",
        "pipe.parquet",
        "socket.parquet",
    ]
    only(problems_of(data / "pipe.parquet"), "pipe.parquet", "neither")


def test_a_name_that_is_not_utf8_is_a_problem(write: Write, data: Path) -> None:
    file = write("a.parquet", GOOD)
    shutil.copy(file, os.fsencode(data) + b"/b\xff.parquet")
    only(problems_of(data), "UTF-8", "Rename")


def test_all_problems_come_at_once(write: Write, data: Path) -> None:
    write("a.parquet", {"x": [1.0, None], "s": ["a", "b"], "y": [1.0, 2.0]})
    write("b.parquet", {"x": [1.0], "s": ["a"]})
    truncated(write("c.parquet", GOOD), 60)
    (data / "notes.txt").write_text("hello")
    problems = problems_of(data, features=["x", "y", "s"], id_columns=["i"])
    for place in [
        "notes.txt:",
        "c.parquet:",
        "b.parquet: has no column 'y'",
        "a.parquet, column 's': is string",
        "b.parquet, column 's': is string",
        "data.id_columns: no file has a column 'i'",
        "a.parquet, row group 0, column 'x': 1 nulls",
    ]:
        assert sum(line.startswith(place) for line in problems) == 1, place
    assert len(problems) == 7


def test_many_problems_alike_are_counted(write: Write, data: Path) -> None:
    for i in range(MAX_ALIKE + 5):
        write(f"{i:03}.parquet", {"x": [1.0, None]})
    problems = problems_of(data)
    assert len(problems) == MAX_ALIKE + 1
    assert problems[-1] == "... and 5 more: null in column 'x'."


# Places


@pytest.mark.parametrize(
    "path",
    [
        "http://example.com/a.parquet",
        "memory://a",
        "reference://x",
        "github://org:repo@main/x",
        "simplecache::s3://bucket/key",
        "local:///tmp",
    ],
)
def test_only_allowed_schemes_are_opened(path: str) -> None:
    only(problems_of(path), "data.path", "s3://")


@pytest.mark.parametrize("path", ["file://server/data", "file://data", "FILE://a@b/c"])
def test_a_file_url_names_no_other_machine(path: str) -> None:
    only(problems_of(path), "data.path", "names the host", "file:///folder")


@pytest.mark.parametrize("path", ["a\0b", "file:///a%00b", "s3://bucket/a%00"])
def test_a_path_holds_no_nul(path: str) -> None:
    only(problems_of(path), "data.path", "NUL")


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    only(problems_of("s3://user:hunter2@bucket/data"), "credentials", "s3://***@bucket")
    assert "hunter2" not in problems_of("s3://user:hunter2@bucket/data")[0]


# Identity


def test_the_fingerprint_is_of_the_content_not_of_place_or_time(
    write: Write, data: Path, tmp_path: Path
) -> None:
    write("k=1/a.parquet", GOOD)
    write("k=2/a.parquet", GOOD)
    before = plan_dataset(data).fingerprint
    copy = shutil.copytree(data, tmp_path / "elsewhere")
    os.utime(copy / "k=1" / "a.parquet", (0, 0))
    assert plan_dataset(copy).fingerprint == before
    write_file(copy / "k=1" / "a.parquet", {"x": [1.0, 2.0, 4.0], "y": [4.0, 5.0, 6.0]})
    assert plan_dataset(copy).fingerprint != before
    shutil.copytree(data, tmp_path / "third")
    (tmp_path / "third" / "k=1").rename(tmp_path / "third" / "k=3")
    assert plan_dataset(tmp_path / "third").fingerprint != before


def test_a_plan_is_json_with_every_row_group(write: Write, data: Path) -> None:
    write("k=ü/a.parquet", {"x": np.arange(5.0), "id": range(5)}, row_group_size=2)
    plan = plan_dataset(data, id_columns=["id", "k"])
    document = plan.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    (entry,) = document["partitions"]
    assert entry["row_groups"] == [2, 2, 1]
    assert entry["keys"] == {"k": "ü"}
    assert entry["footer_sha256"] == plan.partitions[0].footer_sha256
    assert document["fingerprint"] == plan.fingerprint
    assert document["n_rows"] == 5


def test_planning_reads_footers_only(write: Write, data: Path) -> None:
    """Damage in the data does not show in the plan, because the plan does not read them."""
    file = write("a.parquet", {"x": np.random.default_rng(0).normal(size=100_000)})
    content = bytearray(file.read_bytes())
    content[1000:-FIRST_READ] = b"\x00" * (len(content) - FIRST_READ - 1000)
    file.write_bytes(content)
    assert plan_dataset(data).n_rows == 100_000
    with pytest.raises(OSError):
        pq.read_table(file)


def test_a_glob_over_a_linked_folder_counts_no_row_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "a" / "p.parquet")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="is the same file as"):
        plan_dataset(f"{tmp_path}/*/*.parquet")
