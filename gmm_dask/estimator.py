"""GaussianMixture: scikit-learn's estimator on data of any size."""

from __future__ import annotations

import logging
import sys
import warnings
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from gmm_dask import fitting
from gmm_dask.engine import ClusterBackend, LocalBackend, RowChunks, expectation, row_chunks, survey
from gmm_dask.engine.backends import Backend
from gmm_dask.engine.cluster import available_cores
from gmm_dask.errors import DataError, SingularCovarianceError
from gmm_dask.mixture import (
    COVARIANCE_FAMILIES,
    Parameters,
    SufficientStatistics,
    mixture_sample,
    responsibilities,
)
from gmm_dask.mixture import labels as row_labels
from gmm_dask.mixture import log_density as row_log_density

logger = logging.getLogger("gmm_dask")

CHUNK_BYTES = 4 << 20  # arrays in memory are cut this fine, so that every core has work
# scikit-learn's words, which its users look for.
ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical "
    "covariance (for instance caused by singleton or collapsed samples). Try to decrease the "
    "number of components, increase reg_covar, or scale the input data."
)
INIT_ROWS = 65536  # rows at most that a start is found on
Array = npt.NDArray[np.float64]


class GaussianMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A mixture of Gaussians fitted by EM, one pass over the rows per iteration.

    Parameters, attributes and methods are those of `sklearn.mixture.GaussianMixture`; rows may
    also be a Dask array or DataFrame of any size, or a path to Parquet files, and every row may
    have a weight. Predictions on Dask input are Dask arrays with the same chunks.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        Stop when the log-likelihood per row changes by less.
    reg_covar : float, default=1e-6
        Added to every variance, in squared units of the data.
    max_iter : int, default=100
    n_init : int, default=1
        Starts; the one of largest final log-likelihood is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        Works on standardised columns of at most 65,536 rows drawn at random.
    weights_init, means_init, precisions_init : array-like, optional
    random_state : int, RandomState or None
    warm_start : bool, default=False
        Start from the last fit.
    verbose : int, default=0
        1 logs every `verbose_interval`-th pass to the logger "gmm_dask", 2 with times.
    verbose_interval : int, default=10

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : arrays
    converged_ : bool
    n_iter_ : int
        Passes of the start that was kept.
    lower_bound_ : float
        Log-likelihood per row of the last pass; `lower_bounds_` of all.
    n_features_in_ : int
    feature_names_in_ : array of str, where the input names its columns
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(COVARIANCE_FAMILIES))],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(fitting.INIT_METHODS))],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Estimate the mixture.

        Parameters
        ----------
        X : (n, d) array, Dask array or DataFrame, or path to Parquet files
        y : ignored
        sample_weight : (n,), optional
            Non-negative; an integer weight stands for so many equal rows.
        """
        chunks = self._rows(X, sample_weight, reset=True)
        backend = _backend(chunks)
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            try:
                results = self._fit_all(chunks, backend)
            except SingularCovarianceError as error:
                message = f"{ILL_DEFINED} {error}"
                raise SingularCovarianceError(message, error.component) from None
        self._keep(fitting.best_of(results))
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, "
                "or increase max_iter, tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Estimate the mixture and label its rows; the same as fit(X).predict(X)."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: Any) -> Any:
        """Component of largest responsibility for each row, (n,)."""
        return self._map(X, row_labels, np.int64)

    def predict_proba(self, X: Any) -> Any:
        """Responsibility of each component for each row, (n, k)."""
        return self._map(X, responsibilities, np.float64, columns=self.n_components)

    def score_samples(self, X: Any) -> Any:
        """Log-density of each row, (n,)."""
        return self._map(X, row_log_density, np.float64)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-density per unit of weight."""
        return self._evaluate(X, sample_weight).lower_bound

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion, Schwarz 1978; lower is better."""
        statistics = self._evaluate(X, sample_weight)
        n_free = self._parameters().n_free_parameters
        return float(n_free * np.log(statistics.sum_weight) - 2 * statistics.log_likelihood)

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike information criterion, Akaike 1974; lower is better."""
        statistics = self._evaluate(X, sample_weight)
        return float(2 * self._parameters().n_free_parameters - 2 * statistics.log_likelihood)

    def sample(self, n_samples: int = 1) -> tuple[Array, npt.NDArray[np.int64]]:
        """Rows drawn from the mixture (n_samples, d), and their components (n_samples,)."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples} . The sampling requires at "
                "least one sample."
            )
        return mixture_sample(self._parameters(), n_samples, check_random_state(self.random_state))

    def _rows(self, X: Any, sample_weight: Any, *, reset: bool) -> RowChunks:
        """X as chunks, with the number and names of its features checked."""
        if isinstance(X, str | Path):
            if sample_weight is not None:
                raise DataError(
                    "sample_weight cannot go with a path to Parquet: give the rows as a Dask "
                    "DataFrame, or use the stage with data.weight_column."
                )
            from gmm_dask.dataset import planned_rows
            from gmm_dask.storage import plan_dataset

            names = None if reset else tuple(getattr(self, "feature_names_in_", ())) or None
            plan = plan_dataset(str(X), features=names)
            chunks, named = planned_rows(plan), np.array(plan.features, dtype=object)
            if reset:
                self.n_features_in_, self.feature_names_in_ = len(named), named
            return chunks
        if _is_lazy(X):
            self._check_lazy(X, reset)
            return row_chunks(X, sample_weight)
        X = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=1 + reset
        )
        return row_chunks(X, sample_weight, CHUNK_BYTES)

    def _check_lazy(self, X: Any, reset: bool) -> None:
        names = getattr(X, "columns", None)
        if reset:
            self.n_features_in_ = int(X.shape[1])
            if names is not None:
                self.feature_names_in_ = np.asarray(names, dtype=object)
        elif int(X.shape[1]) != self.n_features_in_:
            raise DataError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        elif names is not None and list(names) != list(getattr(self, "feature_names_in_", names)):
            raise DataError(
                f"X has the columns {list(names)}; the mixture was fitted on "
                f"{list(self.feature_names_in_)}."
            )

    def _fit_all(self, chunks: RowChunks, backend: Backend) -> list[fitting.FitResult]:
        seeds = _seed_sequence(self.random_state).spawn(1 + self.n_init)
        surveyed, chunks = survey(chunks, backend, sample_rows=INIT_ROWS, seed=seeds[0])
        bad = [
            what
            for what, count in (
                ("missing values (NaN)", sum(int(c.n_missing.sum()) for c in surveyed.chunks)),
                ("infinity", sum(int(c.n_infinite.sum()) for c in surveyed.chunks)),
                ("bad weights", sum(c.n_bad_weights for c in surveyed.chunks)),
            )
            if count
        ]
        if bad:
            raise DataError(f"Input contains {' and '.join(bad)}. Remove or replace them first.")
        if sum(chunk.sum_weight for chunk in surveyed.chunks) == 0:
            raise DataError("The sample weights sum to zero: there are no rows to fit.")
        if surveyed.n_rows < self.n_components:
            raise DataError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {surveyed.n_rows}"
            )
        given = fitting.checked_start(
            self.weights_init,
            self.means_init,
            self.precisions_init,
            (self.n_components, self.n_features_in_),
            self.covariance_type,
        )
        pass_over_all = expectation(chunks, backend)
        warm = self.warm_start and hasattr(self, "converged_")
        starts = (
            [self._parameters()]
            if warm
            else [
                fitting.initialize(
                    surveyed.sample,
                    self.n_components,
                    self.covariance_type,
                    init_params=self.init_params,
                    reg_covar=self.reg_covar,
                    seed=seed,
                    sample_weight=surveyed.sample_weight,
                    given=given,
                )
                for seed in seeds[1:]
            ]
        )
        return [
            fitting.fit(
                pass_over_all,
                start,
                tol=self.tol,
                max_iter=self.max_iter,
                reg_covar=self.reg_covar,
                watch=self._watch if self.verbose else None,
                start=number,
                previous=self.lower_bound_ if warm else -np.inf,
            )
            for number, start in enumerate(starts, start=1)
        ]

    def _n_parameters(self) -> int:
        """Free parameters, under scikit-learn's name."""
        return self._parameters().n_free_parameters

    def _watch(self, record: fitting.Pass) -> None:
        if record.number % self.verbose_interval and record.number > 1:
            return
        line = "start %d pass %d: log-likelihood per row %.10g, change %.3g"
        values: tuple[Any, ...] = (record.start, record.number, record.lower_bound, record.change)
        if self.verbose > 1:
            line, values = f"{line}, %.3f s", (*values, record.seconds)
        logger.info(line, *values)

    def _keep(self, result: fitting.FitResult) -> None:
        found = result.parameters
        self.weights_ = found.weights.copy()
        self.means_ = found.means.copy()
        self.covariances_ = found.covariances.copy()
        self.precisions_cholesky_ = found.precisions_cholesky.copy()
        self.precisions_ = found.precisions
        self.converged_ = result.converged
        self.n_iter_ = result.n_passes
        self.lower_bounds_ = list(result.lower_bounds)
        self.lower_bound_ = result.lower_bounds[-1] if result.n_passes else -np.inf

    def _parameters(self) -> Parameters:
        """The fitted arrays as a record; they are public and may have been set by hand."""
        check_is_fitted(self)
        return Parameters(
            self.weights_,
            self.means_,
            self.covariances_,
            self.precisions_cholesky_,
            self.covariance_type,
        )

    def _evaluate(self, X: Any, sample_weight: Any) -> SufficientStatistics:
        parameters = self._parameters()
        chunks = self._rows(X, sample_weight, reset=False)
        return expectation(chunks, _backend(chunks))(parameters)

    def _map(self, X: Any, function: Any, dtype: Any, columns: int | None = None) -> Any:
        parameters = self._parameters()
        lazy = _is_lazy(X) or isinstance(X, str | Path)
        if not lazy:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
            return function(X, parameters).astype(dtype, copy=False)
        rows = self._rows(X, None, reset=False).X
        tail = () if columns is None else (columns,)
        return rows.map_blocks(
            _apply,
            function,
            parameters,
            np.dtype(dtype),
            dtype=dtype,
            drop_axis=1 if columns is None else None,
            chunks=(rows.chunks[0], *((n,) for n in tail)),
            meta=np.empty((0,) * (1 + len(tail)), dtype=dtype),
        )


def _apply(X: Any, function: Any, parameters: Parameters, dtype: np.dtype[Any]) -> Any:
    return function(X, parameters).astype(dtype, copy=False)


def _is_lazy(X: Any) -> bool:
    return hasattr(X, "__dask_graph__")


def _backend(chunks: RowChunks) -> Backend:
    """The client the user has open, if any; else threads of this process."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        try:
            return ClusterBackend(distributed.default_client())
        except ValueError:
            pass
    return LocalBackend(min(available_cores(), max(1, chunks.X.numblocks[0])))


def _seed_sequence(random_state: Any) -> np.random.SeedSequence:
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, Integral):
        return np.random.SeedSequence(int(random_state))
    return np.random.SeedSequence(int(check_random_state(random_state).randint(2**31 - 1)))
