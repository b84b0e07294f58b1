"""Which files a dataset is made of: the same names for folders of this machine and for a store."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.errors import DataError
from gmm_dask.storage.input.inputs import Problems
from gmm_dask.storage.input.listing import list_files, would_list
from gmm_dask.storage.input.listing.places import MAX_ALTERNATIVES, Pattern, alternatives
from gmm_dask.storage.input.planning import plan_dataset
from tests.object_service import ObjectService
from tests.storage.conftest import Write, problems_of
from tests.storage.lakes import BucketLake, FolderLake, Lake

GOOD = {"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.0]}
SNAPPY = "part-00000-8c2b.c000.snappy.parquet"


def names(*paths: str, **options: Any) -> list[str]:
    """The names that are listed; fails where there is a problem."""
    problems = Problems()
    listing = list_files(paths[0] if len(paths) == 1 else paths, problems, **options)
    assert problems.lines() == ()
    return list(listing.names)


def problem(*paths: str, **options: Any) -> str:
    """The one problem that listing meets."""
    problems = Problems()
    list_files(paths[0] if len(paths) == 1 else paths, problems, **options)
    (line,) = problems.lines()
    return line


# Braces and globs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("day={1,2}/*", ["day=1/*", "day=2/*"]),
        ("{a,b}{1,2}", ["a1", "a2", "b1", "b2"]),
        ("a{,b}", ["a", "ab"]),
        ("{a,b{1,2}}c", ["ac", "b1c", "b2c"]),
        ("{a,a}", ["a"]),
        ("{1}", ["{1}"]),
        ("{1}{a,b}{", ["{1}a{", "{1}b{"]),
        ("{a,b", ["{a,b"]),
        ("{{a,b}}", ["{a}", "{b}"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_stand_for_what_a_shell_takes_them_for(text: str, expected: list[str]) -> None:
    assert list(alternatives(text)) == expected


def test_braces_that_stand_for_millions_are_refused() -> None:
    assert len(alternatives("{0,1}" * 13)) == 2**13 <= MAX_ALTERNATIVES
    with pytest.raises(DataError, match="more than 10000 paths"):
        alternatives("{0,1}" * 1000)


PARTS = st.lists(st.sampled_from(["a", "b", "ab", "*", "a*", "?", "**", "[ab]"]), max_size=4)
TREES = st.sets(
    st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=4).map(tuple),
    max_size=8,
)


@given(tree=TREES, parts=PARTS)
def test_a_glob_is_what_python_takes_it_for_and_all_below_folders(
    tmp_path_factory: pytest.TempPathFactory, tree: set[tuple[str, ...]], parts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("tree", numbered=True)
    for path in sorted(tree):
        file = root.joinpath(*path[:-1], f"{path[-1]}_")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    matched = glob.glob("/".join([*parts, "*_"]), root_dir=root, recursive=True)  # noqa: PTH207
    expected = {name for name in matched if (root / name).is_file()}
    pattern = Pattern((*parts, "*_"))
    found = {file.relative_to(root).as_posix() for file in root.rglob("*_")}
    assert {name for name in found if pattern.matches(name.split("/"))} == expected
    listed = list_files(f"{root}/{'/'.join([*parts, '*_'])}", Problems())
    assert {str(Path(listed.url(name)).relative_to(root)) for name in listed.names} == expected
    shutil.rmtree(root)


def test_many_deep_globs_end(tmp_path: Path) -> None:
    FolderLake(tmp_path).put("/".join("abcdefghijklmnopqrstuvw") + "/1.parquet")
    deep = "/".join(["**"] * 20)
    assert len(names(f"{tmp_path}/{deep}/*.parquet")) == 1
    assert "matches no files" in problem(f"{tmp_path}/{deep}/x/{deep}/*.parquet")
    assert not would_list(f"{tmp_path}/{deep}/x/{deep}", f"{tmp_path}/{'a/' * 40}b")


def test_a_glob_takes_files_and_all_in_folders(lake: Lake) -> None:
    lake.put("t/k=1/a.parquet", "t/k=2/deep/b.parquet", "t/c.parquet", "t/notes.txt", "u/a.parquet")
    assert names(f"{lake.root}/t/k=*") == ["k=1/a.parquet", "k=2/deep/b.parquet"]
    assert names(f"{lake.root}/t/*.parquet") == ["c.parquet"]
    assert names(f"{lake.root}/*/k=?/*.parquet") == ["t/k=1/a.parquet"]
    assert names(f"{lake.root}/t/**/*.parquet") == [
        "c.parquet",
        "k=1/a.parquet",
        "k=2/deep/b.parquet",
    ]
    assert names(f"{lake.root}/**/b.parquet") == ["t/k=2/deep/b.parquet"]
    assert "matches no files" in problem(f"{lake.root}/t/*.orc")


def test_many_folders_of_a_store_take_few_requests(
    bucket: BucketLake, service: ObjectService
) -> None:
    bucket.put(*(f"t/day={i}/a.parquet" for i in range(40)))
    service.requests.clear()
    assert len(names(f"{bucket.root}/t/day=*")) == 40
    assert len(service.requests) < 30


# Several paths


def test_several_paths_are_one_dataset_whatever_their_order(lake: Lake) -> None:
    lake.put("t/day=1/a.parquet", "t/day=2/a.parquet", "t/day=3/a.parquet", "u/b.parquet")
    one, two = f"{lake.root}/t/day=1", f"{lake.root}/t/day=2"
    listed = list_files([two, one], Problems())
    assert listed == list_files((one, two), Problems())
    assert listed.root == f"{lake.root}/t"
    assert listed.names == ("day=1/a.parquet", "day=2/a.parquet")
    assert [listed.url(name) for name in listed.names] == [f"{one}/a.parquet", f"{two}/a.parquet"]
    assert names(f"{lake.root}/t/day={{1,2}}") == list(listed.names)
    assert names(f"{lake.root}/t/day={{1,2}}/*.parquet") == list(listed.names)
    assert names(f"{lake.root}/t/day=[12]") == list(listed.names)
    assert names(f"{one}/a.parquet", f"{two}/*") == list(listed.names)
    assert names(one) == ["a.parquet"] == names(f"{one}/")
    assert names(one, f"{lake.root}/u") == ["t/day=1/a.parquet", "u/b.parquet"]


def test_a_file_that_two_paths_find_is_a_problem(lake: Lake) -> None:
    lake.put("t/a.parquet", "t/k=1/a.parquet")
    for one, two, file in [
        ("t", "t", "a.parquet"),
        ("t", "t/k=1", "k=1/a.parquet"),
        ("t/*.parquet", "t/a.parquet", "a.parquet"),
    ]:
        problems = Problems()
        list_files([f"{lake.root}/{one}", f"{lake.root}/{two}"], problems)
        assert any(
            line.startswith(f"{file}: ") and f"{lake.root}/{two}" in line and "twice" in line
            for line in problems.lines()
        )
    assert names(f"{lake.root}/t/{{a,*}}.parquet") == ["a.parquet"]  # one glob finds a file once


def test_what_was_left_out_of_a_place_without_files_is_said(write: Write, data: Path) -> None:
    for name in ("_a.parquet", ".b.parquet", "old/c.parquet"):
        write(name, {"x": [1.0]})
    problems = Problems()
    list_files(str(data), problems, ["old/*"])
    (line,) = problems.lines()
    assert line.endswith(
        'holds no Parquet files but 2 names that begin with "_" or "." and 1 name that data.ignore '
        "leaves out. Check data.path."
    )


def test_a_home_that_nobody_knows_is_named() -> None:
    with pytest.raises(DataError, match="~nobody-there/x: nobody knows the home"):
        list_files("~nobody-there/x", Problems())


def test_a_path_that_holds_nothing_is_named_among_others(lake: Lake) -> None:
    lake.put("t/day=1/a.parquet", "t/day=2/notes.txt")
    good = f"{lake.root}/t/day=1"
    assert f"{lake.root}/t/day=9" in problem(good, f"{lake.root}/t/day=9")
    assert f"{lake.root}/t/*.pq: matches no files" in problem(good, f"{lake.root}/t/*.pq")
    assert f"{lake.root}/t/day=3" in problem(f"{lake.root}/t/day={{1,3}}")
    assert f"{lake.root}/t/day=3" in problem(f"{lake.root}/t/day={{1,3}}/*.parquet")
    assert names(f"{lake.root}/t/day=1/*.{{parquet,pq}}") == ["a.parquet"]


def test_places_of_two_kinds_are_no_dataset(tmp_path: Path, bucket: BucketLake) -> None:
    bucket.put("a.parquet")
    FolderLake(tmp_path).put("a.parquet")
    with pytest.raises(DataError, match=r"several kinds \(file, s3\)"):
        list_files([str(tmp_path), bucket.root], Problems())


def test_a_glob_over_buckets_asks_for_tables_in_buckets_alone(service: ObjectService) -> None:
    one, two = service.bucket(), service.bucket()
    for name in (one, two):
        BucketLake(name).put("of_many/a.parquet")  # a folder that no other test's bucket has
    found = {f"{one}/of_many/a.parquet", f"{two}/of_many/a.parquet"}
    assert set(names(f"s3://{{{one},{two}}}/of_many")) == found
    assert set(names("s3://bucket-*/of_many")) == found
    marks = [each for each in service.requests if "_delta_log" in str(each)]
    assert not [each for each in marks if "bucket-" not in str(each)]


def test_two_buckets_are_one_dataset(service: ObjectService) -> None:
    lakes = [BucketLake(service.bucket()) for _ in range(2)]
    for each in lakes:
        each.put("a/b.parquet")
    listed = list_files([f"{each.root}/a" for each in lakes], Problems())
    assert {listed.url(name) for name in listed.names} == {f"{x.root}/a/b.parquet" for x in lakes}


def test_a_folder_whose_name_has_braces_or_brackets_is_itself(tmp_path: Path) -> None:
    FolderLake(tmp_path).put("a{1,2}/x.parquet", "[a]/x.parquet", "a1/y.parquet")
    assert names(f"{tmp_path}/a{{1,2}}") == ["x.parquet"]
    assert names(f"{tmp_path}/[a]") == ["x.parquet"]


def test_where_several_folders_lie_makes_no_other_data(write: Write, tmp_path: Path) -> None:
    for name in ("k=1/a.parquet", "k=2/a.parquet", "k=3/a.parquet"):
        write(name, GOOD)
    here = plan_dataset([f"{tmp_path}/data/k=1", f"{tmp_path}/data/k=2"], id_columns=["k"])
    shutil.copytree(tmp_path / "data", tmp_path / "else" / "where")
    there = plan_dataset([tmp_path / "else/where/k=2", tmp_path / "else/where/k=1"], keep=["k"])
    assert here.fingerprint == there.fingerprint
    assert [each.keys for each in here.partitions] == [(("k", "1"),), (("k", "2"),)]
    assert plan_dataset(f"{tmp_path}/data/k={{1,2}}").fingerprint == here.fingerprint


def test_a_link_to_another_of_the_folders_counts_no_row_twice(tmp_path: Path) -> None:
    FolderLake(tmp_path).put("a/x.parquet")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "is the same file as a/x.parquet" in problem(f"{tmp_path}/a", f"{tmp_path}/b")


def test_files_to_come_are_seen_in_any_of_the_paths() -> None:
    out = "s3://b/day=2/out/runs/0/labels/part.parquet"
    assert would_list(["s3://b/day=1", "s3://b/day=2"], out)
    assert would_list("s3://b/day={1,2}", out)
    assert not would_list(["s3://b/day=1", "s3://b/day=3", "/day=2"], out)
    assert not would_list("s3://b/day={1,2}/*.parquet", out)


# Names of files


@pytest.mark.parametrize(
    "name",
    [
        "000000_0",  # Hive
        "000000_0_copy_1",
        "20240701_144951_00037_v74wa_1ad6f92e-4ad6-4b71-8f0d-1f2b",  # Athena
        "part-m-00000",  # Sqoop
        "0000_part_00",  # Redshift
        "data_0_0_0",  # Snowflake
        "export-000000000000",  # BigQuery
        SNAPPY,
        "part-0.PARQUET",
        "x.pq",
        "x.parq",
    ],
)
def test_files_are_taken_as_writers_name_them(lake: Lake, name: str) -> None:
    lake.put(f"t/k=1/{name}", "t/_SUCCESS", "t/_temporary/0/part", "t/k=1/.part.crc", "t/_metadata")
    assert names(f"{lake.root}/t") == [f"k=1/{name}"]
    assert names(f"{lake.root}/t/*/*") == [f"k=1/{name}"]


@pytest.mark.parametrize("name", ["a.parquet.tmp", "b.csv", "c.orc", "a.parquet.1", "d.snappy"])
def test_another_suffix_is_a_problem_with_a_glob_that_helps(lake: Lake, name: str) -> None:
    lake.put(f"t/k=1/{name}", "t/k=1/a.parquet")
    line = problem(f"{lake.root}/t")
    assert line.startswith(f"k=1/{name}: is not named as a Parquet file")
    assert names(_glob_in(line)) == ["k=1/a.parquet"]
    assert names(f"{lake.root}/t", ignore=[f"*{name[-3:]}"]) == ["k=1/a.parquet"]


def test_the_proposed_glob_matches_files_of_any_suffix(lake: Lake) -> None:
    lake.put("[t]/k=1/a.snappy")
    line = problem(f"{lake.root}/[[]t[]]")
    assert names(_glob_in(line)) == ["[t]/k=1/a.snappy"]


def _glob_in(line: str) -> str:
    """The glob that a message proposes."""
    return line.partition("such as ")[2].rstrip(".")


def test_files_without_a_suffix_that_are_not_parquet_are_named(write: Write, data: Path) -> None:
    write("000000_0", GOOD)
    write("000001_0", GOOD)
    assert plan_dataset(data).n_rows == 6
    (data / "LICENSE").write_text("words")
    (line,) = problems_of(data)
    assert line.startswith("LICENSE: is not a Parquet file")
    assert "data.ignore" in line
    assert plan_dataset(data, ignore=["LICENSE"]).n_rows == 6


# Marks of folders in object stores


def test_marks_of_folders_are_no_files(bucket: BucketLake) -> None:
    bucket.put("m1/", "m1/k=1/", "m1/k=1/_$folder$", "m1/k=2_$folder$", "m1/k=3", content=b"")
    bucket.put("m1", "m1/sub", content=b"")
    bucket.put("m1/k=1/a.parquet", "m1/k=3/a.parquet", "m1/sub/k=1/b.parquet")
    expected = ["k=1/a.parquet", "k=3/a.parquet", "sub/k=1/b.parquet"]
    assert names(f"{bucket.root}/m1") == expected
    assert names(f"{bucket.root}/m1/") == expected
    assert names(f"{bucket.root}/m1/**/*.parquet") == expected
    assert names(f"{bucket.root}/m1/*") == expected
    assert names(f"{bucket.root}/m1/k=*") == expected[:2]
    assert names(f"{bucket.root}/m1/k={{1,3}}/*") == expected[:2]
    assert names(f"{bucket.root}/m1/k=3", f"{bucket.root}/m1/k=1") == expected[:2]
    assert list_files(f"{bucket.root}/m1", Problems()).n_hidden > 0


def test_a_mark_with_content_is_no_mark(bucket: BucketLake) -> None:
    bucket.put("m1/a.parquet", "m1/k=1/", "m1//b.parquet")
    problems = Problems()
    list_files(f"{bucket.root}/m1", problems)
    assert len(problems) == 2
    assert all("not a regular file" in line for line in problems.lines())


def test_an_empty_object_is_a_file_where_it_marks_nothing(bucket: BucketLake) -> None:
    bucket.put("m1/a.parquet")
    bucket.put("m1/k=2", "m1/b.parquet", content=b"")
    assert names(f"{bucket.root}/m1") == ["a.parquet", "b.parquet", "k=2"]
    assert names(f"{bucket.root}/m1/k=2") == ["k=2"]


def test_a_mark_that_was_copied_to_a_disk_is_no_file(tmp_path: Path) -> None:
    lake = FolderLake(tmp_path)
    lake.put("k=1_$folder$", content=b"")
    lake.put("k=1/a.parquet")
    assert names(str(tmp_path)) == ["k=1/a.parquet"]
    lake.put("k=1_$folder$")
    assert names(str(tmp_path)) == ["k=1/a.parquet", "k=1_$folder$"]


# Tables that are more than their folder


DAYS = [f"day=2026-11-{day:02}/h={hour}/a.parquet" for day in (1, 2, 3) for hour in (9, 10)]


def test_ranges_of_keys_take_what_lies_between_ends_included(lake: Lake) -> None:
    lake.put(*DAYS)
    for between, expected in (
        ({"day": ("2026-11-02", "2026-11-30")}, DAYS[2:]),
        ({"h": ("9", "9")}, DAYS[::2]),  # numbers, not texts
        ({"h": ("10", "99"), "day": ("2026-11-01", "2026-11-02")}, [DAYS[1], DAYS[3]]),
    ):
        assert {*list_files(lake.root, Problems(), between=between).names} == {*expected}


def test_a_range_that_no_file_lies_in_says_what_there_is(lake: Lake) -> None:
    lake.put(*DAYS, "day=2026-11-04/a.parquet")
    problems = Problems()
    list_files(lake.root, problems, between={"day": ("2025-01-01", "2025-12-31")})
    (line,) = problems.lines()
    assert "no file has day from 2025-01-01 to 2025-12-31; there are 2026-11-01" in line
    problems = Problems()
    list_files(lake.root, problems, between={"h": ("9", "10")})
    (line,) = problems.lines()
    assert line.startswith("day=2026-11-04/a.parquet: no folder h=... is above it")


@pytest.mark.parametrize("end", ["2026-1-1", "2026-11", "2026-11-02 03:00", "20261102", "z"])
def test_the_ends_of_a_range_of_dates_are_written_as_the_dates(lake: Lake, end: str) -> None:
    """As text 2026-1-1 comes before 2026-11-01, but 2026-2-1 after 2026-12-31."""
    lake.put(*DAYS)
    problems = Problems()
    list_files(lake.root, problems, between={"day": ("2026-11-01", end)})
    assert f"day {end} is not written as 2026-11-03" in problems.lines()[0]
