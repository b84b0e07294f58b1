"""BayesianGaussianMixture: scikit-learn's variational estimator on data of any size."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import _fit_context
from sklearn.mixture import BayesianGaussianMixture as SklearnBayesian
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from gmm_dask.errors import SettingsError
from gmm_dask.estimator.fitted import FittedMixture
from gmm_dask.estimator.gaussian_mixture import GaussianMixture, as_estimator, seed_sequence
from gmm_dask.estimator.listening import rows_to_fit, warn_unconverged
from gmm_dask.fitting.variational import Posterior, VariationalFit, VariationalPrior
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.roads.variational_run import Belief, infer_rows
from gmm_dask.sections import FitSettings

Array = npt.NDArray[np.float64]


class BayesianGaussianMixture(FittedMixture):
    """A mixture of Gaussians by variational inference, one pass over the rows per iteration.

    Parameters, attributes and methods are those of `sklearn.mixture.BayesianGaussianMixture`: how
    many of the components are used is found from the data. Rows may be of every form that
    `GaussianMixture` takes, and have weights: a row of weight 2 counts as two, as the prior counts
    as rows. With many more rows than the start's sample holds, inference begins on the sample.

    Parameters
    ----------
    n_components : int, default=1
        Components at most.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        Stop when the lower bound, of all rows together, changes by less.
    reg_covar : float, default=1e-6
        Added to every variance.
    max_iter : int, default=100
        Passes over the data at most.
    n_init : int, default=1
        Starts, which share each pass; the result of largest lower bound is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}
    weight_concentration_prior : float, optional
        The lower, the fewer components are used; 1 / n_components where not given.
    mean_precision_prior : float, optional
        Rows that the prior mean counts for; 1 where not given.
    mean_prior : (d,), optional
        The mean of the data where not given.
    degrees_of_freedom_prior : float, optional
        Degrees of freedom of the Wishart prior of a precision; where not given, the number of
        features.
    covariance_prior : float or array, optional
        In the shape of one covariance; the covariance of the data where not given.
    random_state : int, RandomState or None
        Seed of the starts; the same integer gives the same bits.
    warm_start : bool, default=False
        Start from the last fit.
    verbose, verbose_interval : int
        The same as for `GaussianMixture`.
    missing : {"error", "drop"}, default="error"
        Rows with a missing feature: an error, or label -1 and left out of the fit.
    n_clusters : int, optional
        The same as for `GaussianMixture`.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : arrays
        Expectations; covariances are the inverses of the expected precisions.
    weight_concentration_, mean_precision_, degrees_of_freedom_ : arrays
        The rest of the posterior.
    weight_concentration_prior_, mean_precision_prior_, mean_prior_, degrees_of_freedom_prior_, \
