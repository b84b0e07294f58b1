"""GaussianMixture: scikit-learn's estimator on data of any size."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import _fit_context
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from gmm_dask import engine, fitting
from gmm_dask.errors import DataError, SettingsError, SingularCovarianceError
from gmm_dask.estimator.fitted import FittedMixture
from gmm_dask.estimator.listening import rows_to_fit, warn_unconverged
from gmm_dask.estimator.rows.forms import columns_of, in_order_of, names_of
from gmm_dask.estimator.sklearn_form import COMMON, constraints, copied, documentation, sklearn_form
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.parameters import Noise
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.roads.fitting_run import WarmStart, fit_rows
from gmm_dask.sections import MISSING, FitSettings

# scikit-learn's words, which its users look for.
ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical "
    "covariance (for instance caused by singleton or collapsed samples). Try to decrease the "
    "number of components, increase reg_covar, or scale the input data."
)

DEFAULT = FitSettings()
SEARCHED = ("n_starts_", "n_replicated_", "runner_up_difference_")

Array = npt.NDArray[np.float64]


class GaussianMixture(FittedMixture):
    """A mixture of Gaussians fitted by EM, one pass over the rows per iteration.

    Parameters, attributes and methods are those of `sklearn.mixture.GaussianMixture`. Rows may
    also be an Arrow table, a Polars DataFrame, a Dask array or DataFrame of any size, or paths to
    Parquet files; every row may have a weight, and values may be missing. In every form numbers
    are taken exactly, None, pd.NA and null are missing as NaN is, and all else is refused by the
    name of its column. Columns with names go by them. Predictions on Dask input are Dask
    collections with the same chunks and index; everything else gives NumPy arrays.

    Parameters
    ----------
    {settings}
    weights_init, means_init, precisions_init : array-like, optional
        Start values; columns of means that have names go by these.
    random_state : int, RandomState or None
        Seed of the starts and of the sample; the same integer gives the same bits.
    warm_start : bool, default=False
        Start from the last fit.
    verbose : int, default=0
        1 tells of every `verbose_interval`-th pass, and of what takes more than two seconds, 2 with
        times: through the logger "gmm_dask" where that shows INFO, else on stdout.
    verbose_interval : int, default=10

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : arrays
        The fitted mixture, in the shapes of scikit-learn. With `low_rank:q` covariances are (k, d,
        q + 1), the loadings and in a last column the variances of noise, and precisions are
        matrices (k, d, d).
    noise_share_ : float
        Share of the rows that belong to no component; weights are shares of the others. 0 without
        the setting `noise`. `predict` gives -1 where a row is noise most probably, and the rows of
        `predict_proba` sum to the probability that they are none.
    noise_box_ : (2, d) or None
        Edges of the box that noise is uniform over; outside of it its density is the same.
    converged_ : bool
    n_iter_ : int
        Passes of the start that was kept.
    lower_bound_ : float
        Log-likelihood per row of the last pass, with priors that of the posterior;
        `lower_bounds_` of all passes.
    events_ : tuple of Event
        What was done to components in trouble, and which of them are narrow: their variance in
        some columns is mostly `reg_covar`. Pass, component, cause, action, columns, message.
    merge_tree_, clusters_, n_clusters_
        Components that overlap as one cluster, (k,); made when they are asked for.
    n_starts_, n_replicated_ : int or None
        Starts of the search, and those that reached the best log-likelihood; None without one.
    runner_up_difference_ : float or None
        By how much the log-likelihood of the next best optimum that was found is lower.
    n_features_in_ : int
    feature_names_in_ : array of str, where the input names its columns
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **constraints(),
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
        n_components: int = DEFAULT.n_components,
        *,
        covariance_type: str = DEFAULT.covariance_type,
        tol: float = DEFAULT.tol,
        reg_covar: float = DEFAULT.reg_covar,
        max_iter: int = DEFAULT.max_iter,
        n_init: int = DEFAULT.n_init,
        init_params: str = DEFAULT.init_params,
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        effort: str = DEFAULT.effort,
        sample_em: bool = DEFAULT.sample_em,
        acceleration: str = DEFAULT.acceleration,
        arithmetic: str = DEFAULT.arithmetic,
        missing: Missing = MISSING.default,
        component_policy: str = DEFAULT.component_policy,
        eigenvalue_ratio: float | None = DEFAULT.eigenvalue_ratio,
        noise: bool = DEFAULT.noise,
        weight_concentration_prior: float | None = DEFAULT.weight_concentration_prior,
        mean_precision_prior: float | None = DEFAULT.mean_precision_prior,
        degrees_of_freedom_prior: float | None = DEFAULT.degrees_of_freedom_prior,
        covariance_prior: float | None = DEFAULT.covariance_prior,
        n_clusters: int | None = DEFAULT.n_clusters,
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
        self.effort = effort
        self.sample_em = sample_em
        self.acceleration = acceleration
        self.arithmetic = arithmetic
        self.missing = missing
        self.component_policy = component_policy
        self.eigenvalue_ratio = eigenvalue_ratio
        self.noise = noise
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.n_clusters = n_clusters

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Estimate the mixture.

        Parameters
        ----------
        X : (n, d) array, lists, DataFrame, Arrow table, Dask array or DataFrame, or path to Parquet
            A column of lists of one length is a feature for each of their values.
        y : ignored
        sample_weight : (n,), optional
            Non-negative; an integer weight stands for so many equal rows, and a row of weight 0
            is absent, whatever stands in it. Without priors only the ratios of weights matter.

        Raises
        ------
        DataError
            Rows or weights that cannot be used.
        SingularCovarianceError, StarvedComponentError
            A component is no density, and `component_policy` is to stop or cannot be carried out.
        """
        return self._fit(X, sample_weight)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Estimate the mixture and label its rows; the same as fit(X).predict(X)."""
        return self._fit(X, sample_weight).predict(X)

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion, Schwarz 1978; lower is better."""
        total = self._evaluated(engine.log_likelihood, X, sample_weight)
        return self._parameters().n_free_parameters * total.log_weight - 2 * _finite(total)

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike information criterion, Akaike 1974; lower is better."""
        total = self._evaluated(engine.log_likelihood, X, sample_weight)
        return 2 * self._parameters().n_free_parameters - 2 * _finite(total)

    def icl(self, X: Any, sample_weight: Any = None) -> float:
        """Integrated completed likelihood, Biernacki, Celeux, Govaert 2000; lower is better.

        The BIC of rows and labels together, each row with the label it is given.
        """
        total = self._evaluated(engine.completed_log_likelihood, X, sample_weight)
        return self._parameters().n_free_parameters * total.log_weight - 2 * _finite(total)

    def to_sklearn(self) -> SklearnMixture:
        """The same mixture as scikit-learn's GaussianMixture, fitted if this one is."""
        return sklearn_form(self)

    @classmethod
    def from_sklearn(cls, model: SklearnMixture) -> GaussianMixture:
        """scikit-learn's GaussianMixture as one of ours, fitted if that one is."""
        if not isinstance(model, SklearnMixture):
            raise DataError(f"A {type(model).__name__} is no sklearn.mixture.GaussianMixture.")
        ours = cls(**{name: getattr(model, name) for name in COMMON})
        copied(model, ours)
        if hasattr(ours, "weights_"):
            ours.events_, ours.noise_share_, ours.noise_box_ = (), 0.0, None
            for name in SEARCHED:
                setattr(ours, name, None)
        return ours

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle; parameters that one of an earlier version lacks get their defaults."""
        known = signature(type(self).__init__).parameters.values()
        missed = {p.name: p.default for p in known if p.default is not p.empty}
        if "weights_" in state:
            missed |= {"events_": (), "noise_share_": 0.0, "noise_box_": None}
            missed |= dict.fromkeys(SEARCHED)
        super().__setstate__(missed | state)

    def _fit(self, X: Any, sample_weight: Any) -> GaussianMixture:
        warm = self.warm_start and hasattr(self, "converged_")
        with rows_to_fit(self, X, sample_weight, reset=not warm) as (data, backend, listening):
            n_features = data.rows.n_features
            try:
                found = fit_rows(
                    data,
                    backend,
                    self._settings(),
                    listening,
                    seeds=seed_sequence(self.random_state).spawn(1 + self.n_init),
                    start=self._warm_start() if warm else self._given_start(n_features),
                )
            except SingularCovarianceError as error:
                message = f"{ILL_DEFINED} {error}"
                raise SingularCovarianceError(message, error.component, error.features) from None
        self._keep(found.result)
        warn_unconverged(self)
        return self

    def _settings(self) -> FitSettings:
        """The parameters as settings of a fit; scikit-learn's wrapper of `fit` has checked them."""
        names = FitSettings.model_fields.keys() & set(self._get_param_names())
        return FitSettings.model_construct(**{name: getattr(self, name) for name in names})

    @property
    def clusters_(self) -> npt.NDArray[np.int32]:
        """The cluster of each component; SettingsError where more are asked for than components."""
        # Not when it is fitted: scikit-learn's checks fit one component with n_clusters=2.
        if (problem := self._settings().clusters_problem) is not None:
            raise SettingsError(f"{problem}.")
        return super().clusters_

    @property
    def _objective(self) -> str:
        return f"{self._settings().objective} per row"

    def _warm_start(self) -> WarmStart:
        return WarmStart(self._parameters(), self.lower_bound_)

    def _given_start(self, n_features: int) -> fitting.Given | None:
        """The start values that the user set, checked; None if there are none."""
        means = in_order_of(columns_of(self), self.means_init)
        values = (self.weights_init, means, self.precisions_init)
        if all(each is None for each in values):
            return None
        return fitting.checked_start(*values, (self.n_components, n_features), self.covariance_type)

    def _other(self, parameters: Parameters, features: Sequence[Any]) -> GaussianMixture:
        return as_estimator(self, parameters, features)

    def _n_parameters(self) -> int:
        """Free parameters, under scikit-learn's name."""
        return self._parameters().n_free_parameters

    def _keep(self, result: fitting.FitResult) -> None:
        found = result.parameters
        self.weights_ = found.weights.copy()
        self.means_ = found.means.copy()
        self.covariances_ = found.covariances.copy()
        self.precisions_cholesky_ = found.precisions_cholesky.copy()
        self.precisions_ = found.precisions
        noise = found.noise
        self.noise_share_ = 0.0 if noise is None else noise.share
        self.noise_box_ = None if noise is None else np.stack([noise.lower, noise.upper])
        self.converged_ = result.converged
        self.n_iter_ = result.n_passes
        self.lower_bounds_ = list(result.lower_bounds)
        self.lower_bound_ = result.lower_bounds[-1] if result.n_passes else -np.inf
        self.events_ = result.events_
        search = result.search
        self.n_starts_ = None if search is None else search.n_starts
        self.n_replicated_ = None if search is None else search.n_replicated
        self.runner_up_difference_ = None if search is None else search.runner_up_difference
        self._ended = (result.outcome, result.n_rows, result.sum_weight)

    def _parameters(self) -> Parameters:
        """The fitted arrays as a record; they are public and may have been set by hand."""
        check_is_fitted(self)
        arrays = (self.weights_, self.means_, self.covariances_, self.precisions_cholesky_)
        box = getattr(self, "noise_box_", None)
        noise = None if box is None else Noise(self.noise_share_, *box)
        try:
            return Parameters.from_arrays(*arrays, self.covariance_type, noise)
        except ValueError as error:
            raise SettingsError(f"{error}. Was covariance_type changed? Then fit anew.") from None


