"""What has names goes by them, partition by partition; a column of lists is a vector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask import GaussianMixture, GaussianMixtureSelector
from gmm_dask.errors import DataError, NotNumbersError

NAMES = ["a", "b", "c"]
X = np.random.default_rng(0).normal(size=(60, 3)) * [1, 2, 3] + [0, 10, -20]
X[::2] += [9, -9, 5]
GAPS = X.copy()
GAPS[3, 1] = GAPS[7, 0] = GAPS[40, 2] = np.nan
WHOLE = np.nan_to_num(GAPS, nan=3.5)
FRAME = pd.DataFrame(GAPS, columns=NAMES)


def computed(value: Any) -> np.ndarray:
    return np.asarray(value.compute(scheduler="sync") if hasattr(value, "compute") else value)


def of_parts(*parts: Any, meta: pd.DataFrame = FRAME[:0]) -> dd.DataFrame:
    """A Dask DataFrame whose partitions are as given, whatever its metadata say."""
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(lambda i: parts[i], range(len(parts)), meta=meta)


def written(frame: pd.DataFrame, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "a.parquet")
    return folder


FORMS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "pandas": lambda frame, _: frame,
    "pandas on Arrow": lambda frame, _: frame.astype("double[pyarrow]"),
    "Arrow table": lambda frame, _: pa.Table.from_pandas(frame, preserve_index=False),
    "Arrow batch": lambda frame, _: pa.RecordBatch.from_pandas(frame, preserve_index=False),
    "Polars": lambda frame, _: pl.from_pandas(frame, nan_to_null=True),
    "Dask DataFrame": lambda frame, _: of_parts(frame[:25], frame[25:], meta=frame[:0]),
    "path": written,
    "list of paths": lambda frame, folder: [written(frame, folder)],
}
METHODS = ("predict", "predict_proba", "score_samples", "impute")


@pytest.fixture(scope="module")
def fitted() -> GaussianMixture:
    return GaussianMixture(2, random_state=0, missing="em").fit(FRAME)


@pytest.mark.parametrize("form", list(FORMS))
def test_columns_in_another_order_are_the_same_rows(
    form: str, fitted: GaussianMixture, tmp_path: Path
) -> None:
    given_rows = FORMS[form](FRAME[["c", "a", "b"]], tmp_path)
    for method in METHODS:
        expected = computed(getattr(fitted, method)(FRAME))
        if method == "impute" and "path" not in form:
            expected = expected[:, [2, 0, 1]]  # each value where it was
        found = computed(getattr(fitted, method)(given_rows))
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=method)
    assert fitted.score(given_rows) == pytest.approx(fitted.score(FRAME), rel=1e-12)


@pytest.mark.parametrize("form", list(FORMS))
def test_other_columns_are_named(form: str, fitted: GaussianMixture, tmp_path: Path) -> None:
    other = FORMS[form](FRAME.rename(columns={"b": "z"}), tmp_path)
    for method in (*METHODS, "score"):
        with pytest.raises(ValueError, match=r"'b'|- b"):
            getattr(fitted, method)(other)


@settings(max_examples=30)
@given(orders=st.lists(st.permutations(NAMES), min_size=1, max_size=4), data=st.data())
def test_partitions_are_read_by_their_names(orders: list[list[str]], data: st.DataObject) -> None:
    cuts = data.draw(
        st.lists(st.integers(0, 60), min_size=len(orders) - 1, max_size=len(orders) - 1)
    )
    edges = [0, *sorted(cuts), 60]
    parts = [FRAME[edges[i] : edges[i + 1]][order] for i, order in enumerate(orders)]
    lazy = of_parts(*parts, meta=FRAME[:0][data.draw(st.permutations(NAMES))])
    whole = pd.concat(parts)[NAMES]
    model = GaussianMixture(1, missing="em", covariance_type="diag").fit(lazy)
    means = dict(zip(model.feature_names_in_, model.means_[0], strict=True))
    assert [means[name] for name in NAMES] == pytest.approx(whole.mean().tolist(), rel=1e-9)
    imputed = model.impute(lazy).compute(scheduler="sync")
    assert list(imputed.columns) == list(lazy.columns)
    there = whole.notna().to_numpy()
    np.testing.assert_array_equal(imputed[NAMES].to_numpy()[there], whole.to_numpy()[there])


MISFITS: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "a column is missing": (lambda part: part[["a", "c"]], "column 'b': is missing"),
    "a column more": (lambda part: part.assign(d=1.0), "column 'd': is there"),
    "another name": (lambda part: part.rename(columns={"b": "B"}), "column 'b': is missing"),
    "a name twice": (lambda part: part.set_axis(list("abb"), axis=1), "column 'b': there are two"),
    "text": (lambda part: part.assign(b="x"), "column 'b': is str, not a number"),
    "times": (lambda part: part.assign(b=pd.Timestamp(0)), "column 'b': is datetime64"),
    "booleans": (lambda part: part.assign(b=True), "column 'b': is bool, not a number"),
    "large integers": (lambda part: part.assign(b=2**53 + 1), "column 'b': integers up to"),
    "an array": (lambda part: part.to_numpy(), "is a ndarray, not a pandas DataFrame"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(MISFITS))
def test_a_partition_that_is_not_as_declared_is_named(what: str, fitted: GaussianMixture) -> None:
    spoil, told = MISFITS[what]
    lazy = of_parts(FRAME[:20], FRAME[20:40], spoil(FRAME[40:]))
    calls = [GaussianMixture(2, missing="em").fit, fitted.score]
    for call in (*calls, *(getattr(fitted, method) for method in METHODS)):
        with pytest.raises(DataError) as caught:
            computed(call(lazy))
        assert "partition 2" in str(caught.value)
        assert told in str(caught.value)


@pytest.mark.parametrize("dtype", ["Int64", "int32", "Float32", "double[pyarrow]", object])
def test_a_partition_of_another_type_of_numbers_is_taken_exactly(dtype: Any) -> None:
    numbers = pd.DataFrame(np.arange(12).reshape(4, 3), columns=NAMES)
    lazy = of_parts(numbers.astype(float), numbers.astype(dtype), meta=numbers[:0].astype(float))
    model = GaussianMixture(1, covariance_type="diag").fit(lazy)
    found = model.impute(lazy).compute(scheduler="sync").to_numpy()
    np.testing.assert_array_equal(found, np.concatenate([numbers.to_numpy()] * 2))


def test_blocks_of_a_dask_array_that_are_not_as_declared_are_named() -> None:
    model = GaussianMixture(1).fit(X)
    spoilt: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
        "times": (lambda block: block.astype("datetime64[s]"), "every column: is datetime64"),
        "text": (lambda block: block.astype(str), "every column: is <U"),
        "an object": (lambda block: np.where(block > -99, block, None).astype(object), ""),
        "a column less": (lambda block: block[:, :2], "has the shape (20, 2)"),
        "a row less": (lambda block: block[1:], "has 19 rows, but the Dask array declares 20"),
    }
    for name, (spoil, told) in spoilt.items():
        lazy = da.from_array(X, chunks=(20, 3)).map_blocks(
            lambda block, block_id, spoil=spoil: spoil(block) if block_id[0] == 1 else block,
            dtype=float, meta=np.empty((0, 0)),
        )  # fmt: skip
        if not told:
            assert model.score(lazy) == pytest.approx(model.score(X))
            continue
        for call in (GaussianMixture(1).fit, model.score, model.predict):
            with pytest.raises(DataError) as caught:
                computed(call(lazy))
            assert "block 1" in str(caught.value), name
            assert told in str(caught.value), name


def test_a_column_that_was_an_index_of_pandas_is_a_column(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(FRAME.set_index("b"))
    assert table.column_names == ["a", "c", "b"]
    model = GaussianMixture(1, missing="em", covariance_type="diag").fit(table)
    assert list(model.feature_names_in_) == ["a", "c", "b"]
    assert model.means_[0].tolist() == pytest.approx(FRAME.mean()[["a", "c", "b"]].tolist())
    ranged = pa.Table.from_pandas(FRAME, preserve_index=True)
    assert GaussianMixture(1, missing="em").fit(ranged).n_features_in_ == 4


def test_two_columns_of_one_name_are_refused() -> None:
    twice = pd.DataFrame(X, columns=["a", "b", "a"])
    model = GaussianMixture(1).fit(X)
    for rows in (twice, pa.table(list(X.T), names=["a", "b", "a"])):
        for call in (GaussianMixture(1).fit, model.predict):
            with pytest.raises(DataError, match="column 'a': there are two of this name"):
                call(rows)


def test_names_that_are_no_text_keep_their_order() -> None:
    numbered = pd.DataFrame(GAPS, columns=[2, 0, 1])
    model = GaussianMixture(1, missing="em", covariance_type="diag").fit(numbered)
    lazy = of_parts(numbered[:30], numbered[30:][[0, 1, 2]], meta=numbered[:0])
    again = GaussianMixture(1, missing="em", covariance_type="diag").fit(lazy)
    np.testing.assert_allclose(again.means_, model.means_, rtol=1e-12)


@pytest.mark.parametrize(
    "columns",
    [[2, 0, 1], list(pd.date_range("2026", periods=3)), [("x", 1), ("x", 2), ("y", 1)]],
    ids=["numbers", "dates", "levels"],
)
def test_what_a_model_was_fitted_on_goes_by_names_that_are_no_text(columns: list[Any]) -> None:
    frame = pd.DataFrame(WHOLE, columns=columns)
    turned = frame[columns[::-1]]
    model = GaussianMixture(2).fit(frame)
    assert not hasattr(model, "feature_names_in_")  # as scikit-learn has it
    expected = model.score_samples(WHOLE)
    np.testing.assert_array_equal(model.score_samples(turned), expected)
    lazy = of_parts(turned, meta=turned[:0])
    np.testing.assert_array_equal(computed(model.score_samples(lazy)), expected)
    np.testing.assert_array_equal(model.impute(turned), turned.to_numpy())
    started = GaussianMixture(2, means_init=turned[:2]).fit(frame)
    np.testing.assert_array_equal(
        started.means_, GaussianMixture(2, means_init=WHOLE[:2]).fit(frame).means_
    )
    selector = GaussianMixtureSelector([1, 2]).fit(frame)
    np.testing.assert_array_equal(selector.predict(turned), selector.predict(WHOLE))
    by_position = model.fit(WHOLE).score_samples(turned)
    np.testing.assert_array_equal(by_position, model.score_samples(turned.to_numpy()))


def test_rows_that_have_their_values_by_name_in_several_orders_are_refused() -> None:
    rows = [row for _, row in pd.DataFrame(WHOLE, columns=NAMES).iterrows()]
    model = GaussianMixture(1).fit(rows)
    np.testing.assert_array_equal(model.predict(rows), model.predict(WHOLE))
    rows[3] = rows[3][["b", "a", "c"]]
    for call in (GaussianMixture(1).fit, model.predict):
        with pytest.raises(DataError, match=r"by name, in several orders.*pandas\.DataFrame"):
            call(rows)


def test_start_values_go_by_their_names() -> None:
    frame = pd.DataFrame(WHOLE, columns=NAMES)
    start = frame.iloc[:2]
    expected = GaussianMixture(2, means_init=start.to_numpy()).fit(frame)
    found = GaussianMixture(2, means_init=start[["c", "a", "b"]]).fit(frame)
    np.testing.assert_array_equal(found.means_, expected.means_)
    with pytest.raises(DataError, match="columns of means_init are a, b, z"):
        GaussianMixture(2, means_init=start.set_axis(list("abz"), axis=1)).fit(frame)
    times = start.to_numpy().astype("datetime64[s]")
    with pytest.raises(DataError, match="'means' must be an array of numbers"):
        GaussianMixture(2, means_init=times).fit(frame)


# Lists of one length


def vectors(column: Any) -> pd.DataFrame:
    return pd.DataFrame({"emb": column})


ROW_LISTS = list(WHOLE)
ARROW_LISTS = pa.array(WHOLE.tolist(), pa.list_(pa.float64()))
FIXED_LISTS = pa.array(WHOLE.tolist(), pa.list_(pa.float64(), 3))
META = pd.DataFrame({"emb": pd.Series([], dtype=object)})
VECTORS: dict[str, Callable[[Path], Any]] = {
    "arrays in pandas": lambda _: vectors(ROW_LISTS),
    "lists in pandas": lambda _: vectors(WHOLE.tolist()),
    "tuples in pandas": lambda _: vectors([tuple(row) for row in WHOLE.tolist()]),
    "pandas on Arrow": lambda _: vectors(pd.arrays.ArrowExtensionArray(ARROW_LISTS)),
    "Arrow table of lists": lambda _: pa.table({"emb": ARROW_LISTS}),
    "Arrow table of fixed lists": lambda _: pa.table({"emb": FIXED_LISTS}),
    "Arrow batch": lambda _: pa.record_batch({"emb": FIXED_LISTS}),
    "tensor": lambda _: pa.table({"emb": pa.FixedShapeTensorArray.from_numpy_ndarray(WHOLE)}),
    "Polars lists": lambda _: pl.DataFrame({"emb": WHOLE.tolist()}),
    "Polars arrays": lambda _: pl.from_arrow(pa.table({"emb": FIXED_LISTS})),
    "Dask objects": lambda _: of_parts(vectors(ROW_LISTS[:25]), vectors(ROW_LISTS[25:]), meta=META),
    "Dask on Arrow": lambda _: dd.from_pandas(
        vectors(pd.arrays.ArrowExtensionArray(ARROW_LISTS)), npartitions=3
    ),
    "Dask on Arrow, fixed": lambda _: dd.from_pandas(
        vectors(pd.arrays.ArrowExtensionArray(FIXED_LISTS)), npartitions=3
    ),
    "path": lambda folder: (
        pq.write_table(pa.table({"emb": ARROW_LISTS}), folder / "a.parquet"), folder
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("form", list(VECTORS))
def test_a_column_of_lists_is_a_feature_for_each_element(form: str, tmp_path: Path) -> None:
    rows = VECTORS[form](tmp_path)
    names = ["emb[0]", "emb[1]", "emb[2]"]
    flat = pd.DataFrame(WHOLE, columns=names)
    expected = GaussianMixture(2, random_state=0, missing="em").fit(flat)
    model = GaussianMixture(2, random_state=0, missing="em").fit(rows)
    assert list(model.feature_names_in_) == names
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-9)
    for one, other in ((model, flat), (expected, rows)):
        np.testing.assert_array_equal(computed(one.predict(other)), expected.predict(flat))
    np.testing.assert_array_equal(computed(model.impute(rows)), WHOLE)
    if isinstance(rows, dd.DataFrame):
        assert list(model.impute(rows).columns) == names
        unnamed = GaussianMixture(2, random_state=0).fit(WHOLE)
        with pytest.warns(UserWarning, match="fitted without feature names"):
            labels = computed(unnamed.predict(rows))
        np.testing.assert_array_equal(labels, unnamed.predict(WHOLE))


def test_lists_stand_beside_numbers_and_have_gaps(tmp_path: Path) -> None:
    gaps = [[1.0, 2.0], None, [3.0, None], [4.0, 5.0], [6.0, 7.5]]
    table = pa.table({"x": [1.0, 2.0, 3.0, None, 4.0], "emb": pa.array(gaps)})
    expected = np.array(
        [[1, 1, 2], [2, np.nan, np.nan], [3, 3, np.nan], [np.nan, 4, 5], [4, 6, 7.5]]
    )
    pandas = table.to_pandas()
    for rows in (table, pandas, of_parts(pandas[1:2], pandas[:1], pandas[2:], meta=pandas[:0])):
        model = GaussianMixture(1, missing="em", covariance_type="diag").fit(rows)
        assert list(model.feature_names_in_) == ["x", "emb[0]", "emb[1]"]
        assert model.means_[0] == pytest.approx(np.nanmean(expected, axis=0))
        other = table.select(["emb", "x"])
        np.testing.assert_allclose(
            model.score_samples(other), model.score_samples(table), rtol=1e-12
        )


def test_the_length_of_lists_is_looked_for_in_few_partitions() -> None:
    computed_parts: list[int] = []

    def look(part: pd.DataFrame, partition_info: Any = None) -> pd.DataFrame:
        computed_parts.append(partition_info["number"])
        return part

    def looked_at(*parts: pd.DataFrame) -> GaussianMixture:
        computed_parts.clear()
        with dask.config.set({"dataframe.convert-string": False}, scheduler="sync"):
            lazy = of_parts(*parts, meta=META).map_partitions(look, meta=META)
            return GaussianMixture(1, missing="em", covariance_type="diag").fit(lazy)

    whole = vectors(ROW_LISTS)
    once = looked_at(whole[:20], whole[20:40], whole[40:])
    assert once.means_[0].tolist() == pytest.approx(WHOLE.mean(axis=0).tolist())
    assert computed_parts[0] == 0
    n_once = len(computed_parts)
    later = looked_at(vectors([None, np.nan]), whole[:30], whole[30:])
    assert later.means_[0].tolist() == pytest.approx(WHOLE.mean(axis=0).tolist())
    assert len(computed_parts) == n_once + 3
    numbers = looked_at(vectors(pd.Series([1, 2.5, None], dtype=object)), vectors([4.0]))
    assert numbers.means_[0].tolist() == [2.5]
    assert list(numbers.feature_names_in_) == ["emb"]


@pytest.mark.parametrize(
    "spoilt", [[1.0], [1.0, 2.0, 3.0, 4.0], [], "abc", 5.0, [[1.0], [2.0], [3.0]]]
)
def test_lists_that_are_no_vectors_are_refused(spoilt: Any) -> None:
    column = pd.Series([*WHOLE[:50].tolist(), spoilt, *WHOLE[50:].tolist()], dtype=object)
    frame = vectors(column)
    model = GaussianMixture(1).fit(vectors(ROW_LISTS))
    for rows, place in (
        (frame, ""),
        (of_parts(frame[:30], frame[30:], meta=META), "partition 1, "),
    ):
        for call in (GaussianMixture(1).fit, model.predict, model.score):
            with pytest.raises(NotNumbersError, match=f"{place}column 'emb': "):
                computed(call(rows))


@pytest.mark.parametrize("form", ["pandas", "Arrow", "Arrow without a type", "Dask", "numbers"])
def test_a_column_without_any_list_is_missing_values(form: str) -> None:
    model = GaussianMixture(1, missing="em").fit(vectors(ROW_LISTS))
    absent = {
        "pandas": vectors([np.nan, np.nan]),
        "Arrow": pa.table({"emb": pa.array([None, None], pa.list_(pa.float32()))}),
        "Arrow without a type": pa.table({"emb": pa.nulls(2)}),
        "Dask": of_parts(vectors([None]), vectors([np.nan]), meta=META),
        "numbers": vectors([1.0, np.nan]),
    }[form]
    if form == "numbers":
        with pytest.raises(NotNumbersError, match="'emb': holds numbers, where others hold lists"):
            model.impute(absent)
        return
    np.testing.assert_allclose(computed(model.impute(absent)), np.tile(model.means_, (2, 1)))


def test_lists_of_another_length_than_the_models_are_refused() -> None:
    model = GaussianMixture(1).fit(vectors(ROW_LISTS))
    for rows in (vectors(list(WHOLE[:, :2])), pa.table({"emb": WHOLE[:, :2].tolist()})):
        with pytest.raises(
            ValueError, match=r"column 'emb': a list of 2 values, where others have 3"
        ):
            model.predict(rows)
