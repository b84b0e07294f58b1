"""What a fit of the class says while it goes on: to the log, or by itself where nobody reads it."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gmm_dask import engine, fitting
from gmm_dask.errors import FeatureWarning
from gmm_dask.estimator.rows.forms import check_survey, names_of
from gmm_dask.estimator.rows.user_rows import backend_of, checked_chunks, is_path
from gmm_dask.mixture.row_arithmetic import Missing
from gmm_dask.pace import Pace, in_words
from gmm_dask.roads.cautions import gist
from gmm_dask.roads.fitting_run import FitData, FitListener, tasks_told

BAR_SECONDS = 0.1  # between two changes of a bar

logger = logging.getLogger("gmm_dask")
NAME_THEM = (
    "To choose the columns, read the path with dask.dataframe.read_parquet and fit the frame of "
    "those that are to be clustered."
)


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn of the line that called this package, through scikit-learn or not, at any depth."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_unconverged(estimator: Verbose) -> None:
    """Warn, in scikit-learn's words, of a fit that used up its passes."""
    if not estimator.converged_ and estimator.max_iter > 0:
        warn_user(
            "Best performing initialization did not converge. Try different init parameters, "
            "or increase max_iter, tol, or check for degenerate data.",
            ConvergenceWarning,
        )


def _is_ours(module: str | None) -> bool:
    return str(module).partition(".")[0] in ("gmm_dask", "sklearn")


@contextmanager
def rows_to_fit(
    estimator: Any, X: Any, sample_weight: Any, *, reset: bool
) -> Iterator[tuple[FitData, engine.Backend, Listening]]:
    """Rows in every form for a fit, who works on them, and who is told of it.

    Parameters
    ----------
    reset : bool
        Whether the features are those of these rows; else they must be those of the last fit.
    """
    chunks = checked_chunks(estimator, X, sample_weight, estimator.missing, reset=reset)
    listening = Listening(estimator, chunks)
    with backend_of(chunks, X) as backend, listening.ending():
        if is_path(X):  # of other lazy rows the user decides what stays in memory
            tell = tasks_told(listening.progress)
            chunks = engine.hold(chunks, backend, backend.memory_to_hold, tell=tell).chunks
        named = NAME_THEM if is_path(X) and reset else None
        yield FitData(chunks, estimator.missing, names_of(estimator), named), backend, listening


class Verbose(Protocol):
    """What of an estimator says how much is told of its fit, and of what."""

    n_components: int
    max_iter: int
    converged_: bool
    missing: Missing
    verbose: int
    verbose_interval: int

    @property
    def _objective(self) -> str: ...


class Listening(FitListener):
    """Checks the rows of an estimator, tells as often as asked for how its fit goes, and of events.

    Parameters
    ----------
    estimator : an estimator that is being fitted
    chunks : RowChunks
        The rows to fit.
    """

    def __init__(self, estimator: Verbose, chunks: engine.RowChunks) -> None:
        self._estimator, self._chunks = estimator, chunks
        self.pace, self._objective = Pace(), estimator._objective
        self._bar = _bar_of_notebook() if estimator.verbose == 1 and not _is_log_read() else None

    @contextmanager
    def ending(self) -> Iterator[None]:
        """The time of the fit; a bar is full at its end."""
        yield
        if self._bar is not None:
            self._bar.end()

    def surveyed(self, surveyed: engine.Survey) -> None:
        """See FitListener."""
        model = self._estimator
        names = names_of(model)
        check_survey(surveyed, model.n_components, model.missing, names, self._chunks.names)

    def caution(self, message: str) -> None:
        """See FitListener."""
        warn_user(message, FeatureWarning)

    def narrow(self, events: Sequence[fitting.Event]) -> None:
        """See FitListener."""
        self.caution(gist([event.to_dict() for event in events]))

    def progress(self, phase: str, done: int, of: int | None = None, note: str = "") -> None:
        """See FitListener."""
        if self._bar is not None:
            self._bar.show(done, of, in_words(phase, done, of, note))
        elif self._estimator.verbose and self.pace.is_due:
            self._say(in_words(phase, done, of, note))

    def passed(self, record: fitting.Pass) -> None:
        """See FitListener."""
        self.happened(record.events)
        verbose, interval = self._estimator.verbose, self._estimator.verbose_interval
        asked_for = record.number == 1 or record.number % interval == 0
        is_shown = self._bar is not None or asked_for or self.pace.is_due
        if not verbose or not is_shown:
            return
        bound = f"{self._objective} {record.lower_bound:.10g}"
        line = f"start {record.start} pass {record.number}: {bound}"
        if np.isfinite(record.change):
            line += f", change {record.change:.3g}"
        if self._bar is not None:
            self._bar.show(record.number, self._estimator.max_iter, line)
        else:
            self._say(f"{line}, {record.seconds:.3f} s" if verbose > 1 else line)

    def happened(self, events: Sequence[fitting.Event]) -> None:
        """See FitListener."""
        for event in events:
            logger.warning("start %d: %s", event.start, event.message)

    def _say(self, line: str) -> None:
        """A line to the log, or printed where the log has no reader, as in most notebooks."""
        self.pace.told()
        if _is_log_read():
            logger.info("%s", line)
        else:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def _is_log_read() -> bool:
    return logger.isEnabledFor(logging.INFO) and logger.hasHandlers()


class _Bar:
    """How far a fit is, as widgets below the cell of a notebook."""

    def __init__(self, widgets: Any, display: Any) -> None:
        self._bar, self._words = widgets.FloatProgress(max=1.0), widgets.Label()
        self._last = ""
        self._shown = (
            -math.inf
        )  # when it last changed: a browser takes no thousand changes a second
        display(widgets.HBox([self._bar, self._words]))

    def show(self, done: int, of: int | None, words: str) -> None:
        """Show how many are done, of how many, and the words beside the bar."""
        now, self._last = time.monotonic(), words
        if now - self._shown >= BAR_SECONDS:
            self._shown, self._words.value = now, words
            self._bar.value = done / of if of else 0.0

    def end(self) -> None:
        """Show that the fit ended."""
        self._bar.value, self._words.value = 1.0, self._last


def _bar_of_notebook() -> _Bar | None:
    """A bar, where this runs in a notebook that has ipywidgets."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel"):
        return None
    try:
        import ipywidgets
        from IPython.display import display
    except ImportError:
        return None
    return _Bar(ipywidgets, display)
