"""Libraries that run EM for so many iterations from a given start, on so many threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits

from benchmarks.timing import Run
from gmm_dask import GaussianMixture
from gmm_dask.mixture import Parameters, core, m_step

REG_COVAR = 1e-6
NEEDS = {"oneDAL": "daal4py", "pomegranate": "pomegranate"}

Make = Callable[[np.ndarray, Parameters, int], Run]


def _of_class(mixture: Any, X: np.ndarray, start: Parameters) -> Run:
    """Fits of a class with scikit-learn's arguments, from the start; `tol=0` ends none early."""

    def run(passes: int) -> int:
        mixture(
            start.n_components,
            covariance_type=start.covariance_type,
            tol=0,
            max_iter=passes,
            reg_covar=REG_COVAR,
            weights_init=start.weights,
            means_init=start.means,
            precisions_init=start.precisions,
        ).fit(X)
        return passes

    return run


def gmm_dask(X: np.ndarray, start: Parameters, threads: int) -> Run:
    """The GaussianMixture of gmm_dask as a user calls it, with the start given."""
    return _of_class(GaussianMixture, X, start)


def kernel(
    X: np.ndarray, start: Parameters, threads: int, arithmetic: core.Precision = "double"
) -> Run:
    """The compiled E-step and the M-step by themselves, on one thread."""

    def run(passes: int) -> int:
        parameters = start
        for _ in range(passes):
            statistics = core.e_step(X, parameters, precision=arithmetic)
            parameters = m_step(parameters, statistics, REG_COVAR)
        return passes

    return run


def kernel_float32(X: np.ndarray, start: Parameters, threads: int) -> Run:
    """The compiled E-step in single precision on rows in float32, and the M-step, on one thread."""
    return kernel(X.astype(np.float32), start, threads, arithmetic="single")


def scikit_learn(X: np.ndarray, start: Parameters, threads: int) -> Run:
    """The GaussianMixture of scikit-learn, with the start given."""
    return _of_class(SklearnMixture, X, start)


def onedal(X: np.ndarray, start: Parameters, threads: int) -> Run:
    """EM of oneDAL through daal4py; it ends where rounding makes the log-likelihood fall."""
    import daal4py

    daal4py.daalinit(threads)
    weights, covariances = start.weights.reshape(1, -1), list(start.covariances)

    def run(passes: int) -> int:
        daal4py.daalinit(threads)
        found = daal4py.em_gmm(
            nComponents=start.n_components,
            maxIterations=passes,
            accuracyThreshold=0.0,
            regularizationFactor=REG_COVAR,
        ).compute(X, weights, start.means, covariances)
        return int(np.ravel(found.nIterations)[0])

    return run


def pomegranate(X: np.ndarray, start: Parameters, threads: int) -> Run:
    """GeneralMixtureModel of Normal distributions on torch, float64."""
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    torch.set_num_threads(threads)
    rows = torch.from_numpy(X)

    def run(passes: int) -> int:
        parts = [
            Normal(torch.tensor(mean), torch.tensor(covariance))
            for mean, covariance in zip(start.means, start.covariances, strict=True)
        ]
        weights = torch.tensor(start.weights)  # copies: they are changed in place
        model = GeneralMixtureModel(parts, priors=weights, tol=-np.inf, max_iter=passes)
        model.fit(rows)
        return passes

    return run


CONTENDERS: dict[str, Make] = {
    "gmm_dask": gmm_dask,
    "scikit-learn": scikit_learn,
    "oneDAL": onedal,
    "pomegranate": pomegranate,
}
KERNELS: dict[str, Make] = {"kernel": kernel, "kernel float32": kernel_float32}


def installed(name: str) -> bool:
    """Whether the library of a contender is there."""
    return name not in NEEDS or find_spec(NEEDS[name]) is not None


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Give BLAS and the process this number of threads, and hide warnings that EM was cut short."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if before is not None:
                os.sched_setaffinity(0, sorted(before)[:threads])
            yield
        finally:
            if before is not None:
                os.sched_setaffinity(0, before)
