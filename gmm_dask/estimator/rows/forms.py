"""Rows in memory in every form a user has them: checked numbers in the order of the features."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import _check_feature_names, _check_n_features

from gmm_dask.engine import Survey
from gmm_dask.errors import DataError
from gmm_dask.estimator.rows.frames import (
    Numbers,
    column_values,
    frame_values,
    is_of_arrow,
    of_arrow,
    table_values,
)
from gmm_dask.estimator.rows.values import Headings, Values, array_values, listed_values
from gmm_dask.kinds import element_of
from gmm_dask.mixture.row_arithmetic import Missing

MAX_NAMED = 5  # columns that one message names

Names = tuple[Any, ...] | None  # of the features, where they have names


def names_of(estimator: Any) -> Names:
    """Names of the features that an estimator was fitted on; None where they have none."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else tuple(names)


def columns_of(estimator: Any) -> Names:
    """What the columns were called that an estimator was fitted on: names, numbers or dates."""
    names = names_of(estimator)
    return getattr(estimator, "_columns", None) if names is None else names


def check_names(estimator: Any, rows: Any, names: Names, *, reset: bool) -> None:
    """Check names as scikit-learn does, and note in a fit what it has no names for.

    Parameters
    ----------
    rows : array, or table of no rows
        What scikit-learn looks at.
    names : sequence, optional
        What the columns are called.
    """
    _check_feature_names(estimator, rows, reset=reset)
    if reset:
        estimator._columns = None if names_of(estimator) else names


def check_survey(
    surveyed: Survey,
    n_components: int,
    missing: Missing,
    names: Names,
    chunks: Sequence[str] | None = None,
) -> None:
    """Raise DataError where the rows cannot be fitted.

    Parameters
    ----------
    names : sequence, optional
        Names of the features.
    chunks : sequence of str, optional
        What each chunk of the rows is called.
    """
    any_missing = np.array([chunk.has_missing for chunk in surveyed.chunks])
    any_infinite = np.array([chunk.has_infinite for chunk in surveyed.chunks])
    _check(any_missing, any_infinite, missing, names, chunks)
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


def checked_rows(
    X: Values, weights: Values | None, missing: Missing, names: Names, where: str | None = None
) -> Values:
    """The rows, if all values can be used of those that are not of weight 0."""
    if weights is None or len(weights) != len(X):  # the pass says which lengths these are
        return checked_values(X, missing, names, where)
    if not np.isfinite(X).all():
        checked_values(X[weights != 0], missing, names, where)
    return X


def checked_values(X: Values, missing: Missing, names: Names, where: str | None = None) -> Values:
    """The rows, if all values can be used.

    Parameters
    ----------
    X : (n, d)
    missing : {"error", "drop", "em"}
    names : (d,), optional
        Names of the features.
    where : str, optional
        What these rows are called, such as "partition 3".
    """
    if not np.isfinite(X).all():
        nan, infinite = np.isnan(X), np.isinf(X)
        chunks = None if where is None else (where,) * len(X)
        _check(nan, infinite, missing, names, chunks)
    return X


def weight_values(weights: Any) -> Values:
    """Weights in any form in memory as float64 (n,), each of which is one."""
    values = np.asarray(column_values(weights, "sample_weight"), dtype=np.float64)
    if not ((values >= 0) & np.isfinite(values)).all():
        raise DataError("Some of the sample weights are negative, missing (NaN) or infinite.")
    return values


def _check(
    any_missing: Values,
    any_infinite: Values,
    missing: Missing,
    names: Names,
    chunks: Sequence[str] | None,
) -> None:
    """Raise DataError for flags by chunk or row, (c, d); `chunks` says where each of them is."""
    bad, hint = [], ""
    if missing == "error" and any_missing.any():
        bad.append(f"missing values (NaN) in {_places(any_missing, names, chunks)}")
        hint = " Or set missing to 'em' or 'drop'."
    if any_infinite.any():
        bad.append(f"infinity in {_places(any_infinite, names, chunks)}")
    if bad:
        raise DataError(f"Input contains {' and '.join(bad)}. Remove or replace them first.{hint}")


def _places(chosen: Values, names: Names, chunks: Sequence[str] | None) -> str:
    """The columns, and the chunks where they have names."""
    columns = _columns(np.any(chosen, axis=0), names)
    if chunks is None or len(chunks) != len(chosen):
        return columns
    where = dict.fromkeys(chunks[int(i)] for i in np.flatnonzero(np.any(chosen, axis=1)))
    return f"{columns} ({_first(where)})"


def _columns(chosen: Values, names: Names) -> str:
    found = [repr(j if names is None else names[j]) for j in map(int, np.flatnonzero(chosen))]
    return f"column{'s' if len(found) > 1 else ''} {_first(found)}"


def _first(words: Iterable[str]) -> str:
    found = list(words)
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return f"{', '.join(found[:MAX_NAMED])}{more}"


@dataclass(frozen=True, eq=False)
class Features:
    """Rows as a model takes them, their values still to be checked.

    Parameters
    ----------
    X : (n, d), float64 or float32
    order : tuple of int, optional
        For each feature its column among the rows as they came; where not given, the features are
        the columns in their order. first, and so on.
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
    fitted = None if reset else columns_of(estimator)
    values, names = numbers_of(X, fitted)
    order = None if names is None else order_of(names, fitted)
    if order is not None:
        values, names = values[:, list(order)], fitted
    check_names(estimator, values if names is None else header(names), names, reset=reset)
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
    """The position of each feature among the columns; None unless only their order differs."""
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
    if all(isinstance(name, str) for name in (*own, *names)) and set(own) != set(names):
        raise DataError(
            f"The columns of means_init are {', '.join(own)}, the features {', '.join(names)}. "
            "Name them alike, or give an array."
        )
    order = order_of(own, names)
    return means if order is None else means.iloc[:, list(order)]


def lengths_of(features: Sequence[Any]) -> dict[str, int]:
    """How long the lists of a column are, where features are their elements."""
    found = (element_of(name) for name in features if isinstance(name, str))
    return dict(Counter(each[0] for each in found if each and each[0] not in features))


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
