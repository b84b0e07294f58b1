"""The method: EM as a loop over `expectation`, where it starts, and what keeps it alive."""

from gmm_dask.fitting.components import ComponentPolicy, Event, Maximisation, Step
from gmm_dask.fitting.em import Expectation, Fit, Rule, fit, go_on
from gmm_dask.fitting.given import Given, checked_start
from gmm_dask.fitting.initialize import INIT_METHODS, initialize
from gmm_dask.fitting.outcome import FitResult, Outcome, Pass, Watcher, best_of
from gmm_dask.fitting.refine import refine
from gmm_dask.fitting.standing import Keeper, Standing
from gmm_dask.fitting.starts import (
    ACCELERATIONS,
    Method,
    Sample,
    fit_from_sample,
    settling_rows,
    telling_rows,
)
from gmm_dask.fitting.state import State

__all__ = [
    "ACCELERATIONS",
    "INIT_METHODS",
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
    "Rule",
    "Sample",
    "Standing",
    "State",
    "Step",
    "Watcher",
    "best_of",
    "checked_start",
    "fit",
    "fit_from_sample",
    "go_on",
    "initialize",
    "refine",
    "settling_rows",
    "telling_rows",
]
