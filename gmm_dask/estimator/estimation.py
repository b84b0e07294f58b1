"""What `GaussianMixture.fit` does with its parameters: survey, starts, EM, words for the log."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import fields, replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from gmm_dask import engine, fitting
from gmm_dask.cautions import column_cautions, gist, narrow_events
from gmm_dask.errors import FeatureWarning
from gmm_dask.estimator.forms import check_survey, in_order_of, names_of
from gmm_dask.mixture import Parameters, PriorSettings
from gmm_dask.mixture.prior import in_one_unit
from gmm_dask.mixture.row_arithmetic import RowArithmetic

NAME_THEM = (
    "To choose the columns, read the path with dask.dataframe.read_parquet and fit the frame of "
    "those that are to be clustered."
)
logger = logging.getLogger("gmm_dask")

INIT_ROWS = 65536  # different rows at most that a start is found on


def fit_best(
    settings: Any,
    chunks: engine.RowChunks,
    backend: engine.Backend,
    warm: Parameters | None,
    *,
    named: bool,
) -> fitting.FitResult:
    """The best fit of an estimator with these settings; its caller is warned of odd features.

    Parameters
    ----------
    settings : GaussianMixture
    warm : Parameters, optional
        What an earlier fit ended with, which this one goes on from.
    named : bool
        Whether the caller chose the columns; else odd ones are cautioned against.

    Raises
    ------
    DataError, SettingsError, NotFiniteError, SingularCovarianceError, StarvedComponentError
    """
    seeds = _seed_sequence(settings.random_state).spawn(1 + settings.n_init)
    words = (field.name for field in fields(fitting.Method))
    method = fitting.Method(**{name: getattr(settings, name) for name in words})
    names = names_of(settings)
    means_init = in_order_of(names, settings.means_init)
    starts_given = (settings.weights_init, means_init, settings.precisions_init)
    begins_anew = warm is None and all(each is None for each in starts_given)
    surveyed, chunks = engine.survey(
        chunks,
        backend,
        sample_rows=INIT_ROWS,
        larger_rows=fitting.settling_rows(method, chunks.n_features) if begins_anew else 0,
        seed=seeds[0],
        missing=settings.missing,
    )
    check_survey(surveyed, settings.n_components, settings.missing, names, chunks.names)
    if not named and names is not None:
        _warn(each.message for each in column_cautions(surveyed, names, NAME_THEM))
    shape = (settings.n_components, chunks.n_features)
    given = fitting.checked_start(*starts_given, shape, settings.covariance_type)
    guards = [_maximisation(settings, surveyed, 1 + i) for i in range(settings.n_init)]
    over_all, sample, part, on_larger = engine.expectations(
        surveyed,
        chunks,
        backend,
        arithmetic=RowArithmetic.chosen(settings.missing),
        unit=guards[0].unit,
        sample_rows=INIT_ROWS,
        part_rows=fitting.telling_rows(*shape),
    )
    log = PassLog(settings.verbose, settings.verbose_interval)
    rough = over_all.in_single() if settings.arithmetic == "single" else None
    if warm is not None:
        options = {
            "tol": settings.tol,
            "max_iter": settings.max_iter,
            "watch": log,
            "rough": rough,
        }
        before = settings.lower_bound_
        results = [fitting.fit(over_all, warm, guards[0], previous=before, **options)]
    else:
        results = fitting.fit_from_sample(
            fitting.Sample(*sample, None if part is None else fitting.Sample(*part), on_larger),
            over_all,
            method,
            guards,
            seeds[1:],
            rough=rough,
            given=given,
            watch=log,
            tell=log.tell,
        )
    result = fitting.best_of(results)
    narrow = narrow_events(result, guards[0])
    if narrow:
        _warn([gist([event.to_dict() for event in narrow])])
    return replace(result, events_=(*result.events_, *narrow))


class PassLog:
    """Logs passes as often as asked for, and every event."""

    def __init__(self, verbose: int, interval: int) -> None:
        self._verbose, self._interval = verbose, interval

    def __call__(self, record: fitting.Pass) -> None:
        """Log the pass, if it is its turn."""
        self.tell(record.events)
        if not self._verbose or (record.number % self._interval and record.number > 1):
            return
        line = "start %d pass %d: log-likelihood per row %.10g"
        values: tuple[Any, ...] = (record.start, record.number, record.lower_bound)
        if np.isfinite(record.change):
            line, values = f"{line}, change %.3g", (*values, record.change)
        if self._verbose > 1:
            line, values = f"{line}, %.3f s", (*values, record.seconds)
        logger.info(line, *values)

    def tell(self, events: tuple[fitting.Event, ...]) -> None:
        """Warn of components in trouble."""
        for event in events:
            logger.warning("start %d: %s", event.start, event.message)


def _warn(messages: Iterable[str]) -> None:
    for message in messages:
        # Past this function, `fit_best`, two methods and the wrapper that checks the parameters.
        warnings.warn(message, FeatureWarning, stacklevel=6)


def _maximisation(settings: Any, surveyed: engine.Survey, start: int) -> fitting.Maximisation:
    beliefs = PriorSettings(
        settings.weight_concentration_prior,
        settings.mean_precision_prior,
        settings.degrees_of_freedom_prior,
        settings.covariance_prior,
    )
    prior = beliefs.resolve(surveyed.spread.mean, surveyed.spread.variances)
    spread, prior = in_one_unit(surveyed.spread, prior)
    return fitting.Maximisation(
        settings.reg_covar,
        settings.component_policy,
        spread,
        prior,
        names_of(settings),
        start,
        surveyed.sample,
    )


def _seed_sequence(random_state: Any) -> np.random.SeedSequence:
    """The sequence of a seed, or of the next draw of a generator; NumPy's global one for None."""
    if isinstance(random_state, Integral):
        return np.random.SeedSequence(int(random_state))
    return np.random.SeedSequence(int(check_random_state(random_state).randint(2**31 - 1)))
