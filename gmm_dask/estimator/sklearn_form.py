"""A mixture as scikit-learn's GaussianMixture, and what the two have in common."""

from __future__ import annotations

from typing import Any

from sklearn.mixture import GaussianMixture as SklearnMixture

COMMON = frozenset(SklearnMixture().get_params())
_FITTED = (
    *("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "converged_"),
    *("n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_", "feature_names_in_"),
)


def sklearn_form(ours: Any) -> SklearnMixture:
    """scikit-learn's estimator of the same parameters, fitted if ours is."""
    theirs = SklearnMixture()
    theirs.set_params(**{k: v for k, v in ours.get_params().items() if k in COMMON})
    if hasattr(ours, "weights_") and len(ours.weights_) != ours.n_components:
        # One was dropped, and start values of all of them fit no more.
        starts = dict.fromkeys(("weights_init", "means_init", "precisions_init"))
        theirs.set_params(n_components=len(ours.weights_), **starts)
    return copied(ours, theirs)


def copied(source: Any, target: Any) -> Any:
    """The target, with what the source was fitted to."""
    for name in _FITTED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, value.copy() if hasattr(value, "copy") else value)
    return target
