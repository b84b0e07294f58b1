"""The four covariance families: one record each, chosen by name."""

from __future__ import annotations

from gmm_dask.errors import SettingsError
from gmm_dask.mixture.covariance.family import CovarianceFamily
from gmm_dask.mixture.covariance.matrices import Full, Tied
from gmm_dask.mixture.covariance.variances import Diag, Spherical

__all__ = ["COVARIANCE_FAMILIES", "CovarianceFamily", "family"]

COVARIANCE_FAMILIES: dict[str, type[CovarianceFamily]] = {
    cls.name: cls for cls in (Full, Tied, Diag, Spherical)
}


def family(covariance_type: str) -> type[CovarianceFamily]:
    """The family of that name; raises SettingsError for any other word."""
    try:
        return COVARIANCE_FAMILIES[covariance_type]
    except KeyError:
        known = ", ".join(COVARIANCE_FAMILIES)
        raise SettingsError(
            f"covariance_type is {covariance_type!r}; it must be one of {known}"
        ) from None
