"""GaussianMixtureSelector: the number of components and the family chosen in shared passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from gmm_dask.errors import SettingsError
from gmm_dask.estimator.fitted import FittedMixture
from gmm_dask.estimator.gaussian_mixture import GaussianMixture, as_estimator, seed_sequence
from gmm_dask.estimator.listening import rows_to_fit, warn_user
from gmm_dask.fitting.choice import CRITERIA, Candidate
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.roads.grid_run import Grid, SelectedRows, select_rows

RANGE = tuple(range(1, 11))


class GaussianMixtureSelector(FittedMixture):
    """Fits mixtures of several numbers of components and families, and keeps the best.

    All candidates are advanced by the same passes: rows are read as often as for the longest of the
    fits alone, and once more for the criteria. With `init_params` auto, the default, the searches
    of a family share what they know of the rows, and each also begins from the mixtures of one
    component more and less: a candidate may so come to a better optimum than a `GaussianMixture` of
    its parameters, or to another one. With any other `init_params` it comes to what that comes to.
    A candidate lower than one of fewer components starts again from a split of that one.

    Parameters
    ----------
    n_components : int or iterable of int, default=range(1, 11)
        The numbers of components that are tried.
    covariance_types : str or list of str, default="full"
        The families that are tried.
    criterion : {"bic", "icl", "aic", "mml", "held_out", "prediction_strength"}, default="bic"
        What the choice is made by. Of bic, icl, aic and mml the lowest is the best. held_out is the
        mean log-density of a fifth of the rows, by a hash, under a fit to the others.
        prediction_strength (Tibshirani and Walther 2005) says whether fits to two halves of the
        rows put the same rows together; the most components of at least 0.8 are chosen.
        mml is the minimum message length of Figueiredo and Jain 2002: there is one fit of the most
        components on the sample, of which those die that are not worth their parameters; each
        number of components starts where that fit came to rest with it, and no other is tried.
    n_init : int, default=1
        Seeds of each candidate's starts; of a search, the second and further ones serve where the
        best was not found again.
    random_state : int, RandomState or None
        Seed of the starts, of the folds and of the sample; the same integer gives the same bits.
    n_bootstrap : int, default=0
        Draws of a likelihood ratio test of the best against one component more (McLachlan 1987), on
        4,096 rows of the sample; 0 for no test.
    estimator : GaussianMixture, optional
        What the candidates have in common beside: `tol`, `missing`, priors, `verbose`.

    Attributes
    ----------
    best_estimator_ : GaussianMixture
        Fitted; `predict` and the other methods are its own.
    best_params_ : dict
        The `n_components` and `covariance_type` of the best estimator.
    best_score_ : float
        The criterion of the best estimator.
    results_ : dict of arrays
        A row for each candidate, the best first: rank, n_components, covariance_type, the criteria,
        the difference of the criterion from the best, log_likelihood, the gain in log-likelihood
        per component more, n_parameters, n_passes, converged, and where it started from.
    reason_ : list of str
        Why the best was chosen, in words.
    elbow_ : int or None
        Number of components at which the log-likelihood bends the most.
    bootstrap_ : Bootstrap or None
        The test, with its `p_value`.
    n_reads_ : int
        Times that all rows were read.
    n_features_in_ : int
    feature_names_in_ : array of str, where the input names its columns
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), "array-like", range],
        "covariance_types": [str, "array-like"],
        "criterion": [StrOptions(set(CRITERIA))],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "n_bootstrap": [Interval(Integral, 0, None, closed="left")],
        "estimator": [GaussianMixture, None],
    }

    def __init__(
        self,
        n_components: int | Iterable[int] = RANGE,
        *,
        covariance_types: str | Sequence[str] = "full",
        criterion: str = "bic",
        n_init: int = 1,
        random_state: Any = None,
        n_bootstrap: int = 0,
        estimator: GaussianMixture | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_types = covariance_types
        self.criterion = criterion
        self.n_init = n_init
        self.random_state = random_state
        self.n_bootstrap = n_bootstrap
        self.estimator = estimator

    @property
    def missing(self) -> Missing:  # type: ignore[override]
        """What a missing value means: as the estimator says."""
        return "error" if self.estimator is None else self.estimator.missing

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixtureSelector:
        """Fit all candidates and keep the best.

        Parameters
        ----------
        X, sample_weight
            As `GaussianMixture.fit` takes them.
        y : ignored

        Raises
        ------
        DataError
            Rows or weights that cannot be used.
        SettingsError
            There is no candidate, or a number or family is none.
        StarvedComponentError
            Every candidate had components in trouble.
        """
        base = self._base()
        found = self._selected(base, X, sample_weight)
        best, selection = found.fitted.result, found.selection
        chosen = selection.best.candidate._asdict()
        self.best_estimator_ = base.set_params(**chosen)
        self.best_estimator_._keep(best)
        self.best_params_ = chosen
        self.best_score_ = selection.best.value(self.criterion)
        self.results_ = {name: _column(values) for name, values in selection.table.items()}
        self.reason_ = selection.reason
        self.elbow_ = selection.elbow
        self.bootstrap_ = selection.bootstrap
        self.n_reads_ = found.fitted.n_reads
        if not best.converged and base.max_iter > 0:
            warn_user(
                f"The best candidate did not converge: {best.outcome.advice}", ConvergenceWarning
            )
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit all candidates and label the rows by the best; the same as fit(X).predict(X)."""
        return self.fit(X, y, sample_weight).predict(X)

    def save(self, path: Any) -> None:
        """See GaussianMixture: the best of the candidates."""
        check_is_fitted(self)
        self.best_estimator_.save(path)

    def publish(self, out: str) -> str:
        """See GaussianMixture: the best of the candidates."""
        check_is_fitted(self)
        return str(self.best_estimator_.publish(out))

    def _selected(self, base: GaussianMixture, X: Any, sample_weight: Any) -> SelectedRows:
        grid = Grid(self._candidates(), self.criterion, self.n_bootstrap)
        with rows_to_fit(base, X, sample_weight, reset=True) as (data, backend, listening):
            for name in ("n_features_in_", "feature_names_in_", "_columns"):
                if hasattr(base, name):
                    setattr(self, name, getattr(base, name))
                elif hasattr(self, name):
                    delattr(self, name)
            seeds = seed_sequence(self.random_state).spawn(1 + self.n_init)
            return select_rows(data, backend, base._settings(), grid, listening, seeds=seeds)

    def _base(self) -> GaussianMixture:
        """An estimator of the common parameters, that has the most components of all."""
        base = GaussianMixture() if self.estimator is None else clone(self.estimator)
        for name in ("weights_init", "means_init", "precisions_init"):
            if getattr(base, name) is not None:
                raise SettingsError(
                    f"estimator has {name}, which starts one number of components: leave it out, "
                    "for candidates find starts of their own."
                )
        most = max(each.n_components for each in self._candidates())
        given = {"n_init": self.n_init, "random_state": self.random_state}
        return base.set_params(n_components=most, **given)  # type: ignore[no-any-return]

    def _candidates(self) -> list[Candidate]:
        """Every number with every family, each once, in order."""
        several = isinstance(self.n_components, Iterable)
        numbers: Any = self.n_components if several else [self.n_components]
        one = isinstance(self.covariance_types, str)
        families: Any = [self.covariance_types] if one else self.covariance_types
        counts = {int(n) for n in numbers if isinstance(n, Integral) and int(n) >= 1}
        if len(counts) < len(set(numbers)) or not counts:
            raise SettingsError(
                f"n_components is {self.n_components!r}: give positive integers, such as "
                "range(1, 11)."
            )
        if not len(families):
            raise SettingsError("covariance_types is empty: give at least one, such as full.")
        for each in families:
            family(each)
        return [Candidate(n, str(each)) for each in dict.fromkeys(families) for n in sorted(counts)]

    def _other(self, parameters: Parameters, features: Sequence[Any]) -> GaussianMixture:
        return as_estimator(self, parameters, features)

    def _parameters(self) -> Parameters:
        check_is_fitted(self)
        found: Parameters = self.best_estimator_._parameters()
        return found


def _column(values: Sequence[Any]) -> Any:
    """A column of the table as an array; what is not known of a candidate is NaN."""
    return np.array([np.nan if value is None else value for value in values])
