"""Mixtures of more components from one of fewer."""

from __future__ import annotations

import numpy as np

from gmm_dask.fitting.em import Fit, Rule, SharedPass, advance
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.fitting.outcome import best_of
from gmm_dask.mixture import Parameters

SHORT = 10  # passes that tell which component is best split
APART = 0.5  # standard deviations from the middle to each half of a component that was split


def split_starts(
    parameters: Parameters,
    n_components: int,
    maximise: Maximisation,
    shared_pass: SharedPass,
) -> Step | None:
    """A start of more components from a mixture of fewer: one of them split, the best after SHORT.

    Where several are to be added, the heaviest are split as well. None where every split got into
    trouble.
    """
    begun = []
    for j in np.flatnonzero(parameters.weights > 0):
        one = split(parameters, int(j))
        while one.n_components < n_components:
            one = split(one, int(one.weights.argmax()))
        begun.append(Fit.begin(Step(one, ()), maximise, Rule(0.0, SHORT)))
    results = [fit.result for fit in advance(begun, shared_pass, leaving=IN_TROUBLE)]
    return Step(best_of(results).parameters, ()) if results else None


def split(parameters: Parameters, j: int) -> Parameters:
    """The mixture with component j as two of half its weight, along its longest axis."""
    covariance = parameters.take([j]).dense_covariances()[0]
    values, vectors = np.linalg.eigh(covariance)
    step = APART * np.sqrt(values[-1]) * vectors[:, -1]
    parted = parameters.take([*range(parameters.n_components), j])
    weights, means = parted.weights.copy(), parted.means.copy()
    weights[[j, -1]] /= 2
    means[j] -= step
    means[-1] += step
    return Parameters(weights, means, parted.family)
