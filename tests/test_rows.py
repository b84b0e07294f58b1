"""Rows in every form give the same model, and predictions come back in the form of the rows."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask._task_spec import DataNode
from dask.dataframe.utils import assert_eq
from distributed import Client, get_worker
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from gmm_dask import GaussianMixture
from gmm_dask.errors import ClusterError, DataError, GmmDaskError
from gmm_dask.estimator.rows.user_rows import checked_chunks
from gmm_dask.mixture import Parameters

NAMES = list("abcd")
ROWS = np.round(load_iris().data * 10)  # whole numbers: the same in every numeric type
GAPS = ROWS.copy()
GAPS[::9, 0] = GAPS[4::9, 1:3] = GAPS[7] = np.nan
METHODS = ("predict", "predict_proba", "score_samples", "impute")
CRITERIA = ("score", "bic", "aic", "icl")


def frame(X: np.ndarray, dtype: Any = np.float64) -> pd.DataFrame:
    """With an index that is no range."""
    index = pd.Index(np.arange(len(X)) * 3 + 5, name="id")
    return pd.DataFrame(X, columns=NAMES, index=index).astype(dtype)


def of_unknown_length(X: da.Array) -> da.Array:
    return X[da.ones(len(X), chunks=X.chunks[0], dtype=bool)]


def masked(X: np.ndarray, dtype: Any) -> np.ma.MaskedArray:
    return np.ma.masked_array(np.nan_to_num(X).astype(dtype), np.isnan(X))


def in_parts(data: pd.DataFrame) -> dd.DataFrame:
    return dd.from_pandas(data, npartitions=3)


WITH_GAPS = {
    "numpy": lambda X: X,
    "numpy float32": lambda X: X.astype(np.float32),
    "numpy in Fortran's order": np.asfortranarray,
    "numpy not contiguous": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "numpy masked": lambda X: masked(X, np.float64),
    "numpy masked integers": lambda X: masked(X, np.int64),
    "list": lambda X: X.tolist(),
    "pandas": frame,
    "pandas Float64": lambda X: frame(X, "Float64"),
    "pandas Int64": lambda X: frame(X, "Int64"),
    "pandas on Arrow": lambda X: frame(X, "double[pyarrow]"),
    "arrow table": lambda X: pa.Table.from_pandas(frame(X, "Int64"), preserve_index=False),
    "arrow batch": lambda X: pa.RecordBatch.from_pandas(frame(X), preserve_index=False),
    "dask array": lambda X: da.from_array(X, chunks=(40, 4)),
    "dask array float32": lambda X: da.from_array(X.astype(np.float32), chunks=(40, 4)),
    "dask array of cut columns": lambda X: da.from_array(X, chunks=((1, 99, 0, 50), (1, 3))),
    "dask array of unknown length": lambda X: of_unknown_length(da.from_array(X, chunks=(40, 2))),
    "dask array masked": lambda X: da.from_array(masked(X, np.float32), chunks=(40, 4)),
    "dask array masked integers": lambda X: da.from_array(masked(X, np.int64), chunks=(40, 2)),
    "dask dataframe": lambda X: in_parts(frame(X)),
    "dask dataframe of unknown divisions": lambda X: in_parts(frame(X)).clear_divisions(),
    "dask dataframe Float64": lambda X: in_parts(frame(X, "Float64")),
    "dask dataframe Int64": lambda X: in_parts(frame(X, "Int64")),
    "dask dataframe of mixed types": lambda X: in_parts(frame(X).astype({"a": "Int64"})),
}
COMPLETE = WITH_GAPS | {
    "numpy integers": lambda X: X.astype(np.int8),
    "dask array of integers": lambda X: da.from_array(X.astype(np.int64), chunks=(40, 2)),
    "dask dataframe of integers": lambda X: in_parts(frame(X, np.int32)),
}
LAZY = ["dask array", "dask array of unknown length", "dask dataframe"]


def computed(value: Any) -> np.ndarray:
    return np.asarray(value.compute(scheduler="sync") if hasattr(value, "compute") else value)


def model_of(X: Any, **parameters: Any) -> GaussianMixture:
    return GaussianMixture(3, random_state=0, tol=0.05, **parameters).fit(X)


@cache
def complete() -> GaussianMixture:
    return model_of(ROWS)


@cache
def with_gaps(missing: Any) -> GaussianMixture:
    return complete() if missing == "error" else model_of(GAPS, missing=missing)


@cache
def fitted(form: str) -> tuple[GaussianMixture, Any]:
    """A model and the rows of this form that it was fitted to."""
    X = COMPLETE[form](ROWS)
    return model_of(X), X


def assert_same(model: GaussianMixture, X: Any, reference: GaussianMixture, plain: Any) -> None:
    np.testing.assert_allclose(model.means_, reference.means_, rtol=1e-9)
    np.testing.assert_allclose(model.covariances_, reference.covariances_, rtol=1e-8, atol=1e-8)
    for name in METHODS:
        found, expected = computed(getattr(model, name)(X)), getattr(reference, name)(plain)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9, err_msg=name)
    for name in CRITERIA:
        expected = getattr(reference, name)(plain)
        assert getattr(model, name)(X) == pytest.approx(expected, rel=1e-9), name


@pytest.mark.parametrize("form", list(COMPLETE))
def test_every_form_gives_the_same_model_and_predictions(form: str) -> None:
    model, X = fitted(form)
    assert_same(model, X, complete(), ROWS)


@pytest.mark.parametrize("missing", ["em", "drop"])
@pytest.mark.parametrize("form", list(WITH_GAPS))
def test_every_form_of_a_missing_value_gives_the_same_model(form: str, missing: Any) -> None:
    X = WITH_GAPS[form](GAPS)
    assert_same(model_of(X, missing=missing), X, with_gaps(missing), GAPS)
    with pytest.raises(DataError, match=r"missing values \(NaN\).*missing to 'em' or 'drop'"):
        GaussianMixture(3).fit(X)


@pytest.mark.filterwarnings("ignore::gmm_dask.errors.FeatureWarning")
def test_a_path_stands_for_its_numeric_columns() -> None:
    data = pd.read_parquet("examples/iris").select_dtypes("number")
    model, reference = model_of("examples/iris"), model_of(data)
    assert list(model.feature_names_in_) == list(data.columns)
    assert all(isinstance(getattr(model, name)("examples/iris"), da.Array) for name in METHODS)
    assert_same(model, "examples/iris", reference, data)
    some = model_of(data[["petal_length", "petal_width"]])
    np.testing.assert_array_equal(
        computed(some.predict("examples/iris")), some.predict(data[["petal_length", "petal_width"]])
    )
    with pytest.raises(DataError, match="expecting 4 features"):
        model_of(ROWS).predict("examples/iris")


def test_a_path_without_rows_has_no_predictions(tmp_path: Path) -> None:
    pd.DataFrame(ROWS, columns=NAMES)[:0].to_parquet(tmp_path / "a.parquet")
    model = model_of(frame(ROWS))
    for name, shape in zip(METHODS, [(0,), (0, 3), (0,), (0, 4)], strict=True):
        assert computed(getattr(model, name)(tmp_path)).shape == shape
    with pytest.raises(DataError, match="nothing to evaluate"):
        model.score(tmp_path)
    with pytest.raises(DataError, match="holds no rows"):
        GaussianMixture(2).fit(tmp_path)


@pytest.mark.parametrize("form", list(COMPLETE))
def test_predictions_have_the_form_of_the_rows(form: str) -> None:
    model, X = fitted(form)
    for name in METHODS:
        found = getattr(model, name)(X)
        if isinstance(X, da.Array):
            columns = () if found.ndim == 1 else ((found.shape[1],),)
            np.testing.assert_array_equal(found.chunks[0], X.chunks[0])
            assert found.chunks[1:] == columns
            assert found.dtype == found.compute(scheduler="sync").dtype
        elif isinstance(X, dd.DataFrame):
            assert isinstance(found, dd.Series if found.ndim == 1 else dd.DataFrame)
            assert found.divisions == X.divisions
            whole, rows = found.compute(scheduler="sync"), X.compute(scheduler="sync")
            pd.testing.assert_index_equal(whole.index, rows.index)
            parts = [len(part.compute(scheduler="sync")) for part in found.partitions]
            assert parts == [len(part.compute(scheduler="sync")) for part in X.partitions]
            assert_eq(found, whole, scheduler="sync")  # as its metadata promised
        else:
            assert type(found) is np.ndarray
            assert len(found) == 150


def test_frames_of_probabilities_and_of_imputed_rows_name_their_columns() -> None:
    X = in_parts(frame(GAPS))
    model = model_of(X, missing="em")
    assert list(model.predict_proba(X).columns) == [0, 1, 2]
    assert list(model.impute(X).columns) == NAMES
    X = in_parts(frame(GAPS).set_axis([10, 20, 30, 40], axis=1))
    assert list(model_of(X, missing="em").impute(X).columns) == [10, 20, 30, 40]


def test_imputed_rows_are_a_copy() -> None:
    X = ROWS.copy()
    model_of(X).impute(X)[:] = 0
    np.testing.assert_array_equal(X, ROWS)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", LAZY)
def test_nothing_is_computed_before_compute_and_then_once(form: str, name: str) -> None:
    seen: list[int] = []

    def look(part: Any) -> Any:
        seen.append(part.size)
        return part

    model, X = fitted(form)
    if isinstance(X, dd.DataFrame):
        X = X.map_partitions(look, meta=X._meta)
    else:
        X = X.map_blocks(look, meta=np.empty((0, 4)))
    found = getattr(model, name)(X)
    assert seen == []
    found.compute(scheduler="sync")
    assert sum(seen) == ROWS.size


@pytest.mark.parametrize("form", LAZY)
def test_the_parameters_are_in_the_graph_once(form: str) -> None:
    model, X = fitted(form)
    for name in METHODS:
        graph = dict(getattr(model, name)(X).__dask_graph__())
        nodes = [node.value for node in graph.values() if isinstance(node, DataNode)]
        args = [a for node in graph.values() for a in getattr(node, "args", ())]
        assert sum(isinstance(value, Parameters) for value in (*nodes, *args)) == 1


def test_names_are_kept_checked_and_forgotten() -> None:
    named, plain = in_parts(frame(ROWS)), da.from_array(ROWS, chunks=40)
    numbered = in_parts(frame(ROWS).set_axis(range(4), axis=1))
    model = model_of(named)
    assert list(model.feature_names_in_) == NAMES
    with pytest.raises(DataError, match="expecting 4 features"):
        model.predict(named[NAMES[:3]])
    for X in (named, frame(ROWS)):
        with pytest.raises(ValueError, match=r"(?s)unseen at fit time:\n- z\n.*missing:\n- a\n"):
            model.predict(X.rename(columns={"a": "z"}))
    for other in (plain, numbered):
        with pytest.warns(UserWarning, match="valid feature names"):
            model.predict(other)
        assert not hasattr(model_of(named).fit(other), "feature_names_in_")
    with pytest.warns(UserWarning, match="fitted without feature names"):
        model_of(plain).predict(named)
    assert list(model.fit(named.rename(columns={"a": "z"})).feature_names_in_) == list("zbcd")


@pytest.mark.parametrize("form", [f for f in COMPLETE if f.startswith("dask")])
def test_no_rows_have_no_predictions_and_no_score(form: str) -> None:
    X = COMPLETE[form](ROWS)
    model = model_of(X, missing="em")
    none = X[X["a"] > 1e9] if isinstance(X, dd.DataFrame) else X[X[:, 0] > 1e9]
    for name, shape in zip(METHODS, [(0,), (0, 3), (0,), (0, 4)], strict=True):
        assert computed(getattr(model, name)(none)).shape == shape
    for name in CRITERIA:
        with pytest.raises(DataError, match="nothing to evaluate"):
            getattr(model, name)(none)
    with pytest.raises(DataError, match="n_components = 3, n_samples = 0"):
        GaussianMixture(3).fit(none)


WEIGHT = np.random.default_rng(1).integers(0, 4, 150)
WEIGHTS = {
    "numpy": lambda w: w,
    "list": lambda w: w.tolist(),
    "pandas": pd.Series,
    "pandas of another index": lambda w: pd.Series(w, index=range(1000, 1150)),
    "pandas Int64": lambda w: pd.Series(w).astype("Int64"),
    "arrow": pa.array,
    "dask array": lambda w: da.from_array(w, chunks=40),
    "dask array of other chunks": lambda w: da.from_array(w.astype(np.float32), chunks=33),
    "dask series": lambda w: dd.from_pandas(pd.Series(w), npartitions=3),
    "dask series Float64": lambda w: dd.from_pandas(pd.Series(w).astype("Float64"), npartitions=3),
}


@pytest.mark.parametrize("form", list(WEIGHTS))
def test_every_form_of_the_weights_gives_the_same_model(form: str) -> None:
    weight, expected = WEIGHTS[form](WEIGHT), GaussianMixture(3, tol=0.05, random_state=0)
    expected.fit(ROWS, sample_weight=WEIGHT)
    for rows in ("numpy", "dask dataframe" if "series" in form else "dask array"):
        X = COMPLETE[rows](ROWS)
        model = clone(expected).fit(X, sample_weight=weight)
        np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-9)
        for name in CRITERIA:
            found = getattr(model, name)(X, sample_weight=weight)
            known = getattr(expected, name)(ROWS, sample_weight=WEIGHT)
            assert found == pytest.approx(known, rel=1e-9), name


def test_the_client_that_is_open_works_on_lazy_rows_to_the_same_bits() -> None:
    def look(part: Any) -> Any:
        get_worker()  # an error in any other process or thread
        return part

    X = da.from_array(ROWS, chunks=(40, 4))
    alone = model_of(X)
    labels, density = alone.predict(X).compute(), alone.score(X)
    with Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0"):
        looked_at = X.map_blocks(look, meta=X._meta)
        model = model_of(looked_at)
        np.testing.assert_array_equal(model.means_, alone.means_)
        np.testing.assert_array_equal(model.predict(looked_at).compute(), labels)
        assert model.score(looked_at) == density
        assert model.score(ROWS, sample_weight=da.ones(150)) == pytest.approx(density)


def test_an_asynchronous_client_is_refused_by_name() -> None:
    model, X = model_of(ROWS), da.from_array(ROWS, chunks=(40, 4))

    async def tried() -> None:
        async with Client(processes=False, asynchronous=True, dashboard_address="127.0.0.1:0"):
            for call in (
                lambda: GaussianMixture(2).fit(X),
                lambda: model.score(X),
                lambda: model.icl(X),
                lambda: model.score(ROWS, sample_weight=da.ones(150)),
            ):
                with pytest.raises(ClusterError, match="asynchronous=False"):
                    call()
            assert model.fit(ROWS).predict(X).chunks == (X.chunks[0],)  # needs no client

    asyncio.run(tried())


@pytest.mark.parametrize("name", [*METHODS, *CRITERIA])
def test_an_unfitted_mixture_says_so(name: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(GaussianMixture(), name)(da.from_array(ROWS))


def test_errors_of_the_rows_are_value_errors_too() -> None:
    assert issubclass(DataError, ValueError)
    assert issubclass(DataError, GmmDaskError)


def test_a_feature_without_any_value_cannot_be_learnt() -> None:
    X = load_iris().data.copy()
    X[:, 2] = np.nan
    with pytest.raises(DataError, match="no value in any row that counts in column 2"):
        GaussianMixture(2, missing="em").fit(X)


# Where in a Dask collection


# Columns of lists


@pytest.mark.parametrize(("d", "least"), [(8, 50_000), (500, 1_400)])
def test_chunks_of_rows_in_memory_have_more_rows_than_columns(d: int, least: int) -> None:
    """Else more is done with the sums of a chunk, which are matrices, than with its rows."""
    X = np.broadcast_to(0.0, (9 * least, d))
    chunks = checked_chunks(GaussianMixture(), X, None, "error", reset=False)
    lengths = [n for unit in chunks.units for n in unit.lengths]
    assert min(lengths) >= least
