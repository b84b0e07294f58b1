"""Fit a mixture to the planned rows and write the model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask import fitting
from gmm_dask.cautions import Caution, column_cautions, gist, narrow_events
from gmm_dask.engine import Backend, Held, RowChunks, Survey, expectations, hold, release, survey
from gmm_dask.mixture import PriorSettings, core
from gmm_dask.mixture.prior import in_one_unit
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage import text
from gmm_dask.stage.checkpoints import Keeper, Seconds
from gmm_dask.stage.hashing import Contents, hashing, note_early, on_look
from gmm_dask.stage.job import Job, settings_hash, software_versions
from gmm_dask.stage.report.data import MAX_ROWS, report_sample
from gmm_dask.stage.row_checks import check_survey, check_total
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage.records.model_file import Model, dump_model, load_model_file, parameters_bytes

NAME_THEM = (
    "Name the features that are to be clustered in data.features or with --features; "
    "data.id_columns carries other columns to the labels."
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted model, as stored, and how it came about.

    Parameters
    ----------
    model : Model
    result : FitResult
        With the trajectory.
    sample : (m, d)
        Rows for the report, in the units of the data.
    n_rows, n_used : int
        Rows of the input, and rows that were used.
    pass_seconds : tuple of float
        Wall time of each pass of the start that was kept.
    n_reads : int
        Times that all rows were read, by the survey and in every start.
    held : Held
        The chunks, and how many stayed decoded between the passes.
    kernel : str
        The level of the compiled core that complete rows went through, or "numpy".
    seconds : float
        In all attempts.
    n_resumed : int
        Passes that an earlier attempt of this run made.
    contents : mapping of int to str
        SHA-256 of the input's pages as they were read for it, by chunk.
    cautions : tuple of Caution
        Of the columns.
    """

    model: Model
    result: fitting.FitResult
    sample: npt.NDArray[Any]
    n_rows: int
    n_used: int
    pass_seconds: tuple[float, ...]
    n_reads: int
    held: Held
    kernel: str
    seconds: float
    n_resumed: int = 0
    contents: Contents = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()


def fit(
    job: Job[Settings], watcher: Watcher | None = None, backend: Backend | None = None
) -> Fitted:
    """Survey, initialise, run EM, write `model.json` and `parameters.parquet`.

    Where an earlier attempt of this run kept a checkpoint, it goes on from there.

    Raises
    ------
    DataError
        Missing or infinite values, or too few rows; nothing was written.
    NotFiniteError, SingularCovarianceError, StarvedComponentError
        There is no model; nothing was written.
    CheckpointError
        A checkpoint of this run is damaged, or of another.
    """
    watcher = watcher or Watcher()
    settings = job.settings
    n_rows, n_chunks = job.plan.n_rows, job.plan.n_arrays
    watcher.phase("fit", f"{text.numbered(n_rows, 'row')} in {text.numbered(n_chunks, 'chunk')}")
    sample_seed, *start_seeds = np.random.SeedSequence(settings.fit.random_state).spawn(
        1 + settings.fit.n_init
    )
    keeper = Keeper(job, watcher)
    with (
        job.backend(watcher, backend) as backend,
        _holding(job, watcher, backend, in_use=not keeper.is_over) as held,
    ):
        arithmetic = RowArithmetic.chosen(settings.data.missing)
        if arithmetic.kernel == "numpy":
            watcher.warn(core.SLOWER)
        surveyed = _surveyed(job, held.chunks, backend, sample_seed, keeper)
        cautions = _column_cautions(job, surveyed, watcher)
        guards = [_maximisation(job, surveyed, 1 + i) for i in range(len(start_seeds))]
        held = keeper.begin(held, core.level_name())
        note_early(job, surveyed.contents)
        with hashing(job, held.chunks) as hashed:
            over_all, sample, part, on_larger = expectations(
                surveyed,
                held.chunks,
                backend,
                arithmetic=arithmetic,
                unit=guards[0].unit,
                sample_rows=settings.fit.init_rows,
                part_rows=fitting.telling_rows(settings.fit.n_components, len(job.plan.features)),
            )
            rough = over_all.in_single() if settings.fit.arithmetic == "single" else None
            clock = _Clock(watcher, settings, keeper.pass_seconds)
            results = fitting.fit_from_sample(
                fitting.Sample(*sample, None if part is None else fitting.Sample(*part), on_larger),
                over_all,
                _method(settings),
                guards,
                start_seeds,
                rough=rough,
                watch=clock,
                tell=clock.tell,
                keep=lambda standing: keeper.keep(standing, clock.seconds),
                standing=keeper.standing,
            )
    result = _cautioned(fitting.best_of(results), guards[0], watcher)
    largest = max((abs(bound) for bound in result.lower_bounds), default=0.0) * result.sum_weight
    check_total(largest, result.sum_weight, job.plan.root, job.plan.weight_column)
    if not result.converged:
        watcher.warn(result.outcome.advice)
    model = _write(job, _model(job, result))
    return Fitted(
        model,
        result,
        report_sample(surveyed, sample_seed),
        surveyed.n_rows,
        surveyed.n_usable,
        clock.seconds[result.start],
        surveyed.n_reads
        + (0 if surveyed.replaces_rows else sum(each.n_passes for each in results)),
        held,
        core.level_name(),
        keeper.seconds,
        keeper.n_resumed,
        {**surveyed.contents, **hashed},
        cautions,
    )


