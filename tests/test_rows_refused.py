"""Rows and weights that cannot be used are refused, in whatever form they come."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

from gmm_dask import GaussianMixture
from gmm_dask.errors import DataError
from tests.test_rows import (
    COMPLETE,
    CRITERIA,
    LAZY,
    METHODS,
    ROWS,
    WEIGHT,
    complete,
    computed,
    fitted,
    frame,
    in_parts,
    of_unknown_length,
    with_gaps,
)

UNUSABLE = {
    "one axis": (lambda: da.ones(10), "two axes"),
    "a series": (lambda: in_parts(frame(ROWS))["a"], "two axes"),
    "unknown columns": (lambda: (X := da.from_array(ROWS))[:, X[0] > 0], "compute_chunk_sizes"),
    "no columns": (lambda: da.zeros((10, 0)), "features?"),
    "some columns without a name": (
        lambda: in_parts(frame(ROWS).set_axis(["a", "b", 0, 1], axis=1)), "string names"
    ),
    "delayed": (lambda: dask.delayed(ROWS), "make it a Dask array or DataFrame"),
    "a bag": (lambda: dask.bag.from_sequence(ROWS.tolist()), "make it a Dask array or DataFrame"),
    "sparse blocks": (lambda: da.from_array(ROWS).map_blocks(csr_array), "csr_array.*map_blocks"),
    "no such path": (lambda: "no/such/path", "does not exist"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:X .* feature names")
@pytest.mark.parametrize("name", ["fit", *METHODS, *CRITERIA])
@pytest.mark.parametrize("what", list(UNUSABLE))
def test_rows_that_are_no_table_of_numbers_are_refused(what: str, name: str) -> None:
    make, told = UNUSABLE[what]
    model = GaussianMixture(2) if name == "fit" else complete()
    with pytest.raises(DataError, match=told):
        getattr(model, name)(make())


@pytest.mark.parametrize(("bad", "what"), [(np.nan, "missing values"), (np.inf, "infinity")])
@pytest.mark.parametrize("form", ["numpy", "pandas", *LAZY])
def test_values_that_cannot_be_used_are_named(form: str, bad: float, what: str) -> None:
    X = ROWS.copy()
    X[70, 2] = bad
    model, X = fitted(form)[0], COMPLETE[form](X)
    for name in (*METHODS[:3], *(["impute"] if bad == np.inf else []), *CRITERIA):
        with pytest.raises(DataError, match=f"{what}.*Remove or replace"):
            computed(getattr(model, name)(X))
    with pytest.raises(DataError, match=f"{what}.*Remove or replace"):
        GaussianMixture(3).fit(X)


def with_first(value: float) -> np.ndarray:
    return np.concatenate([[value], WEIGHT[1:]])


BAD_WEIGHTS = {
    "negative": (with_first(-1), r"negative, missing \(NaN\) or infinite"),
    "NaN": (with_first(np.nan), r"negative, missing \(NaN\) or infinite"),
    "infinite": (with_first(np.inf), r"negative, missing \(NaN\) or infinite"),
    "masked": (np.ma.masked_equal(WEIGHT, WEIGHT[0]), r"negative, missing \(NaN\) or infinite"),
    "all zero": (WEIGHT * 0, "weights (are|sum to) zero"),
    "too few": (WEIGHT[1:], "one value for each"),
    "of two axes": (WEIGHT[:, None], r"shape \(150, 1\)|one axis"),
    "complex": (WEIGHT * 1j, "sample_weight: is complex128, not a number"),
    "strings": (np.array(["1"] * 149 + ["a"]), "sample_weight: is <U1, not a number"),
    "times": (WEIGHT.astype("datetime64[s]"), "sample_weight: is datetime64"),
}


@pytest.mark.parametrize("missing", ["error", "em", "drop"])
@pytest.mark.parametrize("form", ["numpy", "dask"])
@pytest.mark.parametrize("what", list(BAD_WEIGHTS))
def test_weights_that_cannot_be_used_are_refused(what: str, form: str, missing: Any) -> None:
    weight, told = BAD_WEIGHTS[what]
    X = ROWS
    if form == "dask":
        X, weight = da.from_array(X, chunks=(40, 4)), da.from_array(weight, chunks=40)
    for name in ("fit", *CRITERIA):
        model = GaussianMixture(3, missing=missing) if name == "fit" else with_gaps(missing)
        with pytest.raises(DataError, match=told):
            getattr(model, name)(X, sample_weight=weight)


def test_weights_that_cannot_be_paired_with_the_rows_are_refused() -> None:
    model, X = complete(), da.from_array(ROWS, chunks=(40, 4))
    with pytest.raises(DataError, match="one value for each row"):
        model.score(X, sample_weight=da.ones(151, chunks=50))
    with pytest.raises(DataError, match="give Dask weights"):
        model.score(of_unknown_length(X), sample_weight=WEIGHT)
    with pytest.raises(DataError, match="weights were given for"):
        model.score(X[X[:, 0] > 60], sample_weight=da.ones(150, chunks=40))
    with pytest.raises(DataError, match="make it a Dask array"):
        model.score(X, sample_weight=dask.delayed(WEIGHT))
    with pytest.raises(DataError, match="weight_column"):
        GaussianMixture(2).fit("examples/iris", sample_weight=np.ones(150))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("form", "word"), [("frame", "partition"), ("array", "block")])
def test_bad_values_of_dask_rows_are_named_by_column_and_part(
    form: str, word: str, weighted: bool
) -> None:
    fitted = GaussianMixture(2, random_state=0).fit(frame(ROWS) if form == "frame" else ROWS)
    bad = frame(ROWS)
    bad.iloc[60, 1], bad.iloc[140, 2] = np.nan, np.inf
    X = in_parts(bad) if form == "frame" else da.from_array(bad.to_numpy(), chunks=(50, 4))
    b, c = ("'b'", "'c'") if form == "frame" else (1, 2)
    weights = da.ones(150, chunks=50) if weighted else None
    both = rf"\(NaN\) in column {b} \({word} 1\) and infinity in column {c} \({word} 2\)"
    with pytest.raises(DataError, match=both):
        GaussianMixture(2).fit(X, sample_weight=weights)
    either = rf"in column ({b}|{c}) \({word} [12]\)"
    with pytest.raises(DataError, match=either):
        fitted.score(X, sample_weight=weights)
    with pytest.raises(DataError, match=either):
        fitted.predict(X).compute()
    assert len(fitted.predict(X.partitions[0] if form == "frame" else X[:50]).compute()) == 50


def test_of_many_parts_with_bad_values_the_first_are_named() -> None:
    X = dd.from_pandas(frame(np.full((40, 4), np.nan)), npartitions=20)
    named = r"\(partition 0, partition 1, .* and 15 more\)"
    with pytest.raises(DataError, match=named):
        GaussianMixture(2).fit(X)


def of_lists(plain: str) -> pa.Table:
    """A column of lists of two, and beside it one of numbers."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ROWS[:, :2].ravel()), 2)
    return pa.table({"emb": lists, plain: ROWS[:, 2]})


