"""What all tests share: printed seeds, data with a known truth, executors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from gmm_dask.engine import Backend, ClusterSpec, open_backend
from gmm_dask.mixture import Parameters
from tests.object_service import running_service, service  # noqa: F401  (fixtures)

settings.register_profile(
    "default",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")

SEED = int(os.environ.get("GMM_DASK_TEST_SEED", "20261124"))


def pytest_report_header() -> str:
    return f"random seed: {SEED} (set GMM_DASK_TEST_SEED to change it)"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@dataclass(frozen=True)
class Blobs:
    """Rows drawn from a mixture that is known."""

    X: np.ndarray
    component: np.ndarray
    truth: Parameters


@pytest.fixture
def blobs(rng: np.random.Generator) -> Blobs:
    k, d, n = 3, 4, 2000
    weights = np.array([0.5, 0.3, 0.2])
    means = rng.normal(scale=3.0, size=(k, d))
    roots = rng.normal(size=(k, d, d)) * 0.4 + np.eye(d)
    covariances = roots @ roots.swapaxes(1, 2)
    component = rng.choice(k, n, p=weights)
    noise = np.einsum("nij,nj->ni", roots[component], rng.normal(size=(n, d)))
    truth = Parameters.from_covariances(weights, means, covariances, "full")
    return Blobs(means[component] + noise, component, truth)


@pytest.fixture
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report without its pictures: they take longer than a small run."""
    for name in ("cluster_figure", "likelihood_figure"):
        monkeypatch.setattr(f"gmm_dask.stage.report.figures.{name}", lambda *_: b"")


BACKENDS = {
    "loop": ClusterSpec("threads", workers=1),
    "threads": ClusterSpec("threads", workers=2),
    "processes": ClusterSpec("processes", workers=2),
}


@pytest.fixture(scope="session", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every executor: a plain loop, threads, worker processes."""
    with open_backend(BACKENDS[request.param]) as opened:
        yield opened