covariance_prior_ : the prior
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Lower bound of the evidence of all rows together, after the last pass; `lower_bounds_` has
        those of all passes.
    merge_tree_, clusters_, n_clusters_
        Components that overlap as one cluster, (k,); made when they are asked for.
    n_features_in_ : int
    feature_names_in_ : array of str, where the input names its columns
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SklearnBayesian._parameter_constraints,
        "missing": [StrOptions({"error", "drop"})],
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        n_components: int = 1,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weight_concentration_prior_type: str = "dirichlet_process",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: Any = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        missing: Missing = "error",
        n_clusters: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.missing = missing
        self.n_clusters = n_clusters

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BayesianGaussianMixture:
        """Infer the mixture.

        Parameters
        ----------
        X, y, sample_weight
            The same as for `GaussianMixture.fit`; the prior counts as rows of weight 1.

        Raises
        ------
        DataError
            Rows or weights that cannot be used.
        SettingsError
            A prior that is none.
        """
        return self._fit(X, sample_weight)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Infer the mixture and label its rows; the same as fit(X).predict(X)."""
        return self._fit(X, sample_weight).predict(X)

    def _fit(self, X: Any, sample_weight: Any) -> BayesianGaussianMixture:
        warm = self.warm_start and hasattr(self, "converged_")
        with rows_to_fit(self, X, sample_weight, reset=not warm) as (data, backend, listening):
            found = infer_rows(
                data,
                backend,
                self._settings(),
                self._belief(data.rows.n_features),
                listening,
                seeds=seed_sequence(self.random_state).spawn(1 + self.n_init),
                start=self._end() if warm else None,
            )
        self._keep(found.fit, found.prior)
        warn_unconverged(self)
        return self

    _objective = "lower bound per row"

    def _settings(self) -> FitSettings:
        """The settings that inference has in common with EM."""
        names = (
            *("n_components", "covariance_type", "tol", "reg_covar"),
            *("max_iter", "n_init", "init_params", "n_clusters"),
        )
        return FitSettings.model_construct(**{name: getattr(self, name) for name in names})

    def _belief(self, d: int) -> Belief:
        """The prior as it was given, checked with scikit-learn's words."""
        freedom = d if self.degrees_of_freedom_prior is None else self.degrees_of_freedom_prior
        of_weights, of_means = self.weight_concentration_prior, self.mean_precision_prior
        return Belief(
            self.weight_concentration_prior_type,  # type: ignore[arg-type]
            1.0 / self.n_components if of_weights is None else of_weights,
            1.0 if of_means is None else of_means,
            None if self.mean_prior is None else _shaped(self.mean_prior, "means", (d,)),
            freedom,
            self._covariance_prior(d),
        )

    def _covariance_prior(self, d: int) -> Array | None:
        if self.covariance_prior is None:
            return None
        cls = family(self.covariance_type)
        shape = cls.shape(1, d) if self.covariance_type == "tied" else cls.shape(1, d)[1:]
        name = f"{self.covariance_type} covariance_prior"
        found = _shaped(self.covariance_prior, name, shape)
        as_one = found if self.covariance_type == "tied" else found[None]
        if (problem := cls(1, d, as_one).covariances_problem()) is not None:
            raise SettingsError(f"The parameter '{name}' {problem}.")
        return found

    def _keep(self, fit: VariationalFit, prior: VariationalPrior) -> None:
        posterior, is_tied = fit.posterior, self.covariance_type == "tied"
        concentration, freedom = posterior.concentration, posterior.degrees_of_freedom
        self.weight_concentration_ = (
            concentration if concentration.ndim == 1 else (concentration[0], concentration[1])
        )
        self.mean_precision_ = posterior.mean_precision
        self.degrees_of_freedom_ = float(freedom[0]) if is_tied else freedom
        self.weights_ = posterior.weights
        self.means_ = posterior.means
        self.covariances_ = posterior.family.covariances.copy()
        self.precisions_cholesky_ = posterior.family.precisions_cholesky.copy()
        self.precisions_ = posterior.family.precisions
        self.converged_ = fit.converged
        self.n_iter_ = len(fit.lower_bounds)
        self.lower_bounds_ = list(fit.lower_bounds)
        self.lower_bound_ = fit.lower_bound
        self.weight_concentration_prior_ = prior.concentration
        self.mean_precision_prior_ = prior.mean_precision
        self.mean_prior_ = prior.mean
        self.degrees_of_freedom_prior_ = prior.degrees_of_freedom
        covariance = prior.covariance
        self.covariance_prior_ = covariance if covariance.ndim else float(covariance)
        self._ended = (None, fit.n_rows, fit.sum_weight)

    def _posterior(self) -> Posterior:
        """The fitted arrays as a record; they are public and may have been set by hand."""
        check_is_fitted(self)
        try:
            k, d = self.means_.shape
            of_type = family(self.covariance_type)
            return Posterior(
                np.array(self.weight_concentration_),
                self.mean_precision_,
                self.means_,
                np.broadcast_to(self.degrees_of_freedom_, (k,)),
                of_type(k, d, self.covariances_, self.precisions_cholesky_),
            )
        except ValueError as error:
            raise SettingsError(f"{error}. Was covariance_type changed? Then fit anew.") from None

    def _end(self) -> VariationalFit:
        """The last fit, as one that goes on."""
        prior = VariationalPrior(
            self.weight_concentration_prior_type,  # type: ignore[arg-type]
            self.weight_concentration_prior_,
            self.mean_precision_prior_,
            self.mean_prior_,
            self.degrees_of_freedom_prior_,
            np.asarray(self.covariance_prior_),
        )
        rule = (self.reg_covar, self.tol, self.max_iter)
        return VariationalFit(self._posterior(), prior, *rule, previous=self.lower_bound_)

    def _other(self, parameters: Parameters, features: Sequence[Any]) -> GaussianMixture:
        return as_estimator(self, parameters, features)

    def _parameters(self) -> Parameters:
        """The mixture of expectations that rows are scored by; its weights sum to less."""
        return self._posterior().expected

    def _bounds_per_row(self) -> list[float]:
        return [bound / self._ended[2] for bound in self.lower_bounds_]

    def _mixture(self) -> Parameters:
        """Expected weights and means, and the inverses of the expected precisions."""
        return self._posterior().mixture

    def _recorded(self) -> Parameters:
        """The mixture that rows are labelled by, as a model file has it."""
        return self._posterior().scored


def _shaped(value: Any, name: str, shape: tuple[int, ...]) -> Array:
    found = np.asarray(value, dtype=np.float64)
    if found.shape != shape:
        raise SettingsError(
            f"The parameter '{name}' should have the shape of {shape}, but got {found.shape}"
        )
    return found
