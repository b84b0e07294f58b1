"""When a checkpoint is written, and the one that a later attempt of the run goes on from.

The survey of a run is a checkpoint too, so that a later attempt need not look at every row again.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from gmm_dask.engine import Held, Survey
from gmm_dask.engine.passes.survey import ChunkSurvey
from gmm_dask.errors import OutputError
from gmm_dask.fitting import Pass, Progress
from gmm_dask.sampling import ColumnSpread
from gmm_dask.stage import text
from gmm_dask.stage.checkpoints.fit_record import (
    HELD,
    Checkpoint,
    Kept,
    Seconds,
    Shapes,
    kept,
    kind_of_checkpoint,
    load_checkpoint,
)
from gmm_dask.stage.identity import settings_hash, software_versions
from gmm_dask.stage.job import Job
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    COUNT,
    FLAG,
    SIZE,
    SURVEY,
    At,
    Kind,
    Origin,
    Plan,
    canonical_json,
    checkpoint_name,
    checkpoint_numbers,
    count_from,
    optional,
    packed,
    read_checkpoint,
    read_if_there,
    remedied,
    shape,
    write_checkpoint,
)

SHARE = 8  # a sample of more than this part of all bytes is read again as quickly

_COUNTS = ("n_rows", "n_usable", "n_counted", "n_eligible")
_SPREAD = ("weight", "mean", "scatter", "least", "greatest")
LEAST_SHARE = 50  # times as long as writing took, so that it takes 2 % of a fit at most
SAMPLE_RATE = 40e6  # bytes of a sample written in a second; before the first there is but a guess
_OF_SURVEY: dict[str, Kind[Any]] = {
    "unit": SIZE,
    "n_reads": count_from(1),
    "is_drawn": FLAG,
    "is_all": FLAG,
    "copies": SIZE,
}


def is_worth_keeping(surveyed: Survey) -> bool:
    """Whether its sample is small beside the rows, and all in it can be written."""
    bytes_of_rows = surveyed.n_rows * surveyed.sample[:1].nbytes
    spread = surveyed.spread
    finite = all(np.isfinite(getattr(spread, name)).all() for name in _SPREAD)
    return finite and surveyed.sample.nbytes * SHARE <= bytes_of_rows


def kind_of_survey(n_features: int) -> Kind[Survey]:
    """How a survey is written, and read as if all rows were one sound chunk."""

    def kinds(n: int, dtype: str) -> Kind[dict[str, Any]]:
        moments = {name: packed(n_features) for name in _SPREAD}
        return shape(
            {
                **dict.fromkeys(_COUNTS, COUNT),
                "sum_weight": SIZE,
                "spread": shape(moments),
                "spread_unit": SIZE,
                "is_single": FLAG,
                "n_sampled": COUNT,
                "sample": packed(n, n_features, dtype=dtype, nan=True),
                "sample_weight": optional(packed(n)),
                **_OF_SURVEY,
            }
        )

    def dump(surveyed: Survey) -> dict[str, Any]:
        sample, spread = surveyed.sample, surveyed.spread
        known = {
            **{name: sum(getattr(each, name) for each in surveyed.chunks) for name in _COUNTS},
            **{name: getattr(surveyed, name) for name in (*_OF_SURVEY, "sum_weight", "sample")},
            "sample_weight": surveyed.sample_weight,
            "spread": {name: getattr(spread, name) for name in _SPREAD},
            "spread_unit": spread.unit,
            "is_single": sample.dtype == np.float32,
            "n_sampled": len(sample),
        }
        document: dict[str, Any] = kinds(len(sample), str(sample.dtype)).dump(known)
        return document

    def load(value: Any, at: At) -> Survey:
        dtype = "float32" if FLAG.of(value, "is_single", at) else "float64"
        found = kinds(COUNT.of(value, "n_sampled", at), dtype).load(value, at)
        return Survey(
            (_chunk(found, n_features),),
            found["sample"],
            found["sample_weight"],
            **{name: found[name] for name in _OF_SURVEY},
        )

    return Kind(load, dump)


def _chunk(found: dict[str, Any], n_features: int) -> ChunkSurvey:
    none, never = np.zeros(n_features, np.int64), np.full(n_features, -1)
    return ChunkSurvey(
        **{name: found[name] for name in (*_COUNTS, "sum_weight")},
        n_missing=none,
        n_infinite=none,
        has_missing=np.zeros(n_features, bool),
        has_infinite=np.zeros(n_features, bool),
        first_missing=never,
        first_infinite=never,
        n_bad_weights=0,
        first_bad_weight=-1,
        spread=ColumnSpread(**found["spread"], unit=found["spread_unit"]),
    )


class Keeper:
    """Writes checkpoints of one fit, and reads what an earlier attempt of the run wrote.

    Parameters
    ----------
    job : Job
    watcher : Watcher

    Attributes
    ----------
    pass_seconds : dict of int to tuple of float
        Wall time of each pass so far, in all attempts, by start.
    """

    def __init__(self, job: Job[Settings], watcher: Watcher) -> None:
        self._job, self._watcher = job, watcher
        watcher.progress("looking for an earlier attempt", 0)
        self._begun = self._last = time.perf_counter()
        self._cost = 0.0
        fit, plan = job.settings.fit, job.plan
        self._origin = origin_of(job)
        self._kind_of_survey = kind_of_survey(len(plan.features))
        self._kind = kind_of_checkpoint(
            Shapes(fit.covariance_type, fit.n_components, len(plan.features))
        )
        self._held: Mapping[str, int] = {}
        self._software: Mapping[str, str] = {}
        self._is_on = job.settings.output.checkpoint_seconds is not None
        self._found = self._last_kept = self._newest()
        before: Seconds = {} if self._found is None else self._found.pass_seconds
        self.pass_seconds: dict[int, tuple[float, ...]] = defaultdict(tuple, before)

    @property
    def progress(self) -> Progress | None:
        """Where the earlier attempt was; None where it kept nothing."""
        return None if self._found is None else self._found.progress

    @property
    def n_resumed(self) -> int:
        """Passes that need not be made again."""
        return 0 if self._found is None else self._found.number

    @property
    def is_over(self) -> bool:
        """Whether none is left to make."""
        return self.progress is not None and self.progress.is_over(self._job.settings.fit.max_iter)

    @property
    def seconds(self) -> float:
        """Spent on the fit so far, in all attempts."""
        before = 0.0 if self._found is None else self._found.seconds
        return before + time.perf_counter() - self._begun

    def begin(self, held: Held, kernel: str) -> Held:
        """Take note of how this attempt works; its chunks, and what is said of them later."""
        self._software = software_versions() | {"kernel": kernel}
        if self._found is not None:
            self._tell(self._found)
            if self.is_over:
                counts: dict[str, Any] = dict(self._found.held)
                held = replace(held, **counts)
        self._held = {name: getattr(held, name) for name in HELD}
        return held

    def _tell(self, found: Checkpoint) -> None:
        path = self._job.folder.path(checkpoint_name(found.number))
        self._watcher.detail(f"goes on after {text.numbered(found.number, 'pass')}, from {path}")
        before, now = found.software, self._software
        changed = [
            f"{name} {before.get(name)} (now {now.get(name)})"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if changed:
            self._watcher.warn(
                f"The fit was begun with {', '.join(changed)}: the last digits may differ from "
                "those of a fit in one go."
            )

    def survey(self) -> Survey | None:
        """The survey that an earlier attempt kept.

        Raises
        ------
        CheckpointError
            It is damaged, or of another run.
        """
        if not self._is_on:
            return None
        return read_if_there(self._job.folder, SURVEY, self._origin, self._kind_of_survey)

    def keep_survey(self, surveyed: Survey) -> None:
        """Write the survey, if it took long enough and is small beside the rows.

        Without it a later attempt looks at all rows again: where the survey was quick, or its
        sample is nearly as large as the rows, that takes no longer than reading the survey.
        """
        cost = surveyed.sample.nbytes / SAMPLE_RATE
        if self._is_due(cost) and is_worth_keeping(surveyed):
            begun = time.perf_counter()
            kind = self._kind_of_survey
            write_checkpoint(self._job.folder, SURVEY, self._origin, kind, surveyed)
            self._note(begun)

    def passed(self, record: Pass) -> None:
        """Take note of a pass that ended."""
        self.pass_seconds[record.start] += (record.seconds,)

    def keep(self, progress: Progress) -> None:
        """Write a checkpoint, if it is time for one."""
        last = self._last_kept
        if not self._is_due() or (last is not None and progress.n_passes <= last.number):
            return
        begun = time.perf_counter()
        checkpoint = Checkpoint(
            progress, dict(self.pass_seconds), self.seconds, self._held, self._software
        )
        folder, name = self._job.folder, checkpoint_name(checkpoint.number)
        if write_checkpoint(folder, name, self._origin, self._kind, kept(checkpoint, last)):
            self._last_kept = checkpoint
            self._note(begun)
        else:
            self._is_on = False
            self._watcher.warn("The state of the fit is too large for a checkpoint: none is kept.")

    def _is_due(self, cost: float = 0.0) -> bool:
        """Whether it is time for a checkpoint, which will take `cost` seconds at least."""
        least, cost = self._job.settings.output.checkpoint_seconds, max(cost, self._cost)
        passed = time.perf_counter() - self._last
        return self._is_on and (not least or passed >= max(least, LEAST_SHARE * cost))

    def _note(self, begun: float) -> None:
        self._last = time.perf_counter()
        self._cost = self._last - begun

    def _newest(self) -> Checkpoint | None:
        folder = self._job.folder
        numbers = checkpoint_numbers(folder) if self._is_on else []
        while numbers:
            try:
                return self._load(numbers[-1])
            except OutputError:
                left = checkpoint_numbers(folder)
                if set(left) >= set(numbers):
                    raise
                numbers = left  # a twin published this run meanwhile, and `gc` took some away
        return None

    def _load(self, number: int) -> Checkpoint:
        folder, n_starts = self._job.folder, self._job.settings.fit.n_init

        @cache
        def read(number: int) -> Kept:
            return read_checkpoint(folder, checkpoint_name(number), self._origin, self._kind)

        path = folder.path(checkpoint_name(number))
        with remedied(folder):
            return load_checkpoint(read, number, path, n_starts)


def origin_of(job: Job[Settings]) -> Origin:
    """What the checkpoints of a run belong to."""
    settings = job.settings
    seed = settings.fit.random_state
    return Origin(settings_hash(settings), plan_hash(job.plan), job.run_id, seed)


def plan_hash(plan: Plan) -> str:
    """SHA-256 of the data's fingerprint and of how rows and columns are cut out of them."""
    chunks = [(each.partition, each.start, each.stop) for each in plan.chunks]
    columns = [*plan.features, plan.weight_column, plan.dtype]
    return hashlib.sha256(canonical_json([plan.fingerprint, columns, chunks])).hexdigest()
