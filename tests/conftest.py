"""What all tests share: printed seeds, data with a known truth, executors."""

from __future__ import annotations

import os

# Threads of BLAS that wait for each other in turn take ten times as long where all cores are busy,
# and most matrices here are small. NumPy reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from gmm_dask.engine import Backend, ClusterSpec, open_backend
from gmm_dask.mixture import Parameters
from tests.object_service import running_service, service  # noqa: F401  (fixtures)
from tests.undrawn import DRAWN, blank

settings.register_profile(
    "default",
    max_examples=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")

# Long ones: the first two wait most of the time, the third computes beside them.
FIRST = (
    "flows/test_deployment.py",
    "engine/test_recovery.py",
    "parity/test_scikit_learns_own_tests.py",
)

USUAL_SEED = 20261124
SEED = int(os.environ.get("GMM_DASK_TEST_SEED", USUAL_SEED))


@pytest.hookimpl(tryfirst=True)  # hypothesis reads the option in a hook of that name
def pytest_configure(config: pytest.Config) -> None:
    """One seed for all that is drawn: examples of hypothesis, rows and numbered cases."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = SEED


def pytest_report_header() -> str:
    return f"random seed: {SEED} (set GMM_DASK_TEST_SEED to change it)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the files that take longest begun first, so that at the end none is waited for."""
    folder = Path(__file__).parent
    first = {folder / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def seeds(cases: Iterable[int]) -> Iterator[int]:
    """A seed for each case, printed when the case begins: the last that a failure shows is its own.

    With the usual seed of the tests they are the cases' numbers, with another all are others.
    """
    for case in cases:
        seed = case + (SEED - USUAL_SEED) % (1 << 32)
        print(f"seed {seed}")
        yield seed


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


@pytest.fixture(scope="session", autouse=True)
def undrawn() -> Iterator[None]:
    """Reports without pictures, but where a test asks for `drawn`."""
    with patch("gmm_dask.stage.report.html.pictures", blank):
        yield


@pytest.fixture(scope="session", autouse=True)
def unflushed() -> Iterator[None]:
    """Files that are not flushed to the disk: that takes longer than a small run.

    What is written is lost by a power cut alone, and tests/faults/test_power_cut.py has disks that
    lose what was not flushed.
    """
    with patch.object(os, "fsync", lambda descriptor: None):
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with their pictures."""
    monkeypatch.setattr("gmm_dask.stage.report.html.pictures", DRAWN)


BACKENDS = {
    "loop": ClusterSpec("threads", workers=1),
    "threads": ClusterSpec("threads", workers=2),
    "processes": ClusterSpec("processes", workers=2),
}


@pytest.fixture(scope="session")
def backends() -> Iterator[Callable[[str], Backend]]:
    """Each executor, opened when it is first asked for: worker processes take seconds to start."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(open_backend(BACKENDS[name])))


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, backends: Callable[[str], Backend]) -> Backend:
    """Every executor: a plain loop, threads, worker processes."""
    return backends(request.param)
