"""Rows and weights that cannot be used are refused: by column, with the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmm_dask.engine import Survey
from gmm_dask.errors import DataError
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.rows.frames import column_values
from gmm_dask.rows.values import Values

MAX_NAMED = 5  # columns that one message names

Names = tuple[Any, ...] | None  # of the features, where they have names


def names_of(estimator: Any) -> Names:
    """Names of the features that an estimator was fitted on; None where they have none."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else tuple(names)


def check_survey(surveyed: Survey, n_components: int, missing: Missing, names: Names) -> None:
    """Raise DataError where the rows cannot be fitted."""
    any_missing = np.any([chunk.has_missing for chunk in surveyed.chunks], axis=0)
    any_infinite = np.any([chunk.has_infinite for chunk in surveyed.chunks], axis=0)
    _check(any_missing, any_infinite, missing, names)
    if surveyed.n_usable and surveyed.sum_weight == 0:
        raise DataError("The sample weights sum to zero: there are no rows to fit.")
    empty = surveyed.spread.weight == 0
    if missing == "em" and surveyed.n_usable and empty.any():
        raise DataError(
            f"There is no value in any row that counts in {_columns(empty, names)}: leave it out."
        )
    if surveyed.n_eligible < n_components:
        raise DataError(
            f"Expected n_samples >= n_components but got n_components = {n_components}, "
            f"n_samples = {surveyed.n_eligible} (rows that can be used, of positive weight)"
        )


def checked_rows(X: Values, weights: Values | None, missing: Missing, names: Names) -> Values:
    """The rows, if all values can be used of those that are not of weight 0."""
    if weights is None or len(weights) != len(X):  # the pass says which lengths these are
        return checked_values(X, missing, names)
    if not np.isfinite(X).all():
        checked_values(X[weights != 0], missing, names)
    return X


def checked_values(X: Values, missing: Missing, names: Names) -> Values:
    """The rows, if all values can be used."""
    if not np.isfinite(X).all():
        nan, infinite = np.isnan(X), np.isinf(X)
        _check(np.any(nan, axis=0), np.any(infinite, axis=0), missing, names)
    return X


def weight_values(weights: Any) -> Values:
    """Weights in any form in memory as float64 (n,), each of which is one."""
    values = np.asarray(column_values(weights, "sample_weight"), dtype=np.float64)
    if not ((values >= 0) & np.isfinite(values)).all():
        raise DataError("Some of the sample weights are negative, missing (NaN) or infinite.")
    return values


def _check(any_missing: Values, any_infinite: Values, missing: Missing, names: Names) -> None:
    bad, hint = [], ""
    if missing == "error" and any_missing.any():
        bad.append(f"missing values (NaN) in {_columns(any_missing, names)}")
        hint = " Or set missing to 'em' or 'drop'."
    if any_infinite.any():
        bad.append(f"infinity in {_columns(any_infinite, names)}")
    if bad:
        raise DataError(f"Input contains {' and '.join(bad)}. Remove or replace them first.{hint}")


def _columns(chosen: Values, names: Names) -> str:
    found = [repr(j if names is None else names[j]) for j in map(int, np.flatnonzero(chosen))]
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return f"column{'s' if len(found) > 1 else ''} {', '.join(found[:MAX_NAMED])}{more}"