def _finite(total: engine.WeightedSum) -> float:
    if not np.isfinite(total.value):
        raise DataError(
            "The log-likelihood times the weights is beyond float64. Divide the weights by a "
            "number; the score, which is per unit of weight, does not depend on it."
        )
    return total.value


GaussianMixture.__doc__ = (GaussianMixture.__doc__ or "").replace("{settings}", documentation())


def as_estimator(
    of: FittedMixture, parameters: Parameters, features: Sequence[Any]
) -> GaussianMixture:
    """A mixture that was made of a fitted one, as an estimator that is as fitted as that.

    Parameters
    ----------
    of : FittedMixture
    parameters : Parameters
    features : sequence of (d,)
        What its features are called, where those of the fitted one have names.
    """
    found = GaussianMixture(
        parameters.n_components,
        covariance_type=parameters.covariance_type,
        missing=of.missing,
        random_state=of.random_state,
    )
    ended = fitting.Outcome.CONVERGED if of.converged_ else fitting.Outcome.OUT_OF_ITERATIONS
    _, n_rows, sum_weight = vars(of).get("_ended") or (None, 0, 0.0)
    found._keep(fitting.FitResult(parameters, (), ended, (parameters,), n_rows, sum_weight))
    found.n_features_in_ = parameters.n_features
    if names_of(of) is not None:
        found.feature_names_in_ = np.array(features, dtype=object)
    return found


def seed_sequence(random_state: Any) -> np.random.SeedSequence:
    """The sequence of a seed, or of the next draw of a generator; NumPy's global one for None."""
    if isinstance(random_state, Integral):
        return np.random.SeedSequence(int(random_state))
    return np.random.SeedSequence(int(check_random_state(random_state).randint(2**31 - 1)))
