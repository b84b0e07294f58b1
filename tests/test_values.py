"""One rule for each kind of value, in every form that rows have: a table of forms and kinds.

A value is taken exactly, taken as a missing one, or refused with the name of its column and the
remedy; which of these depends on the kind of the value alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask import GaussianMixture
from gmm_dask.errors import DataError, NotNumbersError
from gmm_dask.kinds import inexact, is_exact
from gmm_dask.storage import plan_dataset
from gmm_dask.storage.input.parquet.reader import read_table
from gmm_dask.storage.input.sources import sources

Rule = Literal["exact", "missing", "refused"]

A = [0.0, 1.0, 2.0, 5.0, 7.0, 3.0]  # the column beside the one that is looked at
DAY = datetime.datetime(2026, 11, 24, 12)


@dataclass(frozen=True)
class Kind:
    """Six values of one kind, and what a form needs to hold them.

    Parameters
    ----------
    rule : Rule
    values : list
        Python objects; of kinds that are refused, only some need be of the kind.
    arrow : Arrow type or None
        None where Arrow has no such values.
    numpy : str or None
        The dtype of NumPy and pandas, where there is one beside object.
    nullable : str or None
        The dtype of pandas that has a missing value.
    told : str
        What the refusal says beside the name of the column.
    """

    rule: Rule
    values: list[Any]
    arrow: pa.DataType | None = None
    numpy: str | None = None
    nullable: str | None = None
    told: str = "not a number. "


NUMBERS = [1.5, -2.25, 0.0, 3.0, 12.5, -7.0]
BIG = [2**53, 2**60, -(2**62), 2**53 + 2, 0, -(2**63)]
FLOATS = [0.1, 1e9, -1e-300, 3.0, 2.5, 1 / 3]
TIMES = [pd.NaT, pd.NaT, pd.Timestamp(DAY), pd.NaT, pd.NaT, pd.NaT]
ROUNDED = "integers up to {}, beyond 2^53. float64 would round them: subtract an offset"
F64, I64, U64 = pa.float64(), pa.int64(), pa.uint64()
KINDS = {
    "float64": Kind("exact", FLOATS, F64, "float64", "Float64"),
    "float32": Kind("exact", NUMBERS, pa.float32(), "float32", "Float32"),
    "float16": Kind("exact", NUMBERS, pa.float16(), "float16"),
    "small integers": Kind("exact", [1, -2, 3, 0, 127, -128], pa.int8(), "int8", "Int8"),
    "unsigned integers": Kind("exact", [1, 2, 3, 0, 2**32 - 1, 5], pa.uint32(), "uint32", "UInt32"),
    "large integers": Kind("exact", BIG, I64, "int64", "Int64"),
    "large unsigned": Kind("exact", [2**63, 2**64 - 2048, 1, 2, 0, 5], U64, "uint64", "UInt64"),
    "large integers that float64 would round": Kind(
        "refused", [1, 2, 3, 2**53 + 1, 5, 6], I64, "int64", "Int64", ROUNDED.format(2**53 + 1)
    ),
    "large unsigned that float64 would round": Kind(
        "refused", [1, 2, 3, 2**64 - 1, 5, 6], U64, "uint64", "UInt64", ROUNDED.format(2**64 - 1)
    ),
    "None": Kind("missing", [1.0, None, 3.0, None, 5.0, 2.0], F64, None, "Float64"),
    "None among integers": Kind("missing", [1, None, 3, None, 5, 2], I64, None, "Int64"),
    "NaN": Kind("missing", [1.0, np.nan, 3.0, 4.0, np.nan, 2.0], F64, "float64", "Float64"),
    "NA": Kind("missing", [pd.NA, 1, 3, 5, pd.NA, 2], None, None, "Int64"),
    "infinity": Kind(
        "refused", [1.0, np.inf, 3.0, 4.0, 5.0, -np.inf], F64, "float64", "Float64", "infinit"
    ),
    "booleans": Kind("refused", [True, False] * 3, pa.bool_(), "bool", "boolean"),
    "booleans with a gap": Kind("refused", [True, None, False] * 2, pa.bool_(), None, "boolean"),
    "decimals": Kind("refused", [Decimal(i) / 4 for i in range(6)], pa.decimal128(9, 2)),
    "times": Kind("refused", [DAY] * 6, pa.timestamp("us"), "datetime64[ns]"),
    "dates": Kind("refused", [DAY.date()] * 6, pa.date32()),
    "NaT": Kind("refused", TIMES, None, "datetime64[ns]"),
    "durations": Kind("refused", [datetime.timedelta(1)] * 6, pa.duration("us"), "timedelta64[ns]"),
    "periods": Kind("refused", [pd.Period("2026-11", "M")] * 6, None, None, "period[M]"),
    "text": Kind("refused", ["a", "b", "c", "d", "e", "f"], pa.string(), "U1", "string"),
    "numbers as text": Kind("refused", ["1", "2", "3.5"] * 2, pa.string(), "U3", "string"),
    "categories": Kind(
        "refused", ["a", "b"] * 3, pa.dictionary(pa.int8(), pa.string()), None, "category"
    ),
    "complex numbers": Kind("refused", [1j, 2.0, 3.0, 4.0, 5.0, 6.0], None, "complex128"),
    "structures": Kind("refused", [{"k": 1.0}] * 6, pa.struct([("k", F64)])),
    "lists of several lengths": Kind("refused", [[1.0], [1.0, 2.0]] * 3, pa.list_(F64), told=""),
    "numbers beside text": Kind("refused", [1.0, 2, "3", 4.0, 5.0, 6.0]),
    "numbers beside dates": Kind("refused", [1.0, 2, pd.NaT, 4.0, 5.0, 6.0]),
    "numbers beside booleans": Kind("refused", [1.0, 2, True, 4.0, 5.0, 6.0]),
    "integers beside floats": Kind("exact", [1, 2.5, 2**60, np.float32(4), np.int8(5), 6.0]),
}


def of_objects(values: list[Any]) -> np.ndarray:
    return np.fromiter(values, dtype=object, count=len(values))


def object_array(kind: Kind) -> np.ndarray:
    return np.column_stack([of_objects(A), of_objects(kind.values)])


def numpy_array(kind: Kind) -> np.ndarray | None:
    """One dtype for both columns."""
    if kind.numpy is None:
        return None
    return np.column_stack([beside(kind.numpy, kind.values), numpy_column(kind.values, kind.numpy)])


def beside(dtype: Any, values: list[Any]) -> np.ndarray:
    """Another column of the dtype, sound where that can be."""
    if np.dtype(dtype).kind in "iuf":
        return np.array(A).astype(dtype)
    return numpy_column(values[::-1], dtype)


def numpy_column(values: list[Any], dtype: Any) -> np.ndarray:
    plain = [np.datetime64("NaT") if value is pd.NaT else value for value in values]
    return of_objects(plain).astype(dtype)


def masked_array(kind: Kind) -> np.ma.MaskedArray | None:
    """A value that is absent is masked, over some other of its kind."""
    present = [value for value in kind.values if value is not None and value is not pd.NA]
    absent = [value is None or value is pd.NA for value in kind.values]
    filled = [
        present[0] if gone else value for gone, value in zip(absent, kind.values, strict=True)
    ]
    if kind.numpy is None and not any(absent):
        return np.ma.masked_array(object_array(kind), False)
    dtype = kind.numpy or np.asarray(filled).dtype
    columns = [beside(dtype, filled), numpy_column(filled, dtype)]
    return np.ma.masked_array(
        np.column_stack(columns), np.column_stack([np.zeros(6, bool), absent])
    )


def nested_lists(kind: Kind) -> list[list[Any]]:
    return [[a, value] for a, value in zip(A, kind.values, strict=True)]


def pandas_of(column: Any) -> pd.DataFrame | None:
    return None if column is None else pd.DataFrame({"a": A, "b": column})


def pandas_numpy(kind: Kind) -> pd.DataFrame | None:
    if kind.numpy is None or kind.numpy.startswith("U"):
        return None
    return pandas_of(numpy_column(kind.values, kind.numpy))


def pandas_nullable(kind: Kind) -> pd.DataFrame | None:
    return kind.nullable and pandas_of(pd.array(kind.values, dtype=kind.nullable))


def pandas_arrow(kind: Kind) -> pd.DataFrame | None:
    column = arrow_column(kind)
    return None if column is None else pandas_of(pd.arrays.ArrowExtensionArray(column))


def pandas_objects(kind: Kind) -> pd.DataFrame:
    return pandas_of(pd.Series(of_objects(kind.values), dtype=object))


def arrow_column(kind: Kind) -> pa.Array | None:
    if kind.arrow is None:
        return None
    if kind.arrow == pa.float16():
        return pa.array(np.array(kind.values, np.float16))
    return pa.array(kind.values, kind.arrow, from_pandas=False)


def arrow_table(kind: Kind) -> pa.Table | None:
    column = arrow_column(kind)
    return None if column is None else pa.table({"a": A, "b": column})


def record_batch(kind: Kind) -> pa.RecordBatch | None:
    table = arrow_table(kind)
    return table and table.to_batches()[0]


def polars_frame(kind: Kind) -> pl.DataFrame | None:
    table = arrow_table(kind)
    return None if table is None else pl.from_arrow(table)


def dask_array(kind: Kind) -> da.Array | None:
    array = numpy_array(kind)
    return None if array is None else da.from_array(array, chunks=(4, 1))


def dask_objects(kind: Kind) -> da.Array:
    return da.from_array(object_array(kind), chunks=(4, 2))


def dask_masked(kind: Kind) -> da.Array:
    return da.from_array(masked_array(kind), chunks=(4, 2))


def dask_of(frame: pd.DataFrame | None) -> dd.DataFrame | None:
    """Each partition as it is: Dask would make text of objects."""
    if frame is None:
        return None
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(lambda at: frame.iloc[at], [slice(0, 4), slice(4, 6)], meta=frame[:0])


def parquet(kind: Kind, folder: Path) -> Path | None:
    table = arrow_table(kind)
    if kind.values == KINDS["periods"].values:
        table = pa.Table.from_pandas(pandas_nullable(kind))
    if table is None:
        return None
    pq.write_table(table, folder / "a.parquet")
    return folder


FORMS: dict[str, Callable[[Kind], Any]] = {
    "NumPy array": numpy_array,
    "masked array": masked_array,
    "object array": object_array,
    "nested lists": nested_lists,
    "pandas, NumPy's types": pandas_numpy,
    "pandas, nullable": pandas_nullable,
    "pandas on Arrow": pandas_arrow,
    "pandas, objects": pandas_objects,
    "Arrow table": arrow_table,
    "Arrow batch": record_batch,
    "Polars": polars_frame,
    "Dask array": dask_array,
    "Dask array of objects": dask_objects,
    "Dask array, masked": dask_masked,
    "Dask DataFrame, NumPy's types": lambda kind: dask_of(pandas_numpy(kind)),
    "Dask DataFrame, nullable": lambda kind: dask_of(pandas_nullable(kind)),
    "Dask DataFrame on Arrow": lambda kind: dask_of(pandas_arrow(kind)),
    "Dask DataFrame, objects": lambda kind: dask_of(pandas_objects(kind)),
}
PATH = "path"
METHODS = ("predict", "impute", "score")  # others go the same ways
ALL_METHODS = (*METHODS, "predict_proba", "score_samples", "bic", "aic", "icl")


def expected_of(kind: Kind) -> np.ndarray:
    return np.array([np.nan if pd.isna(value) else float(value) for value in kind.values])


def has_names(form: str) -> bool:
    return form.startswith(("pandas", "Arrow", "Polars", "Dask DataFrame", PATH))


def computed(value: Any) -> np.ndarray:
    return np.asarray(value.compute(scheduler="sync") if hasattr(value, "compute") else value)


@cache
def model(named: bool) -> GaussianMixture:
    """Fitted to two sound columns."""
    X = np.column_stack([A, A[::-1]])
    return GaussianMixture(1).fit(pd.DataFrame(X, columns=["a", "b"]) if named else X)


def cells() -> list[tuple[str, str]]:
    """Those that exist: not every form can hold every kind."""
    made = [
        (form, name)
        for form, make in FORMS.items()
        for name, kind in KINDS.items()
        if exists(make, kind)
    ]
    return made + [(PATH, name) for name, kind in KINDS.items() if kind.arrow or name == "periods"]


def exists(make: Callable[[Kind], Any], kind: Kind) -> bool:
    return make(kind) is not None


CELLS = cells()


def test_the_table_is_large_enough() -> None:
    assert len(FORMS) + 1 >= 12
    assert len(KINDS) >= 16
    for form in (*FORMS, PATH):
        assert sum(cell[0] == form for cell in CELLS) >= 16, form
    for name in KINDS:
        assert sum(cell[1] == name for cell in CELLS) >= 5, name


@pytest.mark.parametrize(("form", "name"), CELLS)
def test_each_value_is_taken_or_refused_by_its_kind(form: str, name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    X = parquet(kind, tmp_path) if form == PATH else FORMS[form](kind)
    column = "column 'b'" if has_names(form) else "column 1"
    if kind.rule == "refused":
        check_refused(form, X, kind, column)
        return
    fitted = GaussianMixture(1, missing="em", covariance_type="diag").fit(X)
    expected = expected_of(kind)
    there = ~np.isnan(expected)
    assert fitted.means_[0, 1] == pytest.approx(expected[there].mean(), rel=1e-12)
    found = computed(fitted.impute(X))[:, 1]
    np.testing.assert_array_equal(found[there], expected[there])
    if kind.rule == "missing":
        assert found[~there].tolist() == [fitted.means_[0, 1]] * 2
        for call in (GaussianMixture(1).fit, model(has_names(form)).score):
            with pytest.raises(DataError, match=r"Leave|Remove|Fill") as caught:
                call(X)
            assert column in str(caught.value)


def check_refused(form: str, X: Any, kind: Kind, column: str) -> None:
    alike = model(has_names(form))
    calls = [getattr(alike, method) for method in METHODS]
    if form == PATH and "beyond" not in kind.told and kind.told != "infinit":
        assert list(GaussianMixture(1).fit(X).feature_names_in_) == ["a"]
        calls.append(lambda X: plan_dataset(X, features=["a", "b"]))
    else:
        calls.append(GaussianMixture(1).fit)
    for call in calls:
        with pytest.raises(DataError) as caught:
            computed(call(X))
        assert column in str(caught.value) or "every column" in str(caught.value)
        assert kind.told in str(caught.value)


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize(
    "name", ["NaT", "booleans", "decimals", "large integers that float64 would round"]
)
def test_the_rule_is_that_of_every_method(method: str, name: str) -> None:
    kind = KINDS[name]
    for make in (
        object_array,
        pandas_objects,
        dask_objects,
        lambda each: dask_of(pandas_objects(each)),
    ):
        X = make(kind)
        with pytest.raises(NotNumbersError, match=r"column ('b'|1): "):
            computed(getattr(model(not isinstance(X, np.ndarray | da.Array)), method)(X))


WEIGHTS: dict[str, Callable[[Kind], Any]] = {
    "list": lambda kind: kind.values,
    "array of objects": lambda kind: of_objects(kind.values),
    "NumPy": lambda kind: kind.numpy and numpy_column(kind.values, kind.numpy),
    "pandas": lambda kind: pandas_objects(kind)["b"],
    "pandas, nullable": lambda kind: kind.nullable and pandas_nullable(kind)["b"],
    "Arrow": arrow_column,
    "Polars": lambda kind: None if kind.arrow is None else polars_frame(kind)["b"],
    "Dask array": lambda kind: da.from_array(of_objects(kind.values), chunks=4),
    "Dask Series": lambda kind: dask_of(pandas_objects(kind))["b"],
}


@pytest.mark.parametrize("form", list(WEIGHTS))
@pytest.mark.parametrize("name", list(KINDS))
def test_weights_are_values_of_the_same_rule(form: str, name: str) -> None:
    kind = KINDS[name]
    weight = WEIGHTS[form](kind)
    X = np.column_stack([A, A[::-1]])
    X = da.from_array(X, chunks=(4, 2)) if form.startswith("Dask") else X
    if weight is None:
        return
    sound, expected = model(named=False), expected_of(kind) if kind.rule == "exact" else None
    if expected is not None and (expected >= 0).all():
        density = sound.score_samples(np.column_stack([A, A[::-1]]))
        found = sound.score(X, sample_weight=weight)
        assert found == pytest.approx(np.average(density, weights=expected), rel=1e-12)
        return
    is_refused = kind.rule == "refused" and name != "infinity"
    for call in (GaussianMixture(1).fit, sound.score):
        with pytest.raises(DataError, match="sample_weight: " if is_refused else "negative, miss"):
            call(X, sample_weight=weight)


def test_what_is_stored_as_numbers_but_is_none_is_refused(tmp_path: Path) -> None:
    """As the periods of pandas are to who has not imported it."""
    metadata = {b"ARROW:extension:name": b"acme.hash", b"ARROW:extension:metadata": b""}
    schema = pa.schema([("a", pa.float64()), pa.field("b", pa.int64(), metadata=metadata)])
    table = pa.table([A, [1, 2, 3, 4, 5, 6]], schema=schema)
    pq.write_table(table, tmp_path / "a.parquet")
    told = r"column 'b': is extension<.*acme\.hash.*>, not a number"
    for X in (table, table.to_batches()[0], tmp_path):
        with pytest.raises(DataError, match=told):
            model(named=True).predict(X)
    assert plan_dataset(tmp_path).features == ("a",)
    kept = plan_dataset(tmp_path, features=["a"], keep=["b"])
    assert read_table(sources(kept)[0], ["b"])["b"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_categories_of_numbers_are_categories_in_files_as_well(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": A, "b": pd.Categorical([3, 1, 2, 3, 1, 2])})
    frame.to_parquet(tmp_path / "a.parquet")
    read = pq.read_table(tmp_path / "a.parquet")
    assert read.schema.field("b").type == pa.int64()  # but for the note of pandas
    for X in (frame, read, tmp_path):
        with pytest.raises(DataError, match=r"column 'b': is (category|dictionary<.*>), not a num"):
            model(named=True).predict(X)
    plan = plan_dataset(tmp_path, keep=["b"])
    assert plan.features == ("a",)
    assert read_table(sources(plan)[0], ["b"])["b"].to_pylist() == [3, 1, 2, 3, 1, 2]


@given(st.data())
def test_an_integer_is_refused_where_float64_would_round_it_and_only_there(
    data: st.DataObject,
) -> None:
    dtype = data.draw(st.sampled_from([np.int64, np.uint64]))
    info = np.iinfo(dtype)
    exact = st.integers(0, 2**53).flatmap(lambda n: st.integers(0, 11).map(lambda k: n << k))
    any_integer = st.one_of(st.integers(info.min, info.max), exact, exact.map(lambda n: -n))
    drawn = st.lists(any_integer.filter(lambda n: info.min <= n <= info.max), min_size=1)
    values = data.draw(drawn)
    rounded = [value for value in values if Fraction(float(value)) != value]
    found = inexact(np.array(values, dtype=dtype))
    assert (found is None) == (not rounded)
    if found is not None:
        assert abs(found) == max(map(abs, rounded))
    assert [value for value in values if not is_exact(value)] == rounded
