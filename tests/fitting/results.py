"""Fits of every kind that can be stopped, and what makes two results the same."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gmm_dask.fitting import FitResult, Keeper, Maximisation, Method, Progress, Sample
from gmm_dask.fitting import fit_from_sample as from_sample
from gmm_dask.mixture import Parameters, PriorSettings, SufficientStatistics, e_step
from gmm_dask.sampling import ColumnSpread

ARRAYS = ("weights", "means", "covariances", "precisions_cholesky")
SCALARS = ("lower_bounds", "outcome", "n_rows", "sum_weight", "events_", "n_taken_back", "start")

methods = st.builds(
    Method,
    n_components=st.integers(2, 4),
    covariance_type=st.sampled_from(["full", "tied", "diag", "spherical"]),
    init_params=st.sampled_from(["random_from_data", "k-means++"]),
    tol=st.sampled_from([1e-3, 1e-9]),
    max_iter=st.integers(1, 12),
    sample_em=st.booleans(),
    acceleration=st.sampled_from(["anderson", "none", "auto"]),
)


def rows(seed: int, *, equal: bool) -> np.ndarray:
    """Overlapping groups; `equal` puts a third of the rows on one point, where one collapses."""
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(at, 1, (40, 2)) for at in (0, 1.5, 3)])
    X[:40] = X[0] if equal else X[:40]
    return X


def rounded(X: np.ndarray, parameters: Parameters) -> SufficientStatistics:
    """A pass that knows its log-likelihood to about 1e-8 of a row."""
    found = e_step(X, parameters)
    noise = math.sin(1e9 * float(parameters.means.sum())) * 1e-8 * len(X)
    return replace(found, log_likelihood=found.log_likelihood + noise)


def fits(
    X: np.ndarray,
    method: Method,
    *,
    policy: str,
    prior: bool,
    n_starts: int,
    is_part: bool,
    is_rough: bool = False,
    keep: Keeper | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[FitResult]:
    """As `fit_from_sample`, on the sample of every other row."""
    spread = ColumnSpread.of(X)
    believed = PriorSettings(1.5, 2.0, None, 0.1) if prior else PriorSettings()
    guards = [
        Maximisation(
            0.0,
            policy,
            spread,
            believed.resolve(spread.mean, spread.variances),
            columns=("x", "y"),
            start=i,
            sample=X,
        )
        for i in range(1, 1 + n_starts)
    ]
    sample = X[::2] if is_part else X
    return from_sample(
        Sample(sample, None, partial(e_step, sample) if is_part else None),
        partial(e_step, X),
        method,
        guards,
        np.random.SeedSequence(7).spawn(n_starts),
        rough=partial(rounded, X) if is_rough else None,
        keep=keep,
        progress=progress,
        **options,
    )


def assert_same_mixture(one: Parameters, other: Parameters) -> None:
    """Bit for bit."""
    for name in ARRAYS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
        assert getattr(one, name).shape == getattr(other, name).shape, name


def assert_same_result(one: FitResult, other: FitResult, *, trajectory: bool = True) -> None:
    """Bit for bit, in every field."""
    for name in SCALARS:
        assert getattr(one, name) == getattr(other, name), name
    assert_same_mixture(one.parameters, other.parameters)
    if trajectory:
        assert len(one.trajectory) == len(other.trajectory)
        for mine, theirs in zip(one.trajectory, other.trajectory, strict=True):
            assert_same_mixture(mine, theirs)