def unconverted(data: pd.DataFrame) -> dd.DataFrame:
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_pandas(data, npartitions=2)


def on_arrow(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def loose(table: pa.Table) -> pa.Table:
    return table.set_column(0, "emb", table.column("emb").cast(pa.list_(pa.float64())))


OF_LISTS = {
    "Arrow": lambda table: table,
    "Arrow, loose": loose,
    "Polars": lambda table: pl.from_arrow(table),
    "Polars, loose": lambda table: pl.from_arrow(loose(table)),
    "pandas": lambda table: table.to_pandas(),
    "pandas, lists": lambda table: table.to_pandas().assign(emb=ROWS[:, :2].tolist()),
    "pandas on Arrow": on_arrow,
    "pandas on Arrow, loose": lambda table: on_arrow(loose(table)),
    "Dask": lambda table: unconverted(table.to_pandas()),
    "Dask on Arrow": lambda table: dd.from_pandas(on_arrow(table), npartitions=2),
    "Dask on Arrow, loose": lambda table: dd.from_pandas(on_arrow(loose(table)), npartitions=2),
}


@pytest.mark.parametrize("form", list(OF_LISTS))
def test_a_column_that_is_named_like_an_element_of_lists_is_refused(form: str) -> None:
    X = OF_LISTS[form](of_lists("c"))
    fitted = GaussianMixture(2, random_state=0).fit(X)
    assert list(fitted.feature_names_in_) == ["emb[0]", "emb[1]", "c"]
    named = r"column 'emb\[1\]': there are two of this name, one an element of the lists of 'emb'"
    alike = OF_LISTS[form](of_lists("emb[1]"))
    with pytest.raises(DataError, match=named):
        GaussianMixture(2).fit(alike)
    with pytest.raises(DataError, match=named):
        np.asarray(fitted.predict(alike))


PLAIN = {
    "pandas": lambda data: data,
    "Arrow": pa.Table.from_pandas,
    "Polars": lambda data: pl.from_pandas(data),
    "Dask": lambda data: dd.from_pandas(data, npartitions=2),
}


@pytest.mark.parametrize("form", list(PLAIN))
def test_plain_columns_may_have_such_names_where_there_are_no_lists(form: str) -> None:
    data = pd.DataFrame(ROWS[:, :3], columns=["emb", "emb[0]", "emb[1]"])
    fitted = GaussianMixture(2, random_state=0).fit(data)
    assert np.array_equal(np.asarray(fitted.predict(PLAIN[form](data))), fitted.predict(data))


@pytest.mark.parametrize("rest", [[], [1.0, 2.0]])
@pytest.mark.parametrize("form", ["pandas", "Dask", "Arrow", "Dask on Arrow"])
def test_lists_that_begin_with_an_empty_one_are_refused_by_column(
    form: str, rest: list[float]
) -> None:
    table = pa.table({"emb": pa.array([[]] + [rest] * 19, pa.list_(pa.float64())), "y": range(20)})
    with pytest.raises(DataError, match="column 'emb': "):
        GaussianMixture(2).fit(OF_LISTS[form](table))


@pytest.mark.parametrize("make", [list, tuple, np.asarray])
def test_lists_that_dask_made_text_of_are_called_lists(make: Any) -> None:
    data = pd.DataFrame({"emb": [make(row) for row in ROWS[:, :2].tolist()], "y": ROWS[:, 2]})
    with pytest.raises(DataError, match=r"column 'emb': holds lists, .*convert-string"):
        GaussianMixture(2).fit(dd.from_pandas(data, npartitions=2))
    assert GaussianMixture(2).fit(unconverted(data)).n_features_in_ == 3


def test_text_is_not_called_lists() -> None:
    for text in ("a", "[a]", "(1) one", "", "1, 2"):
        data = pd.DataFrame({"emb": [text] * 9, "y": ROWS[:9, 2]})
        with pytest.raises(DataError, match="column 'emb': is string, not a number"):
            GaussianMixture(2).fit(dd.from_pandas(data, npartitions=2))
