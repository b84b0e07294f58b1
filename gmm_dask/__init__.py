"""Gaussian mixture clustering as a stage of a data pipeline."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmm_dask.estimator import (
        BayesianGaussianMixture,
        GaussianMixture,
        GaussianMixtureSelector,
        load_model,
    )
    from gmm_dask.estimator.display import MixtureDisplay
    from gmm_dask.stage.identity import show_versions
    from gmm_dask.stage.outputs import read_labels

__version__ = "0.1.0"

# Loaded when first used, so that `import gmm_dask.mixture` needs neither Dask nor pandas.
_PUBLIC = {
    "BayesianGaussianMixture": "gmm_dask.estimator",
    "GaussianMixture": "gmm_dask.estimator",
    "GaussianMixtureSelector": "gmm_dask.estimator",
    "MixtureDisplay": "gmm_dask.estimator.display",
    "load_model": "gmm_dask.estimator",
    "read_labels": "gmm_dask.stage.outputs",
    "show_versions": "gmm_dask.stage.identity",
}

__all__ = [
    "BayesianGaussianMixture",
    "GaussianMixture",
    "GaussianMixtureSelector",
    "MixtureDisplay",
    "load_model",
    "read_labels",
    "show_versions",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gmm_dask' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
