"""The model file: exact to the last bit, strict about every field, readable without us."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.errors import ModelFileError
from gmm_dask.mixture import MergeTree, Parameters, log_density, merge_tree
from gmm_dask.storage.arrow import parquet_bytes
from gmm_dask.storage.records import model_file
from gmm_dask.storage.records.model_file import dump_model, load_model_file, parameters_table
from tests.storage.stores import ARRAYS, model_of, same_bits, small_model
from tests.strategies import mixtures, random_mixture, seeds

GOLDEN = Path(__file__).parent / "data" / "model-v1.json"


# --- round trip ------------------------------------------------------------------------------


@given(mixtures())
@settings(max_examples=200)
def test_a_model_comes_back_bit_for_bit(parameters: Parameters) -> None:
    model = model_of(parameters)
    data = dump_model(model)
    back = load_model_file(data)
    assert same_bits(back, model)
    assert dump_model(back) == data
    assert back.sha256 == model.sha256 == json.loads(data)["sha256"]


EXTREMES = [5e-324, 2.2e-308, 1e-300, 1e-160, 1.0, 1e160, 1e300, 1.7e308]
numbers = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
variances = st.sampled_from(EXTREMES) | st.floats(
    5e-324, 1.7e308, allow_subnormal=True, allow_nan=False
)


@given(st.data(), st.sampled_from(["diag", "spherical", "full", "tied"]))
@settings(max_examples=200)
def test_subnormal_and_huge_numbers_come_back_bit_for_bit(data: Any, covariance_type: str) -> None:
    k, d = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    tiny = data.draw(st.sampled_from([0.0, 5e-324, 1e-310]))
    weights = [1.0 - tiny * (k - 1)] + [tiny] * (k - 1)
    means = [[data.draw(numbers) for _ in range(d)] for _ in range(k)]
    spread = np.array([[data.draw(variances) for _ in range(d)] for _ in range(k)])
    covariances = {
        "diag": spread,
        "spherical": spread[:, 0],
        "full": spread[:, :, None] * np.eye(d),
        "tied": spread[0] * np.eye(d),
    }[covariance_type]
    parameters = Parameters.from_covariances(weights, means, covariances, covariance_type)
    bounds = tuple(data.draw(numbers) for _ in range(2))
    reg = data.draw(variances)
    model = model_of(parameters, lower_bounds=bounds, reg_covar=reg, sum_weight=5e-324)
    assert same_bits(load_model_file(dump_model(model)), model)


@given(seeds, st.integers(2, 4), st.sampled_from(["full", "tied"]))
def test_a_nearly_singular_covariance_comes_back_too(seed: int, d: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(50, d)) * 10.0 ** rng.integers(-8, 9, d)
    rows[:, -1] = rows[:, 0] * 3 + rng.normal(size=50) * abs(rows[:, 0]).max() * 1e-6
    covariance = np.atleast_2d(np.cov(rows.T))
    covariances = covariance if kind == "tied" else covariance[None]
    model = model_of(Parameters.from_covariances([1.0], rows[:1], covariances, kind))
    assert same_bits(load_model_file(dump_model(model)), model)


@given(mixtures())
def test_a_model_from_given_precisions_can_be_stored(parameters: Parameters) -> None:
    given_precisions = Parameters.from_precisions(
        parameters.weights, parameters.means, parameters.precisions, parameters.covariance_type
    )
    model = model_of(given_precisions)
    assert same_bits(load_model_file(dump_model(model)), model)


def test_clusters_and_their_tree_come_back() -> None:
    parameters = random_mixture("full", 5, 2, 3)
    tree = merge_tree(parameters)
    for n in range(1, 6):
        model = model_of(parameters, clusters=tuple(tree.clusters(n).tolist()), merge_tree=tree)
        found = load_model_file(dump_model(model))
        assert found.merge_tree == tree
        assert found.clusters == model.clusters


TREE = MergeTree(((0, 1),), (0.5,), (0.25, 0.0))


@pytest.mark.parametrize(
    ("clusters", "tree", "field"),
    [
        ((0, 1), None, "clusters"),
        (None, TREE, "clusters"),
        ((1, 0), TREE, "clusters"),
        ((0,), TREE, "clusters"),
        ((0, 0), replace(TREE, pairs=((1, 0),)), "merge_tree"),
        ((0, 0), replace(TREE, pairs=((0, 7),)), "merge_tree"),
        ((0, 0), replace(TREE, pairs=((0, 1, 1),)), "pairs"),
        ((0, 0), replace(TREE, overlaps=()), "overlaps"),
        ((0, 0), replace(TREE, entropies=(math.nan, 0.0)), "entropies"),
    ],
)
def test_a_tree_that_is_none_is_not_written(clusters: Any, tree: Any, field: str) -> None:
    parameters = random_mixture("full", 2, 2, 0)
    with pytest.raises(ModelFileError, match=field):
        dump_model(model_of(parameters, clusters=clusters, merge_tree=tree))


def test_equal_models_have_equal_bytes_and_no_time_is_in_them() -> None:
    one, two = (replace(small_model(), created_by=dict(order)) for order in (
        [("numpy", "2"), ("gmm-dask", "1")], [("gmm-dask", "1"), ("numpy", "2")]
    ))  # fmt: skip
    assert dump_model(one) == dump_model(two)
    assert one.sha256 != replace(one, n_rows=13).sha256


def test_names_of_any_language_are_kept() -> None:
    names = ("Länge", "幅 \"'\\\n\0")
    model = replace(small_model(), feature_names=names)
    assert load_model_file(dump_model(model)).feature_names == names


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"feature_names": ("a",)}, "feature_names"),
        ({"feature_names": ("a", "a")}, "feature_names"),
        ({"lower_bounds": (1.0, math.nan)}, "lower_bounds"),
        ({"lower_bounds": (1.0,)}, "lower_bounds"),
        ({"sum_weight": math.inf}, "sum_weight"),
        ({"outcome": "out_of_iterations"}, "converged"),
        ({"created_by": {"numpy": 2}}, "created_by"),
        ({"feature_types": ("double", "\ud800")}, "text"),
    ],
)
def test_a_model_that_could_not_be_read_is_not_written(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelFileError, match=field):
        dump_model(replace(small_model(), **changes))


def test_parameters_that_are_not_finite_are_not_written() -> None:
    small = small_model().parameters
    means = small.means.copy()
    means[0, 0] = np.nan
    broken = Parameters.from_arrays(
        small.weights, means, small.covariances, small.precisions_cholesky, "full"
    )
    with pytest.raises(ModelFileError, match="means holds nan"):
        dump_model(replace(small_model(), parameters=broken))


def test_a_file_beyond_the_size_cap_is_neither_read_nor_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = dump_model(small_model())
    with pytest.raises(ModelFileError, match="than any model"):
        load_model_file(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}")  # 6 MB that would become 130
    monkeypatch.setattr(
        model_file, "MODEL_FILE", replace(model_file.MODEL_FILE, max_bytes=len(data) - 1)
    )
    with pytest.raises(ModelFileError, match=r"larger, with its .* than any model"):
        load_model_file(data)
    with pytest.raises(ModelFileError, match="choose covariance_type diag or tied"):
        dump_model(small_model())


# --- read without us -------------------------------------------------------------------------


def plain_scores(document: dict[str, Any], X: np.ndarray) -> np.ndarray:
    """Log-density from the file alone: json, numpy and the textbook."""
    weights, means, covariances = (
        np.array(document[name]) for name in ("weights", "means", "covariances")
    )
    dense = {
        "full": lambda: covariances,
        "tied": lambda: np.broadcast_to(covariances, (len(weights), *covariances.shape)),
        "diag": lambda: covariances[:, :, None] * np.eye(means.shape[1]),
        "spherical": lambda: covariances[:, None, None] * np.eye(means.shape[1]),
    }[document["covariance_type"]]()
    total = np.full(len(X), -np.inf)
    for weight, mean, covariance in zip(weights, means, dense, strict=True):
        D = X - mean
        distance = np.einsum("nd,de,ne->n", D, np.linalg.inv(covariance), D)
        log_scale = np.linalg.slogdet(2 * np.pi * covariance).logabsdet / 2
        total = np.logaddexp(total, np.log(weight) - distance / 2 - log_scale)
    return total


@given(mixtures(), seeds)
def test_a_plain_reader_scores_rows_like_we_do(parameters: Parameters, seed: int) -> None:
    document = json.loads(dump_model(model_of(parameters)))
    X = np.random.default_rng(seed).normal(size=(5, parameters.n_features))
    expected = log_density(X, parameters)
    np.testing.assert_allclose(plain_scores(document, X), expected, rtol=1e-8, atol=1e-8)
    for name in ARRAYS:
        assert np.array(document[name]).tobytes() == getattr(parameters, name).tobytes()


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_pandas_and_duckdb_read_the_parameters_without_us(
    tmp_path: Path, covariance_type: str
) -> None:
    parameters = random_mixture(covariance_type, 3, 2, seed=1)
    model = model_of(parameters, feature_names=("sepal length", "b"), n_rows=150)
    path = str(tmp_path / "parameters.parquet")
    Path(path).write_bytes(parquet_bytes(parameters_table(model)))
    frame = pd.read_parquet(path)
    dense = parameters.dense_covariances()
    assert frame["component"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(frame["weight"], parameters.weights)
    np.testing.assert_allclose(frame["size"], parameters.weights * 150)
    np.testing.assert_array_equal(frame[["mean_sepal length", "mean_b"]], parameters.means)
    query = """select "mean_sepal length", sd_b from read_parquet(?) order by component"""
    expected = [(m[0], math.sqrt(c[1, 1])) for m, c in zip(parameters.means, dense, strict=True)]
    assert duckdb.execute(query, [path]).fetchall() == expected
    if covariance_type in ("diag", "spherical"):  # sd_x says all
        assert not any(name.startswith("covariance_") for name in frame)
        return
    np.testing.assert_array_equal(np.stack(frame["covariance_b"].tolist()), dense[:, 1])
    query = """select "covariance_sepal length"[2] from read_parquet(?) order by component"""
    assert [each for (each,) in duckdb.execute(query, [path]).fetchall()] == dense[:, 0, 1].tolist()


def test_the_file_of_format_version_1_stays_readable() -> None:
    data = GOLDEN.read_bytes()
    model = load_model_file(data)
    assert dump_model(model) == data
    # Not to the bit: the factors were computed by another machine.
    for name in ARRAYS:
        ours = getattr(small_model().parameters, name)
        np.testing.assert_allclose(getattr(model.parameters, name), ours, rtol=1e-14)
    assert same_bits(replace(model, parameters=small_model().parameters), small_model())
