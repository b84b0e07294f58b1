"""The data of the report, and the states of the fit that they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting import Prelude
from gmm_dask.mixture import MergeTree, Parameters
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.pictures.view import View, best_view
from gmm_dask.stage.summary import Components, told_apart

if TYPE_CHECKING:
    from gmm_dask.engine import Survey

Array = npt.NDArray[np.float64]

MAX_ROWS, MAX_FRAMES = 2000, 60  # rows drawn: more only hide each other; and states of them
WORK = 2e9  # numbers of factors that rows of frames are multiplied with, in half a second


@dataclass(frozen=True, eq=False)
class State:
    """One moment of the fit.

    Parameters
    ----------
    number : int
        The pass that started from here, from 1; the final state has the number after the last.
    lower_bound : float or None
        Objective per row under `parameters`; None where nobody measured it.
    parameters : Parameters
    """

    number: int
    lower_bound: float | None
    parameters: Parameters


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything the report shows; the same data give the same bytes.

    Parameters
    ----------
    title, run_id : str
    feature_names : tuple of str
        One per column, in the order of the parameters.
    parameters : Parameters
        The final ones.
    trajectory : tuple of Parameters
        Mixtures from the start to the final one, with components in the same order throughout.
    lower_bounds : tuple of float
        Objective per row, pass by pass; empty where nothing was fitted.
    outcome, advice : str
        How the fit ended, and what to do next.
    sample : (m, d)
        Rows in the units of the data; rows with a missing value are not drawn.
    metrics, settings, plan : dict
        As in metrics.json, the settings, and `path n_files n_rows n_chunks dropped` of the plan.
        What is absent is left out of the report.
    versions : dict
        Software by name.
    events : list of dict
        Cautions, and what happened on the way; a `message` is shown as a sentence.
    prelude : Prelude, optional
        Passes over a sample before those of the trajectory.
    names : sequence of str or None
        Names of the components, where any component has one.
    merge_tree : MergeTree, optional
        Merge tree of the components; the clusters are a level of it.
    """

    title: str
    run_id: str
    feature_names: tuple[str, ...]
    parameters: Parameters
    trajectory: tuple[Parameters, ...]
    lower_bounds: tuple[float, ...]
    outcome: str
    advice: str
    sample: npt.NDArray[Any]
    metrics: Mapping[str, Any]
    settings: Mapping[str, Any]
    plan: Mapping[str, Any]
    versions: Mapping[str, str]
    events: Sequence[Mapping[str, Any]]
    prelude: Prelude | None = None
    names: Sequence[str | None] = ()
    merge_tree: MergeTree | None = None

    def __post_init__(self) -> None:
        d = self.parameters.n_features
        if len(self.feature_names) != d or self.sample.ndim != 2 or self.sample.shape[1] != d:
            raise ValueError(
                f"the mixture has {d} features; got {len(self.feature_names)} names and a sample "
                f"of shape {self.sample.shape}"
            )

    @cached_property
    def rows(self) -> Array:
        """The rows to draw: complete ones of the sample, evenly picked, fewer where each is dear.

        A row costs in each frame as much as the mixture has numbers in its factors. There are
        MAX_ROWS at most; where WORK does not last for all frames of so many, both are fewer.
        """
        complete = np.isfinite(self.sample).all(axis=1)
        rows: Array = np.asarray(self.sample[complete], dtype=np.float64)
        most = min(MAX_ROWS, round(math.sqrt(self._row_frames * MAX_ROWS / MAX_FRAMES)))
        if rows.shape[0] > most:
            rows = rows[np.linspace(0, rows.shape[0] - 1, most).round().astype(np.intp)]
        return rows

    @property
    def frames_to_score(self) -> int:
        """States in which the work for the rows drawn can be done, at most."""
        return int(self._row_frames / max(1, self.rows.shape[0]))

    @property
    def _row_frames(self) -> float:
        return WORK / self.parameters.precisions_cholesky.size

    def responsibilities(self, parameters: Parameters) -> Array:
        """Responsibilities for the rows drawn; for the final mixture they are found once."""
        return self._final if parameters is self.parameters else self._responsibilities(parameters)

    @cached_property
    def _final(self) -> Array:
        return self._responsibilities(self.parameters)

    @cached_property
    def _arithmetic(self) -> RowArithmetic:
        return RowArithmetic.chosen("error")

    def _responsibilities(self, parameters: Parameters) -> Array:
        return self._arithmetic.responsibilities(self.rows, replace(parameters, noise=None))

    @cached_property
    def log_density(self) -> Array:
        """Log-density of the rows drawn, under the components of the final mixture."""
        return self._arithmetic.score(self.rows, replace(self.parameters, noise=None)).log_density

    @cached_property
    def view(self) -> View:
        """The view in which the final components are farthest apart."""
        return best_view(self.parameters, self.feature_names)

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The states from start to end, each with the log-likelihood that was measured in it.

        Passes over a sample come first, and are numbered with the others.
        """
        n, before = self.n_passes, self.n_sample_passes
        of_sample = []
        if self.prelude is not None:
            k, known = self.parameters.n_components, self.prelude.lower_bounds
            of_sample = [
                State(number, known[number - 1], each)
                for number, each in zip(self.prelude.numbers, self.prelude.trajectory, strict=True)
                if each.n_components == k
            ]
        path = (*self.trajectory[:-1], self.parameters)[-(n + 1) :]
        first = n + 2 - len(path)
        # With a prior the passes' values are of the posterior, and nobody measured the last.
        final = self.final_lower_bound if self.objective == "log-likelihood" else None
        bounds = (*self.lower_bounds, final)
        of_all = (
            State(before + first + i, bounds[first + i - 1], parameters)
            for i, parameters in enumerate(path)
        )
        return (*of_sample, *of_all)

    @property
    def n_sample_passes(self) -> int:
        """Passes over a sample before those over all rows."""
        return 0 if self.prelude is None else len(self.prelude.lower_bounds)

    @property
    def sample_bounds(self) -> tuple[float, ...]:
        """Objective per row of these passes."""
        return () if self.prelude is None else self.prelude.lower_bounds

    @property
    def components(self) -> Components:
        """The final components, as tables show them."""
        n_used, labelled = self.metrics.get("n_used"), self.metrics.get("n_labelled")
        return Components(self.feature_names, self.parameters, n_used, labelled or None, self.names)

    @property
    def cautions(self) -> list[str]:
        """Cautions that readers should see before anything else."""
        return told_apart(self.events)[0]

    @property
    def happenings(self) -> list[Mapping[str, Any]]:
        """The events that are no cautions."""
        return told_apart(self.events)[1]

    @property
    def n_passes(self) -> int:
        """Passes over the data."""
        return len(self.lower_bounds)

    @property
    def fitted_here(self) -> bool:
        """Whether the run fitted the model; otherwise it labelled rows with a published one."""
        return self.metrics.get("model_from") is None

    @property
    def n_starts(self) -> int:
        """Starts of the fit, of which the best was kept."""
        return int(self.metrics.get("n_starts") or 1)

    @property
    def n_clusters(self) -> int:
        """Clusters that the components are merged into; as many as components where none is."""
        return len(set(self.metrics.get("clusters") or range(self.parameters.n_components)))

    @property
    def objective(self) -> str:
        """The quantity in `lower_bounds`: the log-likelihood, or with a prior the log-posterior."""
        return str(self.metrics.get("objective") or "log-likelihood")

    @property
    def final_lower_bound(self) -> float | None:
        """Log-likelihood per row of the final components, where it was measured."""
        if (bound := self.metrics.get("log_likelihood_per_row")) is not None:
            return float(bound) if math.isfinite(bound) else None
        total, weight = self.metrics.get("log_likelihood"), self.total_weight
        if total is None or weight is None or not math.isfinite(total):
            return None
        return float(total) / weight

    @property
    def dropped(self) -> dict[str, int]:
        """Rows that were not used, by reason; reasons without rows are left out."""
        reasons: dict[str, int] = dict(self.plan.get("dropped") or {})
        counted = self.metrics.get("n_dropped") or 0
        if isinstance(counted, Mapping):
            reasons = dict(counted) | reasons
        elif counted > sum(reasons.values()):
            reasons["reason not recorded"] = counted - sum(reasons.values())
        return {reason: int(n) for reason, n in sorted(reasons.items()) if n}

    @property
    def total_weight(self) -> float | None:
        """Weight of all rows used: their number where rows have no weights."""
        weight, metrics = self.metrics.get("sum_weight"), self.metrics
        if weight is None and metrics.get("log_likelihood_per_row"):
            weight = metrics["log_likelihood"] / metrics["log_likelihood_per_row"]
        if weight is None and (self.settings.get("data") or {}).get("weight_column") is None:
            weight = self.metrics.get("n_used")
        return float(weight) if weight else None


def report_sample(surveyed: Survey, seed: np.random.SeedSequence) -> npt.NDArray[Any]:
    """At most MAX_ROWS rows of the survey's sample, drawn by weight, in its order."""
    sample, weight = surveyed.sample, surveyed.sample_weight
    if sample.shape[0] <= MAX_ROWS:
        return sample
    rng = np.random.default_rng(seed)
    if weight is None:
        return sample[np.sort(rng.choice(sample.shape[0], MAX_ROWS, replace=False))]
    with np.errstate(divide="ignore"):
        arrival = np.log(rng.exponential(size=len(weight))) - np.log(weight)
    return sample[np.sort(np.argpartition(arrival, MAX_ROWS)[:MAX_ROWS])]