def adopt(
    job: Job[ScoreSettings], watcher: Watcher | None = None, backend: Backend | None = None
) -> Fitted:
    """Check the rows to score and store the published model beside their labels.

    Raises
    ------
    DataError
        Missing or infinite values; nothing was written.
    """
    begun = time.perf_counter()
    model, seed = job.model, np.random.SeedSequence(0)
    assert model is not None
    watcher = watcher or Watcher()
    watcher.phase("check", text.numbered(job.plan.n_rows, "row"))
    with job.backend(watcher, backend) as backend:
        held = hold(job.row_chunks(), backend, 0)  # rows are looked at but once
        surveyed = _survey(job, held.chunks, backend, seed, at_least=0)
    parameters, outcome = model.parameters, fitting.Outcome(model.outcome)
    result = fitting.FitResult(
        parameters, (), outcome, (parameters,), model.n_rows, model.sum_weight
    )
    return Fitted(
        _write(job, model),
        result,
        report_sample(surveyed, seed),
        surveyed.n_rows,
        surveyed.n_usable,
        (),
        surveyed.n_reads,
        held,
        core.level_name(),
        time.perf_counter() - begun,
        contents=surveyed.contents,
    )


@contextmanager
def _holding(
    job: Job[Settings], watcher: Watcher, backend: Backend, *, in_use: bool
) -> Iterator[Held]:
    """The chunks, as many of them decoded as the settings, the free memory and the disk allow."""
    if not in_use:
        yield hold(job.row_chunks(), backend, 0)
        return
    memory, n_chunks = job.settings.memory, job.plan.n_arrays
    budget = backend.memory_to_hold if memory.held_bytes is None else memory.held_bytes
    held = hold(job.row_chunks(), backend, budget, memory.scratch)
    try:
        watcher.detail(
            text.held_chunks(
                n_chunks, held.n_held, held.bytes_held, held.n_scratch, held.bytes_scratch
            )
        )
        if held.trouble is not None:
            left = text.numbered(n_chunks - held.n_held - held.n_scratch, "chunk")
            watcher.warn(
                f"memory.scratch: {memory.scratch} has no room for {left} ({held.trouble}): every "
                "pass decodes them again."
            )
        yield held
    finally:
        release(held.chunks)


def _surveyed(
    job: Job[Settings],
    chunks: RowChunks,
    backend: Backend,
    seed: np.random.SeedSequence,
    keeper: Keeper,
) -> Survey:
    """The survey that an earlier attempt kept, or a new one."""
    kept = keeper.survey()
    if kept is not None:
        return kept
    surveyed = _survey(job, chunks, backend, seed, job.settings.fit.n_components)
    keeper.keep_survey(surveyed)
    return surveyed


