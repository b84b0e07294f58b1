"""Every way in which input is not as promised: refused with its place and remedy, or read right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gmm_dask import read_labels
from gmm_dask.errors import GmmDaskError, SettingsError
from gmm_dask.stage.outputs import Published
from gmm_dask.storage.input.parquet.reader import read_features, read_table
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.input.sources import sources
from tests.faults import inputs
from tests.faults.inputs import (
    SOUND,
    Case,
    N,
    bad_file,
    both,
    files,
    flip,
    floats,
    keyed,
    one,
    run_case,
    spoiled,
    with_column,
    xy,
)

pytestmark = pytest.mark.usefixtures("no_pictures")

TEXT = pa.array(["1"] * N)
HALF = pa.array(np.arange(N, dtype=np.float16))
WHOLE = np.arange(N)

# A: files that are none, or not whole
FILES = {
    "A01 of no bytes": Case(
        both(SOUND, lambda f: (f / "a.parquet").touch()), ("a.parquet", "0 bytes", "remove it")
    ),
    "A02 of ten bytes": Case(spoiled(lambda c: b"PAR1" + c[:6]), ("a.parquet", "truncated")),
    "A03 of another kind": Case(spoiled(lambda c: b"x,y\n1,2\n" * 9), ("not a Parquet file",)),
    "A04 without its end": Case(spoiled(lambda c: c[:-20]), ("a.parquet", "truncated")),
    "A05 with a footer longer than the file": Case(
        spoiled(lambda c: c[:-8] + b"\xff\xff\x00\x00PAR1"), ("a.parquet", "truncated or damaged")
    ),
    "A06 with noise for a footer": Case(
        spoiled(inputs.garbage_footer), ("a.parquet", "footer is damaged")
    ),
    "A07 without its middle": Case(
        spoiled(inputs.without_middle), ("a.parquet, row group 0, column 'y'", "outside")
    ),
    "A08 a bit flipped, with checksums": Case(
        spoiled(flip(80), write_page_checksum=True, compression="none", use_dictionary=False),
        ("a.parquet, row group 0, column 'x'", "damaged", "Write the file again"),
    ),
    "A09 a bit flipped in the compressed pages": Case(
        spoiled(flip(120), compression="gzip", use_dictionary=False),
        ("a.parquet, row group 0, column 'x'", "damaged"),
    ),
    "A10 encrypted": Case(spoiled(lambda c: c[:-4] + b"PARE"), ("a.parquet", "encrypted")),
    "A11 compressed with LZO": Case(
        spoiled(inputs.lzo, compression="gzip", use_dictionary=False),
        ("a.parquet, row group 0, column 'x'", "lzo"),
    ),
    "A12a a schema of an unknown type": Case(
        bad_file("PARQUET-1481.parquet"), ("PARQUET-1481.parquet", "footer is damaged")
    ),
    "A12b a dictionary of negative length": Case(
        bad_file("ARROW-RS-GH-6229-DICTHEADER.parquet"),
        ("DICTHEADER.parquet, row group 0, column 'region_key'", "outside"),
        {"features": None},
    ),
    "A12c too few repetition levels": Case(
        bad_file("ARROW-RS-GH-6229-LEVELS.parquet"), ("no file has a column 'x'", "outer")
    ),
    "A12d fewer levels than values": Case(
        bad_file("ARROW-GH-41321.parquet"),
        ("ARROW-GH-41321.parquet, row group 0, column",),
        {"features": None, "missing": "em"},
        labels={"keep": "all"},
    ),
    "A12e columns of different lengths": Case(
        bad_file("ARROW-GH-41317.parquet"),
        ("ARROW-GH-41317.parquet, row group 0, column", "values for"),
        {"features": None, "missing": "em"},
        labels={"keep": "all"},
    ),
    "A12f indices of no bits": Case(
        bad_file("ARROW-GH-43605.parquet"), data={"features": ["min_fl"]}, n_rows=21186
    ),
    "A12g repetition that begins in the middle": Case(
        bad_file("ARROW-GH-45185.parquet"),
        ("ARROW-GH-45185.parquet, row group 0, column 'x'", "damaged", "repetition level"),
        {"features": None},
    ),
    "A12h nulls in a required column": Case(
        bad_file("ARROW-GH-47662.parquet"), ("no column", "flba_field"), {"features": None}
    ),
}
# B: sets of files
SETS = {
    "B01 that do not exist": Case(lambda f: f.rmdir(), ("does not exist", "data.path")),
    "B02 in an empty folder": Case(lambda f: None, ("no Parquet files", "data.path")),
    "B03 of no Parquet": Case(inputs.readme, ("README.md", "data.ignore")),
    "B04a with others beside them": Case(
        both(SOUND, inputs.readme), ("README.md", "sound.parquet.tmp", "data.ignore")
    ),
    "B04b with others to be ignored": Case(
        both(SOUND, inputs.readme), data={"ignore": ["*.md", "*.tmp"]}
    ),
    "B05 with a stale summary and hidden names": Case(both(SOUND, inputs.hidden)),
    "B06 in a folder named like a file": Case(
        both(SOUND, one(xy(3), "more.parquet/a.parquet")), n_rows=N + 3
    ),
    "B07 one reached twice": Case(
        both(SOUND, inputs.twice_by_link), ("again.parquet", "same file", "Remove one of the links")
    ),
    "B08 a folder reached twice": Case(
        both(one(xy(), "sub/a.parquet"), lambda f: (f / "link").symlink_to(f / "sub")),
        ("link", "same folder"),
    ),
    "B09 at different depths": Case(both(SOUND, one(xy(2), "b/c/d.parquet")), n_rows=N + 2),
    "B10 a pipe among them": Case(both(SOUND, inputs.fifo), ("a.parquet", "not a regular file")),
}
# C: schemas
SCHEMAS = {
    "C01 a column missing in one file": Case(
        files(a=xy(), b=xy().drop_columns("y")), ("b.parquet", "no column 'y'", "data.features")
    ),
    "C02 a column more": Case(files(a=xy(), b=xy(z=WHOLE)), n_rows=2 * N),
    "C03 another order": Case(files(a=xy(), b=xy().select(["y", "x"])), n_rows=2 * N),
    "C04 another case": Case(
        files(a=xy(), b=xy().rename_columns(["x", "Y"])), ("b.parquet", "Did you mean 'Y'?")
    ),
    "C05 a name twice": Case(
        one(pa.table([WHOLE, WHOLE, WHOLE], names=["x", "y", "y"])), ("a.parquet", "2 times")
    ),
    "C06a exact mixtures": Case(
        files(a=xy(y=WHOLE.astype(np.int32)), b=xy(y=WHOLE)),
        n_rows=2 * N,
        values={"y": np.tile(WHOLE, 2)},
    ),
    "C06b integers that would round": Case(
        files(a=xy(), b=xy(y=WHOLE + 2**53)), ("b.parquet, row group 0, column 'y'", "2^53")
    ),
    "C07 half floats": Case(with_column("y", HALF), values={"y": WHOLE}),
    "C08 text": Case(with_column("y", TEXT), ("a.parquet, column 'y'", "string, not a number")),
    "C09a truth values": Case(
        with_column("y", WHOLE % 2 == 0), ("a.parquet, column 'y'", "bool", "data.cast: [bool]")
    ),
    "C09b truth values, taken for numbers": Case(
        with_column("y", WHOLE % 2 == 0), data={"cast": ["bool"]}, values={"y": WHOLE % 2 == 0}
    ),
    "C10a decimals": Case(
        with_column("y", pa.array(WHOLE).cast(pa.decimal128(25, 2))),
        ("a.parquet, column 'y'", "decimal128", "data.cast: [decimal]"),
    ),
    "C10b decimals, taken for numbers": Case(
        with_column("y", pa.array(WHOLE).cast(pa.decimal128(25, 2))),
        data={"cast": ["decimal"]},
        values={"y": WHOLE},
    ),
    "C10c decimals in one file and null in another": Case(
        files(a=xy(y=pa.array(WHOLE).cast(pa.decimal128(25, 2))), b=xy(y=pa.nulls(N))),
        ("b.parquet, row group 0, column 'y'", "40 nulls", "data.missing"),
        {"cast": ["decimal"]},
    ),
    "C11 times": Case(
        with_column("y", pa.array(WHOLE, pa.timestamp("us"))), ("column 'y'", "timestamp")
    ),
    "C12 lists": Case(
        with_column("y", [[1.0]] * (N - 1) + [[1.0, 2.0]]), ("column 'y'", "different lengths")
    ),
    "C13 a dictionary": Case(
        with_column("y", TEXT.dictionary_encode()), ("column 'y'", "dictionary")
    ),
    "C14 nothing but null": Case(
        with_column("y", pa.nulls(N)), ("data.features", "'y' holds no value")
    ),
}
# D: values
VALUES = {
    "D01a a null": Case(
        with_column("y", [*WHOLE[:-1].tolist(), None]),
        ("a.parquet, row group 0, column 'y'", "1 nulls", "data.missing: drop or em"),
    ),
    "D01b a null, dropped": Case(
        with_column("y", [*WHOLE[:-1].tolist(), None]), data={"missing": "drop"}, n_dropped=1
    ),
    "D01c a null, without statistics": Case(
        with_column("y", [*WHOLE[:-1].tolist(), None], write_statistics=False, row_group_size=25),
        ("a.parquet, row group 1, column 'y', first at row 39", "1 missing"),
    ),
    "D02a NaN": Case(
        with_column("y", floats(np.nan)),
        ("a.parquet, row group 0, column 'y'", "1 missing", "data.missing: drop or em"),
    ),
    "D02b NaN, dropped": Case(
        with_column("y", floats(np.nan, np.nan)), data={"missing": "drop"}, n_dropped=2
    ),
    "D03 infinity": Case(with_column("y", floats(np.inf)), ("column 'y'", "infinite", "Remove")),
    "D04 minus infinity, whatever is dropped": Case(
        with_column("y", floats(-np.inf), write_statistics=False),
        ("a.parquet, row group 0, column 'y'", "1 infinite"),
        {"missing": "drop"},
    ),
    "D05 1e308": Case(
        with_column("y", floats(1e308, -1e308)), ("'y'", "beyond float64"), error=GmmDaskError
    ),
    "D06 subnormal": Case(with_column("y", floats(5e-324)), values={"y": floats(5e-324)}),
    "D07 minus zero": Case(with_column("y", floats(-0.0)), values={"y": floats(-0.0)}),
    "D08 the greatest integer": Case(
        with_column("y", np.full(N, 2**63 - 1)), ("column 'y'", "9223372036854775807", "2^53")
    ),
    "D09a a column without a value": Case(
        with_column("y", pa.nulls(N, pa.float64())), ("column 'y'", "40 nulls")
    ),
    "D09b a column without a value, dropped": Case(
        with_column("y", pa.nulls(N, pa.float64())),
        ("none of the 40 rows can be used", "'y'", "data.features"),
        {"missing": "drop"},
    ),
    "D10 a weight that is negative": Case(
        with_column("w", floats(-1.0)), ("column 'w'", "negative"), {"weight_column": "w"}
    ),
}
# E: sizes
SIZES = {
    "E01 no rows at all": Case(files(a=xy(0), b=xy(0)), ("2 files hold no rows", "data.path")),
    "E02 a file of no rows": Case(files(a=xy(), b=xy(0), c=xy(2)), n_rows=N + 2),
    "E03 row groups of no rows": Case(inputs.empty_row_groups),
    "E04 one row": Case(one(xy(1)), n_rows=1),
    "E05 fewer rows than components": Case(
        one(xy(2)), ("2 usable rows", "3 components", "fit.n_components"), fit={"n_components": 3}
    ),
    "E06 as few rows as components": Case(one(xy(3)), fit={"n_components": 3}, n_rows=3),
    "E07 a row group in many chunks": Case(
        one(xy(50_000)), memory={"chunk_bytes": 1 << 16}, n_rows=50_000
    ),
    "E08 very many row groups": Case(inputs.many_row_groups(10_000), n_rows=10_000),
}
# F: degenerate data
DEGENERATE = {
    "F01 a constant column": Case(
        with_column("y", np.ones(N)), ("'y'", "same"), fit={"reg_covar": 0.0}, error=GmmDaskError
    ),
    "F02 a column twice": Case(
        with_column("y", xy()["x"]),
        ("'x', 'y'",),
        fit={"reg_covar": 0.0, "n_components": 1, "component_policy": "raise"},
        error=GmmDaskError,
    ),
    "F03 all rows equal": Case(
        one(xy(x=np.ones(N), y=np.ones(N))),
        ("'x', 'y'", "same"),
        fit={"reg_covar": 0.0},
        error=GmmDaskError,
    ),
    "F04 fewer different rows than components": Case(
        one(xy(x=WHOLE % 2, y=WHOLE % 2)), fit={"n_components": 4}
    ),
    "F05 collinear columns, with a floor": Case(with_column("y", xy()["x"].to_numpy() * 2 + 1)),
    "F06 an outlier": Case(with_column("y", floats(1e9))),
}
# G: folder keys, which are data and never paths of ours
KEYS = {
    f"G0{i} the key {value[:20]!r}": Case(
        keyed(f"k={name}"), data={"id_columns": ["k"]}, values={"k": [value] * N}
    )
    for i, (name, value) in enumerate(
        {
            "..": "..",
            "%2Fetc%2Fpasswd": "/etc/passwd",
            "%2e%2e%2f%2e%2e": "../..",
            "a\\b": "a\\b",
            "a%00b": "a\0b",
            "a\nb": "a\nb",
            "v" * 250: "v" * 250,
        }.items(),
        start=1,
    )
} | {
    "G08 the key of a missing value": Case(
        keyed("k=__HIVE_DEFAULT_PARTITION__"), data={"id_columns": ["k"]}, values={"k": [None] * N}
    ),
    "G09a a key named like a column": Case(keyed("y=3"), ("y=3/a.parquet", "'y'", "rename")),
    "G09b a key for a feature": Case(
        keyed("k=3"), ("'k' is a folder key",), {"features": ["x", "k"]}
    ),
}
# I: bombs
BOMBS = {
    "I01 zeros that were compressed": Case(
        inputs.zeros, memory={"chunk_bytes": 1 << 22}, n_rows=2_000_000
    ),
    "I02 a long word named by every row": Case(
        inputs.dictionary_bomb, data={"id_columns": ["word"]}
    ),
    "I03 a list of two thousand million": Case(
        spoiled(inputs.long_list_footer), ("a.parquet", "footer is damaged")
    ),
    "I04 very many columns": Case(one(xy(1, **{f"c{i}": [0.0] for i in range(9998)})), n_rows=1),
}
CASES = FILES | SETS | SCHEMAS | VALUES | SIZES | DEGENERATE | KEYS | BOMBS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("name", list(CASES))
def test_input_is_refused_by_its_place_or_read_right(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if case.said:
        with pytest.raises(case.error) as caught:
            run_case(case, tmp_path)
        for word in case.said:
            assert word in str(caught.value), str(caught.value)[:1000]
        assert not isinstance(caught.value, SettingsError)
        assert not (tmp_path / "out" / "versions").exists()
    else:
        check_labels(case, run_case(case, tmp_path))
        check_values(case, tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "out"}  # no path from data


def check_labels(case: Case, published: Published) -> None:
    metrics = published.metrics
    assert (metrics["n_rows"], metrics["n_dropped"]) == (case.n_rows, {"missing": case.n_dropped})
    labels = read_labels(published.folder.store.url).compute(scheduler="sync")
    assert labels["row_id"].tolist() == list(range(case.n_rows))
    dropped = labels["label"] == -1
    assert dropped.sum() == case.n_dropped
    assert (labels["reason"][dropped] == "missing").all()
    assert labels["reason"][~dropped].isna().all()


def check_values(case: Case, folder: Path) -> None:
    roles = {name: case.data[name] for name in ("cast", "id_columns") if name in case.data}
    if not case.values:
        return
    plan = plan_dataset(folder, features=["x", "y"], **roles)
    for name, expected in case.values.items():
        if name in plan.features:
            read = [read_features(each, (name,), "float64")[:, 0] for each in sources(plan)]
            assert np.concatenate(read).tobytes() == np.asarray(expected, float).tobytes()
        else:
            tables = [read_table(each, (name,)) for each in sources(plan)]
            assert pa.concat_tables(tables)[name].to_pylist() == expected
