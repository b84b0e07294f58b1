"""The rows that starts are found on, how many of them are enough, and EM on them alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from gmm_dask.fitting.em import Expectation, Fit, Rule, SharedPass, advance, go_on
from gmm_dask.fitting.m_step import IN_TROUBLE, Maximisation, Step
from gmm_dask.fitting.outcome import FitResult, Watcher
from gmm_dask.mixture import n_free_parameters

TELLING_ROWS, TELLING_VALUES = 2048, 4  # for a component at least, and for each of its parameters
ALLOWANCE = 1.5  # rows beyond those that are enough on average
ACCELERATIONS = ("auto", "anderson", "none")

FINER = 0.01  # of tol: a pass over the sample costs next to nothing
MAX_PASSES = 300  # of EM on the sample


@dataclass(frozen=True)
class Method:
    """How to fit; scikit-learn's names and meanings, and two switches that save passes.

    Parameters
    ----------
    n_components : int
    covariance_type, init_params : str
        With "auto" a start is searched for, unless there is one component or a start is given.
    tol : float
    max_iter : int
    sample_em : bool
        Run EM on the sample first, where that is not all rows, from several starts.
    acceleration : {"auto", "anderson", "none"}
        auto extrapolates where the sample is not all rows: where a pass is dear.
    effort : {"low", "medium", "high"}
        How many starts a search tries before it ends.
    """

    n_components: int
    covariance_type: str
    init_params: str
    tol: float
    max_iter: int
    sample_em: bool
    acceleration: str
    effort: str = "medium"

    def accelerates(self, is_part: bool) -> bool:
        """Whether passes are extrapolated from, where the sample is a part of the rows or all."""
        return is_part if self.acceleration == "auto" else self.acceleration == "anderson"


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that starts are found on.

    Parameters
    ----------
    X : (m, d)
    weight : (m,), optional
    expectation : parameters -> statistics, optional
        A pass over them, their weights adding up to those of all rows; None where they are all.
    part : Sample, optional
        Fewer of these rows, on which starts are compared.
    on_larger : parameters -> statistics, optional
        A pass over a larger sample, on which the start that goes on settles once more.
    threads : int
        The threads that a search may use.
    """

    X: npt.NDArray[Any]
    weight: npt.NDArray[Any] | None
    expectation: Expectation | None
    part: Sample | None = None
    on_larger: Expectation | None = None
    threads: int = 1


def telling_rows(n_components: int, n_features: int) -> int:
    """Rows of a sample that tell a good start from a poor one, where none is starved."""
    n_parameters = n_features * (n_features + 3) // 2
    return n_components * max(TELLING_ROWS, TELLING_VALUES * n_parameters)


def settling_rows(method: Method, n_features: int) -> int:
    """Rows of a sample from whose maximum the first step over all rows gains less than `tol`.

    A maximum of m rows is, with p free parameters, p / 2m a row below that of all (half a
    chi-square of p degrees; Wilks 1938, Ann. Math. Stat. 9); a half more is for chance. 0 where no
    EM on a sample is asked for, or no sample is large enough.
    """
    if not method.sample_em or method.max_iter == 0 or method.tol == 0:
        return 0
    p = n_free_parameters(method.covariance_type, method.n_components, n_features)
    return math.ceil(min(ALLOWANCE * p / (2 * method.tol), sys.maxsize))


def rule_of(sample: Sample, method: Method) -> Rule:
    """When a fit over all rows ends that starts from this sample."""
    is_part = sample.expectation is not None
    return Rule(method.tol, method.max_iter, method.accelerates(is_part))


def refine(
    sample_expectation: Expectation,
    start: Step,
    maximise: Maximisation,
    *,
    tol: float,
    watch: Watcher | None = None,
) -> FitResult:
    """EM on the sample alone, as far as it goes; a fit over all rows starts from what it found.

    Parameters
    ----------
    sample_expectation : parameters -> statistics
        A pass over the sample, whose weights add up to those of all rows: so a prior counts for
        as much as it will later.
    start : Step
    maximise : Maximisation
    tol : float
        The tolerance of the fit to follow; EM on the sample asks for a hundredth of it.
    watch : callable, optional
        Called after every pass.

    Raises
    ------
    As `fit`.
    """
    begun = Fit.begin(start, maximise, Rule(FINER * tol, MAX_PASSES, accelerate=True))
    return _as_start(go_on(sample_expectation, begun, watch=watch))


def refined(
    shared_pass: SharedPass, begun: Sequence[tuple[Step, Maximisation]], *, tol: float
) -> list[FitResult | None]:
    """What `refine` comes to from each start, all in shared passes; None where it raises.

    Parameters
    ----------
    shared_pass : fits -> the statistics under the parameters of each
    begun : sequence of Step and Maximisation
        No two of the latter are the same object: fits are told apart by it.
    tol : float
        As for `refine`.
    """
    rule = Rule(FINER * tol, MAX_PASSES, accelerate=True)
    fits = [Fit.begin(start, maximise, rule) for start, maximise in begun]
    ended = {id(fit.maximise): fit for fit in advance(fits, shared_pass, leaving=IN_TROUBLE)}
    found = [ended.get(id(maximise)) for _, maximise in begun]
    return [None if fit is None else _as_start(fit.result) for fit in found]


def _as_start(found: FitResult) -> FitResult:
    """The result with its events as those of a start: each once, whatever the pass."""
    events = (replace(event, pass_number=0, until=0) for event in found.events_)
    return replace(found, events_=tuple(dict.fromkeys(events)))