def _survey(
    job: Job[Any],
    chunks: RowChunks,
    backend: Backend,
    seed: np.random.SeedSequence,
    at_least: int,
) -> Survey:
    """The survey of all rows, checked; the plan knows the lengths of its chunks."""
    settings = job.settings
    missing = settings.data.missing
    way: dict[str, Any] = {"sample_rows": MAX_ROWS, "by_value": False}
    if isinstance(settings, Settings):
        way = {
            "sample_rows": settings.fit.init_rows,
            "larger_rows": fitting.settling_rows(_method(settings), len(job.plan.features)),
        }
    way |= {"seed": seed, "missing": missing, "noting": on_look(job, chunks)}
    surveyed, _ = survey(chunks, backend, **way)
    check_survey(surveyed, job.plan, missing=missing, at_least=at_least)
    return surveyed


def _column_cautions(job: Job[Settings], surveyed: Survey, watcher: Watcher) -> tuple[Caution, ...]:
    """Cautions about columns where the settings name no features; the watcher hears each."""
    if job.settings.data.features is not None:
        return ()
    found = column_cautions(surveyed, job.plan.features, NAME_THEM)
    for caution in found:
        watcher.warn(caution.message)
    return found


def _cautioned(
    result: fitting.FitResult, guard: fitting.Maximisation, watcher: Watcher
) -> fitting.FitResult:
    """The result with its narrow components among the events; the watcher hears of all at once."""
    narrow = narrow_events(result, guard)
    if narrow:
        watcher.warn(gist([event.to_dict() for event in narrow]))
    return replace(result, events_=(*result.events_, *narrow))


class _Clock:
    """Keeps the times of each start's passes and hands each pass on to the watcher."""

    def __init__(self, watcher: Watcher, settings: Settings, earlier: Seconds) -> None:
        self._watcher, self._settings = watcher, settings
        self.seconds: dict[int, tuple[float, ...]] = defaultdict(tuple, earlier)

    def __call__(self, record: fitting.Pass) -> None:
        self.seconds[record.start] += (record.seconds,)
        self._watcher.passed(record, self._settings.fit)
        self.tell(record.events)

    def tell(self, events: Iterable[fitting.Event]) -> None:
        """Warn of components in trouble."""
        several = self._settings.fit.n_init > 1
        for event in events:
            self._watcher.warn(
                f"Start {event.start}: {event.message}" if several else event.message
            )


def _method(settings: Settings) -> fitting.Method:
    names = (field.name for field in fields(fitting.Method))
    return fitting.Method(**{name: getattr(settings.fit, name) for name in names})


def _maximisation(job: Job[Settings], surveyed: Survey, start: int) -> fitting.Maximisation:
    chosen, spread = job.settings.fit, surveyed.spread
    prior = PriorSettings(
        chosen.weight_concentration_prior,
        chosen.mean_precision_prior,
        chosen.degrees_of_freedom_prior,
        chosen.covariance_prior,
    ).resolve(spread.mean, spread.variances)
    spread, prior = in_one_unit(spread, prior)
    features = job.plan.features
    return fitting.Maximisation(
        chosen.reg_covar,
        chosen.component_policy,
        spread,
        prior,
        features,
        start,
        surveyed.sample,
    )


def _model(job: Job[Settings], result: fitting.FitResult) -> Model:
    versions = software_versions()
    return Model(
        parameters=result.parameters,
        feature_names=job.plan.features,
        feature_types=job.plan.feature_types,
        reg_covar=job.settings.fit.reg_covar,
        converged=result.converged,
        outcome=str(result.outcome),
        n_passes=len(result.lower_bounds),
        lower_bounds=result.lower_bounds,
        n_rows=result.n_rows,
        sum_weight=result.sum_weight,
        data_fingerprint=job.plan.fingerprint,
        settings_hash=settings_hash(job.settings),
        created_by={name: versions[name] for name in ("gmm-dask", "numpy")},
    )


def _write(job: Job[Any], model: Model) -> Model:
    """Store the model; where an earlier attempt of this run did so, that one is the model."""
    folder = job.folder
    if not folder.put_if_absent("model.json", dump_model(model)):
        model = load_model_file(folder.get("model.json"), folder.path("model.json"))
    folder.put_of_model("parameters.parquet", parameters_bytes(model), model.sha256)
    return model
