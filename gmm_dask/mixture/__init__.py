"""Arithmetic of Gaussian mixtures: records, covariance families, E-step and M-step."""

from gmm_dask.mixture.covariance import COVARIANCE_FAMILIES, CovarianceFamily, family
from gmm_dask.mixture.estimate import (
    Cause,
    estimate,
    estimate_from_responsibilities,
    m_step,
    parameters_from_responsibilities,
)
from gmm_dask.mixture.merging import MergeTree, merge_tree
from gmm_dask.mixture.parameters import Estimate, Parameters, mixture_sample, n_free_parameters
from gmm_dask.mixture.prior import Prior, PriorSettings
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import (
    RowScores,
    e_step,
    labels,
    log_density,
    responsibilities,
    score_rows,
)

__all__ = [
    "COVARIANCE_FAMILIES",
    "Cause",
    "CovarianceFamily",
    "Estimate",
    "MergeTree",
    "Parameters",
    "Prior",
    "PriorSettings",
    "RowScores",
    "SufficientStatistics",
    "e_step",
    "estimate",
    "estimate_from_responsibilities",
    "family",
    "labels",
    "log_density",
    "m_step",
    "merge_tree",
    "mixture_sample",
    "n_free_parameters",
    "parameters_from_responsibilities",
    "responsibilities",
    "score_rows",
]
