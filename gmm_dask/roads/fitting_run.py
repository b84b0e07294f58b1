"""The one road of a fit: survey, starts, EM and outcome, over rows wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gmm_dask import engine, fitting
from gmm_dask.engine.passes.expectation import Expectations
from gmm_dask.mixture import Parameters, PriorSettings
from gmm_dask.mixture.parameters import Noise
from gmm_dask.mixture.prior import in_one_unit
from gmm_dask.mixture.row_arithmetic import Missing, RowArithmetic
from gmm_dask.roads.cautions import Caution, column_cautions, narrow_events
from gmm_dask.sampling import ColumnSpread
from gmm_dask.sections import FitSettings

# What the tasks of a pass over all rows are for, by the first word of their keys.
OF_TASKS = {
    "count_rows": "counting rows",
    "held": "decoding rows",
    "scratch": "decoding rows to scratch",
    "survey": "looking at all rows",
    "sample": "drawing the sample",
    "e_step": "pass over all rows",
    "criteria": "criteria of all candidates",
    "hash": "hashing files",
}

# Rows for each row of the sample below which EM on the sample costs more passes than it saves.
LEAST_GAIN = 4


class FitListener:
    """Hears how a fit goes; the methods of this base class do nothing."""

    def surveyed(self, surveyed: engine.Survey) -> None:
        """All rows were looked at; whoever listens raises DataError if they cannot be fitted."""

    def caution(self, message: str) -> None:
        """Rows can be fitted, but the mixture is hardly what was meant."""

    def narrow(self, events: Sequence[fitting.Event]) -> None:
        """Components of the result, numbered as there, that `reg_covar` made wide."""

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """Work that may take more than a second has come so far; see `fitting.Report`."""

    def passed(self, record: fitting.Pass) -> None:
        """One pass of EM over all rows ended."""

    def happened(self, events: Sequence[fitting.Event]) -> None:
        """Components were in trouble, at a start or in a pass."""

    def searched(self, record: fitting.SearchRecord, advice: str) -> None:
        """A search found the start; there is advice where it did not find the best again."""


class FitCheckpoint(Protocol):
    """What an earlier attempt of the same fit kept, and where this attempt keeps its own."""

    @property
    def progress(self) -> fitting.Progress | None:
        """Where the earlier attempt was; None if it kept nothing."""

    def survey(self) -> engine.Survey | None:
        """The survey that the earlier attempt kept; None if it kept none."""

    def keep_survey(self, surveyed: engine.Survey) -> None:
        """Keep the survey, if that is worth it."""

    def keep(self, progress: fitting.Progress) -> None:
        """Keep where the fit stands, if it is time for that."""


class WarmStart(NamedTuple):
    """The end of an earlier fit, from which a fit goes on without new starts.

    Parameters
    ----------
    parameters : Parameters
    lower_bound : float
        Log-likelihood per row that the earlier fit ended with.
    """

    parameters: Parameters
    lower_bound: float


@dataclass(frozen=True, eq=False)
class FitData:
    """The rows to fit, and what their owner knows of them.

    Parameters
    ----------
    rows : RowChunks
    missing : {"error", "drop", "em"}
        What a missing value means.
    names : (d,), optional
        The names of the features, for messages.
    how_to_name : str, optional
        The advice of a caution against odd columns. If it is not given, somebody chose the columns
        knowingly, and there are no such cautions.
    """

    rows: engine.RowChunks
    missing: Missing = "error"
    names: tuple[str, ...] | None = None
    how_to_name: str | None = None


@dataclass(frozen=True, eq=False)
class FittedRows:
    """A finished fit, and what was seen of the rows on the way.

    Parameters
    ----------
    result : FitResult
        The result of the best start; its last events name components that `reg_covar` made wide.
    surveyed : Survey
    cautions : tuple of Caution
        Cautions of the columns.
    n_reads : int
        Times that all rows were read, by the survey and by the passes of every start.
    """

    result: fitting.FitResult
    surveyed: engine.Survey
    cautions: tuple[Caution, ...]
    n_reads: int


def fit_rows(
    data: FitData,
    backend: engine.Backend,
    settings: FitSettings,
    listener: FitListener,
    checkpoint: FitCheckpoint | None = None,
    *,
    seeds: Sequence[np.random.SeedSequence],
    start: fitting.Given | WarmStart | None = None,
) -> FittedRows:
    """Fit a mixture to rows: the same rows, settings and seeds give the same bits.

    Parameters
    ----------
    data : FitData
    backend : Backend
    settings : FitSettings
        All but `random_state`, from which the seeds are drawn already.
    listener : FitListener
    checkpoint : FitCheckpoint, optional
        The fit goes on where an earlier attempt with the same arguments stopped.
    seeds : 1 + n_init seeds
        One for the sample of rows, and one for each start.
    start : Given or WarmStart, optional
        Start values of the user, or the end of an earlier fit.

    Raises
    ------
    NotFiniteError, SingularCovarianceError, StarvedComponentError
        There is no model.
    """
    larger = [] if start is not None else [settling_rows(settings, data)]
    surveyed, rows = surveyed_rows(
        data, backend, settings, listener, checkpoint, seeds[0], larger_rows=larger
    )
    cautions = cautions_of(data, surveyed)
    for caution in cautions:
        listener.caution(caution.message)
    ready = made_ready(data, settings, surveyed, rows, backend, listener)
    results = _results(settings, ready, seeds[1:], start, listener, checkpoint)
    result = with_cautions(fitting.best_of(results), ready.guards[0], settings, listener)
    n_passes = 0 if surveyed.replaces_rows else sum(each.n_passes for each in results)
    return FittedRows(result, surveyed, cautions, surveyed.n_reads + n_passes)


class Ready(NamedTuple):
    """What starts and passes of one fit are made of.

    Parameters
    ----------
    method : Method
    guards : sequence of Maximisation
        One for each start.
    asked : Expectations
    """

    method: fitting.Method
    guards: Sequence[fitting.Maximisation]
    asked: Expectations

    @property
    def sample(self) -> fitting.Sample:
        """The rows that starts are found on."""
        part = None if self.asked.part is None else fitting.Sample(*self.asked.part)
        return fitting.Sample(
            *self.asked.sample, part, self.asked.on_larger, engine.available_cores()
        )


def made_ready(
    data: FitData,
    settings: FitSettings,
    surveyed: engine.Survey,
    rows: engine.RowChunks,
    backend: engine.Backend,
    listener: FitListener,
) -> Ready:
    """Method, M-steps and passes of a fit to rows that were surveyed."""
    guards = [_guard(settings, surveyed, data.names, 1 + i) for i in range(settings.n_init)]
    asked = engine.expectations(
        surveyed,
        rows,
        backend,
        arithmetic=RowArithmetic.chosen(data.missing),
        unit=guards[0].unit,
        sample_rows=settings.init_rows,
        part_rows=fitting.telling_rows(settings.n_components, rows.n_features),
        tell=tasks_told(listener.progress),
    )
    method = _method(settings)
    if surveyed.n_usable < LEAST_GAIN * len(surveyed.sample):
        method = replace(method, sample_em=False)
    return Ready(method, guards, asked)


def with_cautions(
    result: fitting.FitResult,
    guard: fitting.Maximisation,
    settings: FitSettings,
    listener: FitListener,
) -> fitting.FitResult:
    """The result with an event for each component that `reg_covar` made wide, all told of."""
    narrow = narrow_events(result, guard)
    if narrow:
        listener.narrow(narrow)
    if result.search is not None:
        listener.searched(result.search, _advice(result.search, settings))
    return replace(result, events_=(*result.events_, *narrow))


def tasks_told(report: fitting.Report) -> engine.Tell:
    """Tasks that are done, as the engine tells of them, in words."""
    return lambda name, done, of: report(OF_TASKS[name], done, of)


def _advice(search: fitting.SearchRecord, settings: FitSettings) -> str:
    """What to do where the best was found once; empty where it was found again."""
    if search.n_replicated > 1:
        return ""
    remedy = "set effort to high"
    if settings.effort == "high":
        remedy = "fit with another random_state, or set n_components lower"
    return f"There may be a better one: {remedy}."


def settling_rows(settings: FitSettings, data: FitData) -> int:
    """Rows of a larger sample that a fit of these settings settles on; 0 for none."""
    return fitting.settling_rows(_method(settings), data.rows.n_features)


def surveyed_rows(
    data: FitData,
    backend: engine.Backend,
    settings: FitSettings,
    listener: FitListener,
    checkpoint: FitCheckpoint | None,
    seed: np.random.SeedSequence,
    *,
    larger_rows: Sequence[int],
) -> tuple[engine.Survey, engine.RowChunks]:
    """The survey that an earlier attempt kept, or a new one; and the rows with known lengths."""
    rows = data.rows
    if checkpoint is not None and (kept := checkpoint.survey()) is not None:
        return kept, rows
    surveyed, rows = engine.survey(
        rows,
        backend,
        sample_rows=settings.init_rows,
        larger_rows=larger_rows,
        seed=seed,
        missing=data.missing,
        tell=tasks_told(listener.progress),
    )
    listener.surveyed(surveyed)
    if checkpoint is not None:
        checkpoint.keep_survey(surveyed)
    return surveyed, rows


def cautions_of(data: FitData, surveyed: engine.Survey) -> tuple[Caution, ...]:
    """Cautions of the columns, where nobody chose them."""
    if data.how_to_name is None or data.names is None:
        return ()
    return column_cautions(surveyed, data.names, data.how_to_name)


def _results(
    settings: FitSettings,
    ready: Ready,
    seeds: Sequence[np.random.SeedSequence],
    start: fitting.Given | WarmStart | None,
    listener: FitListener,
    checkpoint: FitCheckpoint | None,
) -> list[fitting.FitResult]:
    """Fits over all rows: one from each start, or one from the best start on the sample."""
    over_all, guards = ready.asked.over_all, ready.guards
    single = over_all.in_single() if settings.arithmetic == "single" else None
    heard: dict[str, Any] = {"rough": single, "watch": listener.passed}
    if isinstance(start, WarmStart):
        rule: dict[str, Any] = {"tol": settings.tol, "max_iter": settings.max_iter}
        rule["previous"] = start.lower_bound
        return [fitting.fit(over_all, start.parameters, guards[0], **rule, **heard)]
    if checkpoint is not None:
        heard |= {"keep": checkpoint.keep, "progress": checkpoint.progress}
    return fitting.fit_from_sample(
        ready.sample,
        over_all,
        ready.method,
        guards,
        seeds,
        given=start,
        tell=listener.happened,
        report=listener.progress,
        **heard,
    )


def _method(settings: FitSettings) -> fitting.Method:
    names = (field.name for field in fields(fitting.Method))
    return fitting.Method(**{name: getattr(settings, name) for name in names})


def _guard(
    settings: FitSettings, surveyed: engine.Survey, names: tuple[str, ...] | None, start: int
) -> fitting.Maximisation:
    guard = maximisation(settings, surveyed.spread, surveyed.sample, names, start)
    return replace(guard, noise=_noise(settings, surveyed))


def maximisation(
    settings: FitSettings,
    spread: ColumnSpread,
    sample: npt.NDArray[Any],
    names: tuple[str, ...] | None,
    start: int = 1,
) -> fitting.Maximisation:
    """The M-step of a start, with the prior in units of the data and the policy for trouble.

    Parameters
    ----------
    settings : FitSettings
    spread : ColumnSpread
        The spread of all rows.
    sample : (m, d)
        Rows that a component in trouble may begin anew at.
    names : (d,), optional
    start : int
    """
    prior = PriorSettings(
        settings.weight_concentration_prior,
        settings.mean_precision_prior,
        settings.degrees_of_freedom_prior,
        settings.covariance_prior,
    ).resolve(spread.mean, spread.variances)
    spread, prior = in_one_unit(spread, prior)
    return fitting.Maximisation(
        settings.reg_covar,
        settings.component_policy,
        spread,
        prior,
        names,
        start,
        sample,
        settings.eigenvalue_ratio,
    )


def _noise(settings: FitSettings, surveyed: engine.Survey) -> Noise | None:
    """The noise that a fit starts with, over the volume of the sample."""
    if not settings.noise:
        return None
    X, weight = surveyed.sample, surveyed.sample_weight
    return Noise.over(X, weight, fitting.NOISE_SHARE, settings.reg_covar)
