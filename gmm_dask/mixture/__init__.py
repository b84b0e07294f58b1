"""Arithmetic of Gaussian mixtures: records, covariance families, E-step and M-step."""

from gmm_dask.mixture.covariance import COVARIANCE_FAMILIES, CovarianceType
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.sampling import mixture_sample
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import (
    RowScores,
    e_step,
    labels,
    log_density,
    m_step,
    parameters_from_responsibilities,
    responsibilities,
    score_rows,
)

__all__ = [
    "COVARIANCE_FAMILIES",
    "CovarianceType",
    "Parameters",
    "RowScores",
    "SufficientStatistics",
    "e_step",
    "labels",
    "log_density",
    "m_step",
    "mixture_sample",
    "parameters_from_responsibilities",
    "responsibilities",
    "score_rows",
]
