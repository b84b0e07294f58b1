"""The road of variational inference: survey, starts and passes over rows wherever they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gmm_dask import engine, fitting
from gmm_dask.engine.passes.expectation import Expectation, OnRows
from gmm_dask.fitting.variational import (
    Concentration,
    VariationalFit,
    VariationalPrior,
    begin,
    infer,
)
from gmm_dask.mixture import Estimate, Parameters, SufficientStatistics
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.roads.fitting_run import (
    LEAST_GAIN,
    FitData,
    FitListener,
    cautions_of,
    maximisation,
    surveyed_rows,
    tasks_told,
)
from gmm_dask.sampling import ColumnSpread
from gmm_dask.sections import FitSettings

Array = npt.NDArray[np.float64]


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
        In the shape of one covariance; the covariance of the data.
    """

    concentration_type: Concentration
    concentration: float
    mean_precision: float
    mean: Array | None
    degrees_of_freedom: float
    covariance: Array | None

    def resolve(
        self, covariance_type: str, spread: ColumnSpread, expectation: Expectation
    ) -> VariationalPrior:
        """The prior over these rows, which are read once more for their covariances."""
        covariance = self.covariance
        if covariance is None:
            n = float(spread.weight.max()) * spread.unit
            variances = spread.scatter * spread.unit / (n - 1 if n > 1 else 1.0)
            if covariance_type in ("full", "tied"):
                covariance = _covariance(spread, expectation)
            else:
                covariance = variances if covariance_type == "diag" else np.array(variances.mean())
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
    n_reads : int
        Times that all rows were read.
    """

    fit: VariationalFit
    prior: VariationalPrior
    n_reads: int


def infer_rows(
    data: FitData,
    backend: engine.Backend,
    settings: FitSettings,
    belief: Belief,
    listener: FitListener,
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
    seeds : 1 + n_init seeds
        One for the sample of rows, and one for each start.
    start : VariationalFit, optional
        The end of an earlier fit, which this one goes on from.

    Raises
    ------
    NotFiniteError, SingularCovarianceError, StarvedComponentError
        There is no model.
    """
    surveyed, rows = surveyed_rows(
        data, backend, settings, listener, None, seeds[0], larger_rows=[]
    )
    for caution in cautions_of(data, surveyed):
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
        guard = maximisation(settings, spread, surveyed.sample, data.names)
        fits = _starts(settings, prior, asked.sample, guard, seeds[1:])
        on_sample = asked.sample.expectation
        many = surveyed.n_usable >= LEAST_GAIN * len(surveyed.sample)
        if on_sample is not None and many and not surveyed.replaces_rows:
            best = infer(fits, _together(on_sample))
            fits = [replace(best, lower_bounds=())]
    found = infer(fits, _together(over_all), _telling(listener))
    n_passes = max(len(found.lower_bounds), 1) + (belief.covariance is None)
    return InferredRows(found, prior, surveyed.n_reads + n_passes)


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
            init_params=settings.init_params,
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
    """Tells the listener of each pass, with the lower bound of all rows."""
    begun = [time.perf_counter()]

    def hear(fit: VariationalFit) -> None:
        now = time.perf_counter()
        seconds, begun[0] = now - begun[0], now
        bounds = fit.lower_bounds
        listener.passed(
            fitting.Pass(
                fit.start, len(bounds), bounds[-1], fit.change, seconds, fit.n_rows, fit.parameters
            )
        )

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
