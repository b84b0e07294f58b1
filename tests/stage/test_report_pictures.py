"""What the report draws and tabulates is what was fitted."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm_dask.fitting import FitResult, Outcome, Prelude
from gmm_dask.fitting.outcome import PRELUDE_STATES
from gmm_dask.mixture import Parameters, responsibilities, score_rows
from gmm_dask.pictures.telling import RIDGE, standardised_scatter
from gmm_dask.pictures.view import best_view, mixed, palette
from gmm_dask.stage import text
from gmm_dask.stage.report import tables
from gmm_dask.stage.report.figures import cluster_figure, likelihood_figure
from gmm_dask.stage.report.payload import FRAME_BYTES, MAX_FRAMES, payload, spread_out
from tests.stage.reports import drawn_from, iris, report_of
from tests.strategies import covariance_types, random_mixture, seeds


def unpacked(shown: dict[str, Any], name: str, dtype: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(shown[name]), dtype).reshape(shape)


# The states


def test_each_state_has_the_log_likelihood_measured_in_it() -> None:
    data = iris()
    measured = [
        score_rows(data.sample, state.parameters).log_density.mean() for state in data.states
    ]
    assert [state.number for state in data.states] == list(range(1, data.n_passes + 2))
    np.testing.assert_allclose([state.lower_bound for state in data.states], measured, rtol=1e-12)


def test_a_trajectory_that_begins_late_is_counted_from_the_end() -> None:
    late = replace(iris(), trajectory=iris().trajectory[-3:])
    assert [s.number for s in late.states] == [s.number for s in iris().states[-3:]]


def test_a_weighted_total_is_not_divided_by_the_number_of_rows() -> None:
    weighted = replace(iris(), settings={"data": {"weight_column": "w"}})
    assert weighted.final_lower_bound is None
    metrics = iris().metrics | {"sum_weight": 10.0, "log_likelihood": -20.0}
    assert replace(weighted, metrics=metrics).final_lower_bound == -2.0


def test_with_a_prior_nobody_measured_the_last_state() -> None:
    data = replace(iris(), metrics=iris().metrics | {"objective": "log-posterior"})
    assert data.states[-1].lower_bound is None
    assert data.states[-2].lower_bound == data.lower_bounds[-1]
    assert payload(data)["objective"] == "log-posterior"


# What the moving pictures are drawn from


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_frames_hold_the_parameters_of_their_states(offset: float) -> None:
    base = random_mixture("full", 3, 4, 1)
    parameters = Parameters.from_covariances(
        base.weights, base.means + offset, base.covariances, "full"
    )
    X = drawn_from(parameters, 50)
    data = report_of(parameters, X, 5)
    shown = payload(data)
    centre, scale = np.array(shown["centre"]), np.array(shown["scale"])
    means = centre + scale * unpacked(shown, "means", "<f4", 5, 3, 4)[-1]
    np.testing.assert_allclose(means, parameters.means, atol=1e-5, rtol=1e-15)
    rows = centre + scale * unpacked(shown, "rows", "<f4", 50, 4)
    np.testing.assert_allclose(rows, X, atol=1e-5, rtol=1e-15)
    packed = unpacked(shown, "covariances", "<f4", 5, 3, 10)[-1]
    for a in range(4):
        for b in range(a, 4):
            at = a * 4 - a * (a - 1) // 2 + b - a  # as packedIndex in numbers.js
            found = packed[:, at] * scale[a] * scale[b]
            np.testing.assert_allclose(found, parameters.covariances[:, a, b], atol=1e-5)
    view = best_view(parameters, data.feature_names)
    found = unpacked(shown, "viewMeans", "<f4", 5, 3, 2)[-1]
    np.testing.assert_allclose(found, view.rows(parameters.means), atol=1e-5)


def test_shares_are_the_responsibilities_of_each_state() -> None:
    data = iris()
    shown, n = payload(data), data.rows.shape[0]
    shape = (len(data.states), n, 3)
    components = unpacked(shown, "components", "u1", *shape)
    shares = unpacked(shown, "shares", "u1", *shape)
    for t, state in enumerate(data.states):
        found = np.zeros((n, 3))
        np.put_along_axis(found, components[t].astype(np.intp), shares[t] / 255, axis=1)
        expected = responsibilities(data.rows, state.parameters)
        np.testing.assert_allclose(found, expected, atol=0.51 / 255)


@pytest.mark.parametrize(("k", "d"), [(3, 4), (16, 50), (400, 30)])
def test_frames_keep_first_and_last_within_the_budget(k: int, d: int) -> None:
    parameters = random_mixture("diag", k, d, 0)
    shown = payload(report_of(parameters, drawn_from(parameters, 2000), 120))
    passes = [frame["pass"] for frame in shown["frames"]]
    assert (passes[0], passes[-1]) == (1, 120)
    assert len(passes) <= MAX_FRAMES
    packed = ("weights", "means", "covariances", "viewMeans", "components", "shares")
    assert sum(len(shown[name]) for name in packed) * 3 / 4 <= FRAME_BYTES


@given(st.integers(1, 5000), st.integers(2, 100))
def test_spread_out_keeps_the_ends_and_the_order(n: int, at_most: int) -> None:
    chosen = spread_out(n, at_most)
    assert len(chosen) == min(n, at_most)
    assert (chosen[0], chosen[-1]) == (0, n - 1)
    assert all(a < b for a, b in pairwise(chosen))


def test_a_row_of_one_component_has_its_colour() -> None:
    np.testing.assert_allclose(mixed(np.eye(12)), palette(12), atol=1e-12)
    assert len(np.unique(palette(27).round(3), axis=0)) == 27


# The best view


@given(covariance_types, st.integers(3, 5), st.integers(3, 6), seeds)
def test_no_direction_separates_better_than_the_first(
    covariance_type: str, k: int, d: int, seed: int
) -> None:
    parameters = random_mixture(covariance_type, k, d, seed)
    view = best_view(parameters, "abcdefgh"[:d])
    spreads, within, between = standardised_scatter(parameters)
    within = within + RIDGE * np.eye(d)
    V = view.directions * spreads[:, None]
    np.testing.assert_allclose(V.T @ within @ V, np.eye(2), atol=1e-6)
    other = np.random.default_rng(seed).normal(size=(200, d))
    ratios = np.einsum("nd,de,ne->n", other, between, other) / np.einsum(
        "nd,de,ne->n", other, within, other
    )
    assert V[:, 0] @ between @ V[:, 0] >= ratios.max() * (1 - 1e-6)
    assert 0 < view.separation <= 1 + 1e-12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_view_does_not_depend_on_units(k: int, seed: int) -> None:
    parameters = random_mixture("full", k, 5, seed)
    scale = np.array([1e-6, 1e-3, 1.0, 1e3, 1e6])
    other = Parameters.from_covariances(
        parameters.weights,
        parameters.means * scale,
        parameters.covariances * scale[:, None] * scale,
        "full",
    )
    X = drawn_from(parameters, 20, seed)
    here = best_view(parameters, "abcde").rows(X)
    there = best_view(other, "abcde").rows(X * scale)
    np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_every_size_has_a_view(k: int, d: int) -> None:
    parameters = random_mixture("full", k, d, 3)
    view = best_view(parameters, "abcdef"[:d])
    X = drawn_from(parameters, 30)
    assert view.n_axes == min(d, 2)
    assert np.linalg.matrix_rank(view.directions) == view.n_axes
    if d <= 2:
        np.testing.assert_array_equal(view.rows(X), X)
    low, high = view.limits(X, parameters).T
    assert ((view.rows(parameters.means) > low) & (view.rows(parameters.means) < high)).all()


def test_a_far_row_does_not_squeeze_the_picture() -> None:
    X = np.vstack([iris().sample, [[1e6, 0, 0, 0]]])
    view = best_view(iris().parameters, iris().feature_names)
    near, far = view.limits(iris().sample, iris().parameters), view.limits(X, iris().parameters)
    assert np.ptp(far, axis=1).max() < 4 * np.ptp(near, axis=1).max()
    assert view.n_outside(X, iris().parameters) == 1


# Tables and still pictures


def test_sizes_and_labelled_rows_add_up() -> None:
    columns = [c for block in tables.component_table(iris()).blocks for c in block.columns]
    assert [column["component"] for column in columns] == ["0", "1", "2"]
    assert sum(float(column["size"]) for column in columns) == pytest.approx(150, abs=2)


def test_a_large_table_names_what_it_leaves_out() -> None:
    parameters = random_mixture("diag", 100, 120, 0)
    table = tables.component_table(report_of(parameters, drawn_from(parameters, 9)))
    n_components = sum(len(block.columns) for block in table.blocks)
    assert n_components + table.n_components_left_out == 100
    assert len(table.blocks[0].lines) + table.n_features_left_out == 120
    assert n_components * len(table.blocks[0].lines) <= tables.MAX_CELLS


@pytest.mark.parametrize(
    ("mean", "spread", "words"),
    [
        (5.00601, 0.34893, ("5.006", "0.349")),
        (-1234567.8, 4321.0, ("−1,234,568", "4,321")),
        (0.0, 0.0, ("0.000", "0.000")),
        (1e-12, 3e-13, ("1.000e-12", "3.00e-13")),
        (1.7e9, 492.2, ("1,700,000,000", "492")),
        (-20.0, 3.76e-9, ("−20.000000", "3.76e-09")),
    ],
)
def test_means_are_written_to_the_third_digit_of_the_spread(
    mean: float, spread: float, words: tuple[str, str]
) -> None:
    assert text.measured(mean, spread) == words


def test_credentials_of_urls_are_not_shown() -> None:
    shown = dict(text.flattened({"data": {"path": "s3://key:secret@bucket/x", "missing": None}}))
    assert shown == {"data.path": "s3://***@bucket/x", "data.missing": "not set"}


@pytest.mark.parametrize("d", [1, 2, 5])
def test_pictures_are_1200_pixels_wide_and_repeat_exactly(d: int) -> None:
    parameters = random_mixture("full", 3, d, 0)
    data = report_of(parameters, drawn_from(parameters, 40), 3)
    for draw in (partial(cluster_figure, data), partial(likelihood_figure, [-3, -2.0], "x")):
        png = draw()
        assert png[12:16] == b"IHDR"
        assert int.from_bytes(png[16:20], "big") == 1200
        assert png == draw()


def test_drawing_is_silent_without_a_home_and_leaves_no_global_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = str(tmp_path / "file" / "home")
    environment = {k: v for k, v in os.environ.items() if k != "MPLCONFIGDIR"}
    environment |= {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
    code = (
        "import sys; from gmm_dask.stage.report.figures import likelihood_figure as draw;"
        "draw([-2, -1], 'converged'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_passes_over_a_sample_come_first_and_are_numbered_on() -> None:
    data = iris()
    prelude = Prelude((-3.0, -2.5, -2.2), (1, 3), data.trajectory[:2])
    longer = replace(data, prelude=prelude)
    n = data.n_passes
    numbers = [state.number for state in longer.states]
    assert numbers == [1, 3, *range(4, n + 5)]
    assert [state.lower_bound for state in longer.states[:2]] == [-3.0, -2.2]
    assert [s.lower_bound for s in longer.states[2:]] == [s.lower_bound for s in data.states]
    shown = payload(longer)
    assert (shown["nSample"], shown["nPasses"], len(shown["curve"])) == (3, n, n + 3)
    assert [frame["pass"] for frame in shown["frames"]][-1] == n + 4


def test_a_prelude_remembers_early_states_within_its_bounds() -> None:
    many = replace(
        FitResult(iris().parameters, (), Outcome.CONVERGED, (), 150, 150.0),
        lower_bounds=tuple(range(300)),
        trajectory=iris().trajectory[:1] * 301,
    )
    prelude = Prelude.of(many, many)
    assert len(prelude.lower_bounds) == 600
    assert prelude.numbers[0] == 1
    assert prelude.numbers[-1] == 600
    assert len(prelude.numbers) == len(prelude.trajectory) <= PRELUDE_STATES
    assert all(a < b for a, b in pairwise(prelude.numbers))
