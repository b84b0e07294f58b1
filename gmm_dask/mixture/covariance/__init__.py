"""The covariance families: one record each, chosen by name."""

from __future__ import annotations

import re

from gmm_dask.errors import SettingsError
from gmm_dask.mixture.covariance.family import CovarianceFamily
from gmm_dask.mixture.covariance.low_rank import LOW_RANK, low_rank
from gmm_dask.mixture.covariance.matrices import Full, Tied
from gmm_dask.mixture.covariance.variances import Diag, Spherical

__all__ = ["COVARIANCE_FAMILIES", "LOW_RANK", "CovarianceFamily", "family"]

COVARIANCE_FAMILIES: dict[str, type[CovarianceFamily]] = {
    cls.name: cls for cls in (Full, Tied, Diag, Spherical)
}


def family(covariance_type: str) -> type[CovarianceFamily]:
    """The family of that name; raises SettingsError for any other word."""
    if covariance_type in COVARIANCE_FAMILIES:
        return COVARIANCE_FAMILIES[covariance_type]
    if rank := re.fullmatch(rf"{LOW_RANK}([1-9]\d{{0,3}})", str(covariance_type), re.ASCII):
        return low_rank(int(rank[1]))
    known = ", ".join(COVARIANCE_FAMILIES)
    raise SettingsError(
        f"covariance_type is {covariance_type!r}; it must be one of {known}, or {LOW_RANK}q with "
        "the number q of factors"
    )
