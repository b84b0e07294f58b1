"""The road of variational inference: survey, starts and passes over rows wherever they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gmm_dask import engine, fitting
from gmm_dask.engine.passes.expectation import Expectation, OnRows
from gmm_dask.errors import SettingsError
from gmm_dask.fitting.outcome import Outcome
from gmm_dask.fitting.variational import (
    Concentration,
    VariationalFit,
    VariationalPrior,
    begin,
    infer,
)
from gmm_dask.mixture import Estimate, Parameters, SufficientStatistics
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.roads.cautions import Caution
from gmm_dask.roads.fitting_run import (
    LEAST_GAIN,
    FitCheckpoint,
    FitData,
    FitListener,
    FittedRows,
    cautions_of,
    maximisation,
    surveyed_rows,
    tasks_told,
)
from gmm_dask.sampling import ColumnSpread
from gmm_dask.sections import FitSettings

Array = npt.NDArray[np.float64]

OF_THE_PRIOR = tuple(name for name in FitSettings.model_fields if name.endswith("_prior"))


@dataclass(frozen=True, eq=False)
class Belief:
    """A prior as users give it; what is None follows from the data, as in scikit-learn.

    Parameters
    ----------
    concentration_type : {"dirichlet_process", "dirichlet_distribution"}
    concentration : float
    mean_precision : float
    mean : (d,), optional
        The mean of the data.
    degrees_of_freedom : float
    covariance : array, optional
        In the shape of one covariance; `scale` times the covariance of the data.
    scale : float
    """

    concentration_type: Concentration
    concentration: float
    mean_precision: float
    mean: Array | None
    degrees_of_freedom: float
    covariance: Array | None
    scale: float = 1.0

    @classmethod
    def of(cls, settings: FitSettings, n_features: int) -> Belief:
        """The prior of the settings of a fit, with scikit-learn's defaults."""
        concentration, freedom = (
            settings.weight_concentration_prior,
            settings.degrees_of_freedom_prior,
        )
        assert settings.weight_concentration_prior_type is not None
        return cls(
            settings.weight_concentration_prior_type,
            1.0 / settings.n_components if concentration is None else concentration,
            settings.mean_precision_prior or 1.0,
            None,
            n_features if freedom is None else freedom,
            None,
            settings.covariance_prior or 1.0,
        )

    def resolve(
        self, covariance_type: str, spread: ColumnSpread, expectation: Expectation
    ) -> VariationalPrior:
        """The prior over these rows, which are read once more for their covariances.

        Raises
        ------
        SettingsError
            The degrees of freedom are of no Wishart distribution of so many features.
        """
        least = len(spread.mean) - 1
        if not self.degrees_of_freedom > least:
            raise SettingsError(
                f"The parameter 'degrees_of_freedom_prior' should be greater than {least}, but got "
                f"{self.degrees_of_freedom:.3f}."
            )
        covariance = self.covariance
        if covariance is None:
            n = float(spread.weight.max()) * spread.unit
            variances = spread.scatter * spread.unit / (n - 1 if n > 1 else 1.0)
            if covariance_type in ("full", "tied"):
                covariance = _covariance(spread, expectation)
            else:
                covariance = variances if covariance_type == "diag" else np.array(variances.mean())
            covariance = self.scale * covariance
        return VariationalPrior(
            self.concentration_type,
            self.concentration,
            self.mean_precision,
            spread.mean if self.mean is None else self.mean,
            self.degrees_of_freedom,
            covariance,
        )


@dataclass(frozen=True, eq=False)
class InferredRows:
    """A finished inference.

    Parameters
    ----------
    fit : VariationalFit
        The start of largest lower bound.
    prior : VariationalPrior
    surveyed : Survey
    cautions : tuple of Caution
        Cautions of the columns.
    n_reads : int
        Times that all rows were read.
    """

    fit: VariationalFit
    prior: VariationalPrior
    surveyed: engine.Survey
    cautions: tuple[Caution, ...]
    n_reads: int

    @property
    def fitted(self) -> FittedRows:
        """The inference as the record of a fit, with the mixture that rows are labelled by."""
        fit, mixture = self.fit, self.fit.posterior.scored
        outcome = Outcome.CONVERGED if fit.converged else Outcome.OUT_OF_ITERATIONS
        bounds = tuple(bound / fit.sum_weight for bound in fit.lower_bounds)
        known = (fit.n_rows, fit.sum_weight)
        result = fitting.FitResult(mixture, bounds, outcome, (mixture,), *known, start=fit.start)
        return FittedRows(result, self.surveyed, self.cautions, self.n_reads)


