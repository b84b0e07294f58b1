"""The method: EM as a loop over `expectation`, and where it starts."""

from gmm_dask.fitting.em import Expectation, FitResult, Outcome, Pass, Watcher, best_of, fit
from gmm_dask.fitting.given import Given, checked_start
from gmm_dask.fitting.initialize import INIT_METHODS, InitParams, initialize

__all__ = [
    "INIT_METHODS",
    "Expectation",
    "FitResult",
    "Given",
    "InitParams",
    "Outcome",
    "Pass",
    "Watcher",
    "best_of",
    "checked_start",
    "fit",
    "initialize",
]
