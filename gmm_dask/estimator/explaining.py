"""What a fitted mixture tells beyond labels: reasons, and mixtures of some of the features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from gmm_dask.errors import DataError
from gmm_dask.estimator.rows.forms import checked_values, features_of, names_of
from gmm_dask.estimator.rows.lazy import frame_part, is_frame
from gmm_dask.estimator.rows.user_rows import is_lazy, is_path, lazy_array
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.marginals import conditional
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic

Values = npt.NDArray[Any]


class Explaining(ABC):
    """Reasons, marginal and conditional mixtures of a fitted one."""

    missing: Missing

    @abstractmethod
    def _parameters(self) -> Parameters:
        """The fitted mixture; raises NotFittedError where there is none."""

    def _mixture(self) -> Parameters:
        """The fitted mixture, whose weights sum to one; raises NotFittedError."""
        return self._parameters()

    @abstractmethod
    def _other(self, parameters: Parameters, features: Sequence[Any]) -> Any:
        """Another mixture, made of the fitted one, as an estimator that is as fitted.

        Parameters
        ----------
        parameters : Parameters
        features : sequence of (d,)
            What its features are called, where those of this mixture have names.
        """

    def reasons(self, X: Any, n_columns: int = 3) -> Any:
        """Why each row is unusual in its component, and why it has its label, as a DataFrame.

        Columns: `label`, `log_density` and `next_label`, the second most likely component. Then,
        for i from 1 to n_columns, the columns that are farthest from what the others let expect,
        `column_i`, with `z_i`, the distance in standard deviations given the other columns, and
        `expected_i`; z_i squared is what the squared Mahalanobis distance loses where the value is
        replaced by the expected one. The columns that speak most for the label and against the next
        are `label_column_i`, with `evidence_i`, the log-odds that the value adds given the other
        columns. Of rows with missing values all is said of those that are there; a row of noise is
        compared with the component that it would be of without noise.

        Parameters
        ----------
        X : what `predict` takes
        n_columns : int
            Columns that are named for a row, at most.

        Returns
        -------
        pandas DataFrame with the index of X; of Dask rows, or a path, a Dask DataFrame.
        """
        check_is_fitted(self)
        work = _RowReasons(self, n_columns)
        if is_frame(X):
            part = frame_part(self, X, reset=False)
            meta = work(np.empty((0, work.parameters.n_features)), X._meta.index)
            return X.map_partitions(_of_partition, work, part, meta=meta)
        if is_lazy(X) or is_path(X):
            import dask.dataframe as dd
            from dask import delayed

            blocks = lazy_array(self, X, self.missing).to_delayed().ravel()
            meta = work(np.empty((0, work.parameters.n_features)), None)
            return dd.from_delayed([delayed(work)(block) for block in blocks], meta=meta)
        index = None if isinstance(X, list | tuple) else getattr(X, "index", None)
        return work(features_of(self, X, reset=False).X, index)

    def marginal(self, features: Sequence[Any]) -> Any:
        """The mixture of some of the features, by name or number and in that order, fitted.

        Raises
        ------
        DataError
            There is no such feature, or one is named twice, or none is named.
        """
        check_is_fitted(self)
        return self._other(self._mixture().marginal(self._places(features)), features)

    def conditional(self, given: Mapping[Any, float]) -> Any:
        """The mixture of the other features where some have given values, fitted.

        `weights_ @ means_` of it is the value to be expected, `sample` draws from it, and
        `score_samples` is the density of the others given these.

        Parameters
        ----------
        given : mapping of feature, by name or number, to value

        Raises
        ------
        DataError
            There is no such feature, no other one is left, or a value is not finite.
        """
        check_is_fitted(self)
        parameters = self._mixture()
        places = self._places(list(given))
        try:
            values = np.array([*given.values()], dtype=np.float64)
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if len(places) == parameters.n_features:
            raise DataError("All features are given, so that no other one is left: leave one out.")
        if not np.isfinite(values).all():
            raise DataError(f"Every given value must be finite; got {dict(given)}.")
        names = names_of(self) or tuple(range(parameters.n_features))
        left = [name for j, name in enumerate(names) if j not in places]
        return self._other(conditional(parameters, places, values), left)

    def _places(self, features: Sequence[Any]) -> npt.NDArray[np.intp]:
        """The indices of features that are given by their names, or else by their numbers."""
        known = names_of(self) or tuple(range(self._parameters().n_features))
        place = {name: j for j, name in enumerate(known)}
        if isinstance(features, str) or not len(features):
            raise DataError("Name the features in a list, at least one.")
        problems = [f"There is no feature {each!r}." for each in features if each not in place]
        problems += [
            f"The feature {each!r} is named twice."
            for each in dict.fromkeys(features)
            if list(features).count(each) > 1
        ]
        if problems:
            shown = ", ".join(map(repr, known[:30]))
            raise DataError([*problems, f"The features are {shown}."])
        return np.array([place[each] for each in features], dtype=np.intp)


class _RowReasons:
    """The table of reasons for one block of rows."""

    def __init__(self, mixture: Any, n_columns: int) -> None:
        if n_columns < 1:
            raise DataError(f"n_columns is {n_columns}; name at least one column for each row.")
        self.parameters: Parameters = mixture._mixture()
        self.names = names_of(mixture)
        self.arithmetic = RowArithmetic.chosen(mixture.missing)
        self.n_columns = min(n_columns, self.parameters.n_features)

    def __call__(self, X: Values, index: Any = None) -> Any:
        import pandas as pd

        checked_values(X, self.arithmetic.missing, self.names)
        kept = self.arithmetic.usable(X)
        scores = self.arithmetic.score(X[kept], self.parameters)
        label, density = np.full(len(X), -1), np.full(len(X), np.nan)
        label[kept], density[kept] = scores.labels, scores.log_density
        found: dict[str, Any] = {"label": label, "log_density": density}
        found |= self._reasons(X, kept)
        names = [name for name, values in found.items() if values.dtype == object]
        # pandas makes text of objects where there are rows, and would not where there are none.
        return pd.DataFrame(found, index=index).astype(dict.fromkeys(names, object))

    def _reasons(self, X: Values, kept: Values) -> dict[str, Any]:
        used, others = X[kept], None
        best = np.zeros(len(used), np.intp)
        next_label = np.full(len(X), -1)
        if self.parameters.n_components > 1:
            best, others = self.arithmetic.two_best(used, self.parameters)
            next_label[kept] = others
        asked = (used, self.parameters, best, others, self.n_columns)
        of_rows, of_labels = self.arithmetic.explain(*asked)
        found: dict[str, Any] = {"next_label": next_label}
        for i in range(self.n_columns):
            found[f"column_{i + 1}"] = self._named(of_rows.columns[:, i], kept)
            found[f"z_{i + 1}"] = _placed(of_rows.scores[:, i], kept)
            found[f"expected_{i + 1}"] = _placed(of_rows.expected[:, i], kept)
        for i in range(self.n_columns if of_labels is not None else 0):
            assert of_labels is not None
            found[f"label_column_{i + 1}"] = self._named(of_labels.columns[:, i], kept)
            found[f"evidence_{i + 1}"] = _placed(of_labels.evidence[:, i], kept)
        return found

    def _named(self, columns: Values, kept: Values) -> Values:
        """Names, or numbers, of the columns, (n,) objects; None where there is none."""
        names = self.names or range(self.parameters.n_features)
        known = np.array([*names, None], dtype=object)
        result = np.full(len(kept), None, dtype=object)
        result[kept] = known[columns]  # -1 is the last
        return result


def _of_partition(
    frame: Any, work: _RowReasons, part: Any, partition_info: dict[str, Any] | None = None
) -> Any:
    return work(part(frame, partition_info), frame.index)


def _placed(values: Values, kept: Values) -> Values:
    result = np.full(len(kept), np.nan)
    result[kept] = values
    return result
