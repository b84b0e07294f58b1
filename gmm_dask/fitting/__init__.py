"""The method: EM as ask and tell, its starts, its acceleration and what guards its components."""

from gmm_dask.fitting.em import Expectation, Fit, Rule, SharedPass, advance, fit, go_on, passes
from gmm_dask.fitting.events import Action, Event, listed, quoted
from gmm_dask.fitting.initial.clutter import SHARE as NOISE_SHARE
from gmm_dask.fitting.initial.initial_values import Given, checked_start
from gmm_dask.fitting.initial.initialize import INIT_METHODS, initialize
from gmm_dask.fitting.m_step import ComponentPolicy, Maximisation, Step
from gmm_dask.fitting.outcome import (
    FitResult,
    Outcome,
    Pass,
    Prelude,
    Report,
    SearchRecord,
    Watcher,
    best_of,
    unheard,
)
from gmm_dask.fitting.sample import (
    ACCELERATIONS,
    Method,
    Sample,
    refine,
    settling_rows,
    telling_rows,
)
from gmm_dask.fitting.starts import fit_from_sample, fits_to_come
from gmm_dask.fitting.state import Keeper, Progress, State

__all__ = [
    "ACCELERATIONS",
    "INIT_METHODS",
    "NOISE_SHARE",
    "Action",
    "ComponentPolicy",
    "Event",
    "Expectation",
    "Fit",
    "FitResult",
    "Given",
    "Keeper",
    "Maximisation",
    "Method",
    "Outcome",
    "Pass",
    "Prelude",
    "Progress",
    "Report",
    "Rule",
    "Sample",
    "SearchRecord",
    "SharedPass",
    "State",
    "Step",
    "Watcher",
    "advance",
    "best_of",
    "checked_start",
    "fit",
    "fit_from_sample",
    "fits_to_come",
    "go_on",
    "initialize",
    "listed",
    "passes",
    "quoted",
    "refine",
    "settling_rows",
    "telling_rows",
    "unheard",
]
