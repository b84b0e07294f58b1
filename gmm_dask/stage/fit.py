"""Fit a mixture to the planned rows, or the best of candidates, and write the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask import fitting
from gmm_dask.engine import Backend, Held, Survey, hold, release, survey
from gmm_dask.fitting.choice import Candidate, Selection
from gmm_dask.mixture import core, merge_tree
from gmm_dask.mixture.estimate import Cause
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.roads.cautions import Caution, gist, noise_caution
from gmm_dask.roads.fitting_run import (
    FitCheckpoint,
    FitData,
    FitListener,
    FittedRows,
    fit_rows,
    tasks_told,
)
from gmm_dask.roads.grid_run import Grid, select_rows
from gmm_dask.roads.variational_run import Belief, infer_rows
from gmm_dask.stage import text
from gmm_dask.stage.checkpoints import Keeper
from gmm_dask.stage.identity import settings_hash, software_versions
from gmm_dask.stage.job import Job
from gmm_dask.stage.labels.pages import hash_pages, note_pages
from gmm_dask.stage.labels.row_checks import check_survey, check_total
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.stage.lineage.changes import Changes, changes_of, numbered
from gmm_dask.stage.lineage.following import predecessor
from gmm_dask.stage.report.data import MAX_ROWS, report_sample
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import Model, Plan, dump_model, load_model_file, parameters_bytes

NAME_THEM = (
    "Name the features that are to be clustered in data.features or with --features; "
    "data.id_columns carries other columns to the labels."
)
ANEW = (
    "The survey of an earlier attempt is used again; the passes of a grid and those of variational "
    "inference keep no checkpoint and begin anew."
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
        The numbers of rows of the input, and of those that were used.
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
        SHA-256 of the pages of each chunk before any row was used; labels must be of the same.
    changes : Changes
        Where the components come from.
    cautions : tuple of Caution
        Cautions about the columns.
    severities : Severities or None
        Severities of the training data; None where nobody knows them.
    selection : Selection or None
        The candidates that the model was chosen among.
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
    n_resumed: int
    contents: Mapping[int, str]
    changes: Changes
    cautions: tuple[Caution, ...] = ()
    severities: Severities | None = None
    selection: Selection | None = None


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
    settings, plan = job.settings, job.plan
    watcher.phase("fit", _rows_in_chunks(plan))
    seeds = np.random.SeedSequence(settings.fit.random_state).spawn(1 + settings.fit.n_init)
    keeper = Keeper(job, watcher)
    before = predecessor(job.folder.store, job.follows, plan.features)
    with job.backend(watcher, backend) as backend:
        contents = hash_pages(job, backend, watcher)
        note_pages(job, contents)
        with holding(job, watcher, backend, in_use=not keeper.is_over) as held:
            if RowArithmetic.chosen(settings.data.missing).kernel == "numpy":
                watcher.warn(core.SLOWER)
            remedy = None if settings.data.features is not None else NAME_THEM
            data = FitData(held.chunks, settings.data.missing, plan.features, remedy)
            held = keeper.begin(held, core.level_name())
            asked = data, backend, settings, _Listener(job, watcher, keeper), keeper, watcher
            found, selection = fit_or_select(*asked, seeds=seeds)
    result, surveyed = numbered(found.result, before), found.surveyed
    largest = max((abs(bound) for bound in result.lower_bounds), default=0.0) * result.sum_weight
    check_total(largest, result.sum_weight, plan.root, plan.weight_column)
    lacking = _told_ending(result, surveyed, settings, watcher)
    watcher.progress("writing the model", 0)
    model = write_model(job, model_of(job, result))
    changes = changes_of(model, before)
    for change in changes.changes:
        watcher.detail(change.message)
    return Fitted(
        model,
        result,
        report_sample(surveyed, seeds[0]),
        surveyed.n_rows,
        surveyed.n_usable,
        keeper.pass_seconds[result.start],
        found.n_reads,
        held,
        core.level_name(),
        keeper.seconds,
        keeper.n_resumed,
        contents,
        changes,
        (*found.cautions, *lacking),
        _severities(surveyed, result, settings),
        selection,
    )


def _told_ending(
    result: fitting.FitResult, surveyed: Survey, settings: Settings, watcher: Watcher
) -> list[Caution]:
    """Tell what the components ended as; the cautions that come of it."""
    tell_narrow(result, watcher)
    lacking = noise_caution(surveyed, result, settings.fit)
    for caution in lacking:
        watcher.warn(caution.message)
    if not result.converged:
        watcher.warn(result.outcome.advice)
    return lacking


def tell_narrow(result: fitting.FitResult, watcher: Watcher) -> None:
    """Warn of narrow components, by the numbers that they have in the model."""
    narrow = [each.to_dict() for each in result.events_ if each.cause is Cause.NARROW]
    if narrow:
        watcher.warn(gist(narrow))


def _rows_in_chunks(plan: Plan) -> str:
    rows, chunks = text.numbered(plan.n_rows, "row"), text.numbered(plan.n_arrays, "chunk")
    return f"{rows} in {chunks}"


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
    missing = job.settings.data.missing
    with job.backend(watcher, backend) as backend:
        contents = hash_pages(job, backend, watcher)
        held = hold(job.row_chunks(), backend, 0)  # rows are looked at but once
        surveyed, _ = survey(
            held.chunks,
            backend,
            sample_rows=MAX_ROWS,
            seed=seed,
            missing=missing,
            by_value=False,
            tell=tasks_told(watcher.progress),
        )
        check_survey(surveyed, job.plan, missing=missing, at_least=0)
    parameters, outcome = model.parameters, fitting.Outcome(model.outcome)
    result = fitting.FitResult(
        parameters, (), outcome, (parameters,), model.n_rows, model.sum_weight
    )
    return Fitted(
        write_model(job, model),
        result,
        report_sample(surveyed, seed),
        surveyed.n_rows,
        surveyed.n_usable,
        (),
        surveyed.n_reads,
        held,
        core.level_name(),
        time.perf_counter() - begun,
        0,
        contents,
        Changes(model.sha256, None, job.descents),
        severities=job.severities,
    )


@contextmanager
def holding(
    job: Job[Settings], watcher: Watcher, backend: Backend, *, in_use: bool
) -> Iterator[Held]:
    """The chunks, as many of them decoded as the settings, the free memory and the disk allow."""
    if not in_use:
        yield hold(job.row_chunks(), backend, 0)
        return
    memory, n_chunks = job.settings.memory, job.plan.n_arrays
    budget = backend.memory_to_hold if memory.held_bytes is None else memory.held_bytes
    tell = tasks_told(watcher.progress)
    held = hold(job.row_chunks(), backend, budget, memory.scratch, tell)
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


class _Listener(FitListener):
    """Checks the rows of a fit, and hands on to watcher and keeper how the fit goes."""

    def __init__(self, job: Job[Settings], watcher: Watcher, keeper: Keeper) -> None:
        self._job, self._watcher, self._keeper = job, watcher, keeper

    def surveyed(self, surveyed: Survey) -> None:
        """See FitListener."""
        settings, plan = self._job.settings, self._job.plan
        at_least = settings.fit.n_components
        check_survey(surveyed, plan, missing=settings.data.missing, at_least=at_least)

    def caution(self, message: str) -> None:
        """See FitListener."""
        self._watcher.warn(message)

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """See FitListener."""
        self._watcher.progress(phase, done, of, note)

    def passed(self, record: fitting.Pass) -> None:
        """See FitListener."""
        self._keeper.passed(record)
        self._watcher.passed(record, self._job.settings.fit.of_a_row(record.n_rows))
        self.happened(record.events)

    def searched(self, record: fitting.SearchRecord, advice: str) -> None:
        """See FitListener."""
        say = self._watcher.warn if advice else self._watcher.detail
        say(f"{record.sentence} {advice}".rstrip())

    def happened(self, events: Sequence[fitting.Event]) -> None:
        """See FitListener."""
        several = self._job.settings.fit.n_init > 1
        for event in events:
            self._watcher.warn(
                f"Start {event.start}: {event.under_way}" if several else event.under_way
            )


def _severities(
    surveyed: Survey, result: fitting.FitResult, settings: Settings
) -> Severities | None:
    """The severities of the training data, from the sample of the survey."""
    arithmetic = RowArithmetic.chosen(settings.data.missing)
    sample, weight = surveyed.sample, surveyed.sample_weight
    return Severities.of_sample(sample, weight, result.parameters, arithmetic)


def model_of(job: Job[Settings], result: fitting.FitResult) -> Model:
    """The model of a finished fit, with what it was fitted to and how."""
    versions = software_versions()
    tree = merge_tree(result.parameters)
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
        clusters=tuple(tree.clusters(job.settings.fit.n_clusters).tolist()),
        merge_tree=tree,
    )


def write_model(job: Job[Any], model: Model) -> Model:
    """Store the model; where an earlier attempt of this run did so, that one is the model."""
    folder = job.folder
    if not folder.put_if_absent("model.json", dump_model(model)):
        model = load_model_file(folder.get("model.json"), folder.path("model.json"))
    folder.put_of_model("parameters.parquet", parameters_bytes(model), model.sha256)
    return model


def fit_or_select(
    data: FitData,
    backend: Backend,
    settings: Settings,
    listener: FitListener,
    checkpoint: FitCheckpoint,
    watcher: Watcher,
    *,
    seeds: Sequence[np.random.SeedSequence],
) -> tuple[FittedRows, Selection | None]:
    """The fit of the settings; among candidates the best, with the table of all.

    Of a grid that was stopped the survey is kept. Its states are those of as many fits as there are
    candidates, each of which starts on the sample and needs but a few passes: to make them again
    costs less than to keep them.
    """
    if settings.fit.weight_concentration_prior_type is not None:
        belief = Belief.of(settings.fit, data.rows.n_features)
        if checkpoint.survey() is not None:
            watcher.detail(ANEW)
        asked = (data, backend, settings.fit, belief, listener, checkpoint)
        return infer_rows(*asked, seeds=seeds).fitted, None
    if not settings.select.is_asked:
        return fit_rows(data, backend, settings.fit, listener, checkpoint, seeds=seeds), None
    select = settings.select
    candidates = [Candidate(*each) for each in settings.candidates]
    watcher.detail(
        f"{len(candidates)} candidates share every read: n_components {settings.in_short}; the "
        f"choice is by {select.criterion.replace('_', ' ')}."
    )
    if checkpoint.survey() is not None:
        watcher.detail(ANEW)
    grid = Grid(candidates, select.criterion, select.n_bootstrap)
    found = select_rows(data, backend, settings.fit, grid, listener, checkpoint, seeds=seeds)
    for line in found.selection.reason:
        watcher.detail(line)
    return found.fitted, found.selection
