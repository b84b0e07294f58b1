"""One rule for each kind of value, in every form that rows have: a table of forms and kinds.

A value is taken exactly, taken as a missing one, or refused with the name of its column and the
remedy; which of these depends on the kind of the value alone.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
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
from tests.value_forms import (
    FORMS,
    KINDS,
    A,
    Kind,
    arrow_column,
    dask_objects,
    dask_of,
    numpy_column,
    object_array,
    of_objects,
    pandas_nullable,
    pandas_objects,
    parquet,
    polars_frame,
)

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
