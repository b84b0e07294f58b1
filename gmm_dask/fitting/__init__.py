"""The method: EM as a loop over `expectation`, where it starts, and what keeps it alive."""

from gmm_dask.fitting.components import ComponentPolicy, Event, Maximisation, Step
from gmm_dask.fitting.em import Expectation, FitResult, Outcome, Pass, Watcher, best_of, fit
from gmm_dask.fitting.given import Given, checked_start
from gmm_dask.fitting.initialize import INIT_METHODS, initialize
from gmm_dask.fitting.refine import refine

__all__ = [
    "INIT_METHODS",
    "ComponentPolicy",
    "Event",
    "Expectation",
    "FitResult",
    "Given",
    "Maximisation",
    "Outcome",
    "Pass",
    "Step",
    "Watcher",
    "best_of",
    "checked_start",
    "fit",
    "initialize",
    "refine",
]
