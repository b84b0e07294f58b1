"""Class and stage go one road: the same rows, settings and seed come to the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import GaussianMixture
from gmm_dask.engine import LocalBackend, row_chunks
from gmm_dask.roads.fitting_run import FitData, FitListener, fit_rows
from gmm_dask.sections import FitSettings
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import settings_from

FEW, SOME, MANY = 600, 70_000, 280_000  # from the second on a start is found on a sample


def rows(n: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(size=(n, 2)) + 3.0 * rng.integers(0, 3, n)[:, None]


@pytest.fixture(params=[FEW, SOME, MANY])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    X = rows(request.param)
    (tmp_path / "data").mkdir()
    for i, part in enumerate(np.array_split(X, 3)):
        table = pa.table({"x": part[:, 0], "y": part[:, 1]})
        pq.write_table(table, tmp_path / "data" / f"{i}.parquet")
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_init": 2, "covariance_type": "diag", "acceleration": "none"},
        {"init_params": "random", "weight_concentration_prior": 2.0, "max_iter": 4},
    ],
)
@pytest.mark.filterwarnings("ignore:Best performing")
def test_class_and_stage_come_to_the_same_bits(folder: Path, settings: dict[str, Any]) -> None:
    fit = {"n_components": 3, "random_state": 7} | settings
    data = {"path": str(folder / "data"), "features": ["x", "y"]}
    published = run(
        settings_from({"data": data, "fit": fit, "output": {"path": str(folder / "out")}})
    )
    model = GaussianMixture(**fit).fit(str(folder / "data"))
    stored = published.model
    order = np.argsort(-model.weights_, kind="stable")  # as the stage numbers components
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(
            getattr(model, f"{name}_")[order], getattr(stored.parameters, name), err_msg=name
        )
    assert tuple(model.lower_bounds_) == stored.lower_bounds


def test_em_on_the_sample_saves_passes_over_all_rows_in_the_class() -> None:
    X = rows(MANY)
    settings: dict[str, Any] = {"random_state": 0, "tol": 1e-6, "max_iter": 200}
    settings |= {"acceleration": "none", "init_params": "k-means++"}
    begun, at_once = (
        GaussianMixture(3, sample_em=sample_em, **settings).fit(X) for sample_em in (True, False)
    )
    assert begun.n_iter_ < at_once.n_iter_ / 2
    assert begun.lower_bound_ == pytest.approx(at_once.lower_bound_, abs=1e-4)


@pytest.mark.filterwarnings("ignore:Best performing")
def test_a_sample_that_is_most_of_the_rows_is_no_place_for_em() -> None:
    X = rows(SOME)
    settings: dict[str, Any] = {"random_state": 0, "max_iter": 5, "acceleration": "none"}
    by_default, at_once = (
        GaussianMixture(3, sample_em=sample_em, tol=1e-12, **settings).fit(X)
        for sample_em in (True, False)
    )
    np.testing.assert_array_equal(by_default.means_, at_once.means_)


class Stopwatch(FitListener):
    """Notes when it was told of anything, in the seconds of a clock that tasks push on."""

    def __init__(self) -> None:
        self.now, self.told, self.phases = 0.0, [0.0], set[str]()

    def note(self, *_: Any) -> None:
        self.told.append(self.now)

    surveyed = passed = note

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        assert of is None or 0 <= done <= of
        self.phases.add(phase)
        self.note()


@pytest.mark.parametrize("n_init", [1, 2])
def test_a_slow_fit_is_never_silent_for_two_seconds(
    n_init: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, compute = Stopwatch(), LocalBackend.compute

    def slow(
        self: LocalBackend, graph: Any, keys: Any, on_done: Any = None, about: Any = None
    ) -> list[Any]:
        def done() -> None:
            listener.now += 0.9
            if on_done is not None:
                on_done()

        return compute(self, graph, keys, done, about)

    monkeypatch.setattr(LocalBackend, "compute", slow)
    data = FitData(row_chunks(rows(MANY), chunk_bytes=1 << 19))
    settings = FitSettings(n_components=3, n_init=n_init, init_rows=60_000)
    seeds = np.random.SeedSequence(0).spawn(1 + n_init)
    fit_rows(data, LocalBackend(1), settings, listener, seeds=seeds)
    assert np.diff(listener.told).max() < 2
    assert {"looking at all rows", "start on the sample", "pass over all rows"} <= listener.phases


def test_a_search_for_the_start_tells_what_it_has_spent() -> None:
    listener, X = Stopwatch(), rows(FEW)
    settings = FitSettings(n_components=3, init_params="auto", effort="low")
    seeds = np.random.SeedSequence(0).spawn(2)
    fit_rows(FitData(row_chunks(X)), LocalBackend(1), settings, listener, seeds=seeds)
    assert "search for the start" in listener.phases