def infer_rows(
    data: FitData,
    backend: engine.Backend,
    settings: FitSettings,
    belief: Belief,
    listener: FitListener,
    checkpoint: FitCheckpoint | None = None,
    *,
    seeds: Sequence[np.random.SeedSequence],
    start: VariationalFit | None = None,
) -> InferredRows:
    """Infer a mixture from rows: the same rows, settings and seeds give the same bits.

    With LEAST_GAIN times as many rows as the sample holds, the sample stands for all rows until the
    lower bound settles there, from every start; passes over all rows go on from the best.

    Parameters
    ----------
    settings : FitSettings
        Number and family of components, `init_params`, `tol`, `max_iter`, `n_init`, `reg_covar`.
    checkpoint : FitCheckpoint, optional
        Keeps the survey alone: the passes of an inference that was stopped begin anew.
    seeds : 1 + n_init seeds
        One for the sample of rows, and one for each start.
    start : VariationalFit, optional
        The end of an earlier fit, which this one goes on from.

    Raises
    ------
    NotFiniteError, SingularCovarianceError, StarvedComponentError
        There is no model.
    """
    asked_of = (data, backend, settings, listener, checkpoint)
    surveyed, rows = surveyed_rows(*asked_of, seeds[0], larger_rows=[])
    cautions = cautions_of(data, surveyed)
    for caution in cautions:
        listener.caution(caution.message)
    asked = engine.expectations(
        surveyed,
        rows,
        backend,
        arithmetic=RowArithmetic.chosen(data.missing),
        unit=1.0,
        sample_rows=settings.init_rows,
        part_rows=len(surveyed.sample) + 1,
        tell=tasks_told(listener.progress),
    )
    spread, over_all = surveyed.spread, asked.over_all
    prior = belief.resolve(settings.covariance_type, spread, over_all)
    if start is not None:
        fits = [replace(start, prior=prior)]
    else:
        guard = _guard(settings, surveyed, data.names)
        fits = _starts(settings, prior, asked.sample, guard, seeds[1:])
        on_sample = None if surveyed.replaces_rows else asked.sample.expectation
        if on_sample is not None and surveyed.n_usable >= LEAST_GAIN * len(surveyed.sample):
            fits = [replace(infer(fits, _together(on_sample)), lower_bounds=())]
    found = infer(fits, _together(over_all), _telling(listener))
    n_reads = surveyed.n_reads + max(len(found.lower_bounds), 1) + (belief.covariance is None)
    return InferredRows(found, prior, surveyed, cautions, n_reads)


def _guard(
    settings: FitSettings, surveyed: engine.Survey, names: tuple[str, ...] | None
) -> fitting.Maximisation:
    """The M-step of starts, which does not use the prior."""
    plain = settings.model_copy(update=dict.fromkeys(OF_THE_PRIOR))
    return maximisation(plain, surveyed.spread, surveyed.sample, names)


def _starts(
    settings: FitSettings,
    prior: VariationalPrior,
    sample: OnRows,
    guard: fitting.Maximisation,
    seeds: Sequence[np.random.SeedSequence],
) -> list[VariationalFit]:
    spread = guard.spread
    assert spread is not None
    sum_weight = float(spread.weight.max()) * spread.unit
    fits = []
    for number, seed in enumerate(seeds, 1):
        mixture, _ = fitting.initialize(
            sample.X,
            settings.n_components,
            settings.covariance_type,
            replace(guard, start=number),
            init_params="kmeans" if settings.init_params == "auto" else settings.init_params,
            seed=seed,
            sample_weight=sample.weight,
        )
        alive = np.ones(settings.n_components, bool)
        found = Estimate(mixture.weights, mixture.means, mixture.family, alive)
        posterior = begin(prior, found, sum_weight)
        rule = (settings.reg_covar, settings.tol, settings.max_iter)
        fits.append(VariationalFit(posterior, prior, *rule, start=number))
    return fits


def _together(
    expectation: Expectation,
) -> Callable[[Sequence[Parameters]], Sequence[SufficientStatistics]]:
    return lambda mixtures: expectation.together([engine.Asked(each) for each in mixtures])


def _telling(listener: FitListener) -> Callable[[VariationalFit], None]:
    """Tells the listener of each pass, with the lower bound per row."""
    begun = [time.perf_counter()]

    def hear(fit: VariationalFit) -> None:
        now = time.perf_counter()
        seconds, begun[0] = now - begun[0], now
        bound, change = fit.lower_bounds[-1] / fit.sum_weight, fit.change / fit.sum_weight
        record = (fit.start, len(fit.lower_bounds), bound, change, seconds, fit.n_rows)
        listener.passed(fitting.Pass(*record, fit.posterior.scored))

    return hear


def _covariance(spread: ColumnSpread, expectation: Expectation) -> Array:
    """Covariance of all rows (d, d), as `numpy.cov` has it: from a pass under one Gaussian."""
    variances = np.where(spread.variances > 0, spread.variances, 1.0)
    one = Parameters.from_covariances([1.0], spread.mean[None], np.diag(variances)[None], "full")
    found = expectation(one)
    n = found.sum_weight
    delta = found.sum_x[0] / n
    scatter = found.sum_xx[0] - n * np.outer(delta, delta)
    return np.asarray(scatter / (n - 1 if n > 1 else 1.0))
