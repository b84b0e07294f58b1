"""Rows in memory in every form a user has them: numbers in the order of the model's features."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import _check_feature_names, _check_n_features

from gmm_dask.errors import DataError
from gmm_dask.kinds import element_of
from gmm_dask.rows.checks import Names, names_of
from gmm_dask.rows.frames import Numbers, frame_values, is_of_arrow, of_arrow, table_values
from gmm_dask.rows.values import Headings, Values, array_values, listed_values


@dataclass(frozen=True, eq=False)
class Features:
    """Rows as a model takes them, their values still to be checked.

    Parameters
    ----------
    X : (n, d), float64 or float32
    order : tuple of int, optional
        Which column of the rows as they came each feature is; where not given the first is the
        first, and so on.
    """

    X: Values
    order: tuple[int, ...] | None = None

    def in_own_order(self, result: Values) -> Values:
        """A result (n, d) of the model with its columns where those of the rows were."""
        if self.order is None:
            return result
        found = np.empty_like(result)
        found[:, list(self.order)] = result
        return found


def features_of(estimator: Any, X: Any, *, reset: bool) -> Features:
    """Rows in memory as features; those with names go by these.

    Their number and names are set on the estimator where `reset`, or else checked against it.

    Raises
    ------
    NotNumbersError
        Every column that is no number.
    ValueError, TypeError
        Other columns than the estimator was fitted to, or no rows with columns; in the words of
        scikit-learn.
    """
    fitted = None if reset else names_of(estimator)
    values, names = numbers_of(X, fitted)
    order = None if names is None else order_of(names, fitted)
    if order is not None:
        values, names = values[:, list(order)], fitted
    _check_feature_names(estimator, values if names is None else header(names), reset=reset)
    array: Values = check_array(
        values,
        dtype=[np.float64, np.float32],
        ensure_min_samples=1 + reset,
        ensure_all_finite=False,
        estimator=estimator,
        input_name="X",
    )
    _check_n_features(estimator, array, reset=reset)
    return Features(array, order)


def numbers_of(X: Any, fitted: Names = None, within: str = "") -> Numbers:
    """Rows in memory in any form as numbers, with the names of their columns where it has some.

    Parameters
    ----------
    fitted : sequence of str, optional
        The features of the model, which tell how long lists are.
    within : str
        Where the rows are, for messages.
    """
    lengths = lengths_of(() if fitted is None else fitted)
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        return frame_values(X, within, lengths)
    if is_of_arrow(X):
        return table_values(of_arrow("table", X), within, lengths)
    if isinstance(X, list | tuple) and X and all(map(_is_row, X)):
        return Numbers(listed_values(X, Headings(within)), None)
    if hasattr(X, "toarray") or isinstance(X, np.matrix):
        return Numbers(X, None)  # scikit-learn says what it says of them
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.ndim == 0 and array.dtype.kind == "O":
        raise DataError(
            f"X is a {type(X).__name__}: give rows as an array, a DataFrame, an Arrow table or a "
            "path, and compute first what is lazy and not of Dask."
        )
    return Numbers(array_values(array, Headings(within)), None)


def order_of(names: Sequence[Any], fitted: Names) -> tuple[int, ...] | None:
    """Which of the columns each feature is, where they are the same in another order."""
    if fitted is None or list(names) == list(fitted) or set(names) != set(fitted):
        return None
    place = {name: i for i, name in enumerate(names)}
    return tuple(place[name] for name in fitted)


def in_order_of(names: Names, means: Any) -> Any:
    """Start values of the means, whose columns go by their names where they have some.

    Raises
    ------
    DataError
        They have the names of other columns than the features.
    """
    if names is None or not hasattr(means, "iloc") or not hasattr(means, "columns"):
        return means
    own = tuple(means.columns)
    if all(isinstance(name, str) for name in own) and set(own) != set(names):
        raise DataError(
            f"The columns of means_init are {', '.join(own)}, the features {', '.join(names)}. "
            "Name them alike, or give an array."
        )
    order = order_of(own, names)
    return means if order is None else means.iloc[:, list(order)]


def lengths_of(features: Sequence[Any]) -> dict[str, int]:
    """How long the lists of a column are, where features are their elements."""
    found = (element_of(name) for name in features if isinstance(name, str))
    return dict(Counter(each[0] for each in found if each))


def _is_row(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return True
    sized = hasattr(value, "__len__") and not isinstance(value, str | bytes | dict)
    return sized and getattr(value, "ndim", 1) > 0


def header(names: Sequence[Any]) -> Any:
    """A table of no rows, whose names scikit-learn checks."""
    if "pandas" in sys.modules or not all(isinstance(name, str) for name in names):
        import pandas as pd

        return pd.DataFrame(columns=pd.Index(list(names), dtype=object, tupleize_cols=False))
    import pyarrow as pa

    return pa.table({name: pa.nulls(0) for name in names})
