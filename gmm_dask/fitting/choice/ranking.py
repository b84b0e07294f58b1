"""The results of candidates, in an order with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.choice.annihilation import message_length
from gmm_dask.fitting.choice.bootstrap import Bootstrap
from gmm_dask.fitting.outcome import FitResult

Array = npt.NDArray[np.float64]

CRITERIA = ("bic", "icl", "aic", "mml", "held_out", "prediction_strength")
LOWER_IS_BETTER = ("bic", "icl", "aic", "mml")
STRONG = 0.8  # prediction strength from which on clusters count as found (Tibshirani, Walther)
MANY_ROWS = 100_000  # from which on no criterion is content with few components
_NAMES = {
    "bic": "BIC",
    "icl": "ICL",
    "aic": "AIC",
    "mml": "message length",
    "held_out": "held-out log-likelihood per row",
    "prediction_strength": "prediction strength",
}


class Candidate(NamedTuple):
    """A number of components and a family of covariances."""

    n_components: int
    covariance_type: str

    def __str__(self) -> str:
        noun = "component" if self.n_components == 1 else "components"
        return f"{self.n_components} {noun}, {self.covariance_type}"


@dataclass(frozen=True, eq=False)
class Measured:
    """A candidate that was fitted, and what all rows say of its mixture.

    Parameters
    ----------
    candidate : Candidate
    result : FitResult
    log_likelihood : float
        The log-likelihood of all rows under the parameters after the last M-step.
    completed : float
        Sum of the rows' log-density plus log largest responsibility.
    log_weight : float
        Log of the sum of the weights: of the number of rows, where there are none.
    held_out : float, optional
        Mean log-density of rows that a fit of the same settings did not see.
    strength : float, optional
        Prediction strength.
    start : str
        As of the Member: where it started.
    """

    candidate: Candidate
    result: FitResult
    log_likelihood: float
    completed: float
    log_weight: float
    held_out: float | None = None
    strength: float | None = None
    start: str = "own"

    @property
    def n_free(self) -> int:
        """Free parameters of the mixture that was found."""
        return self.result.parameters.n_free_parameters

    @property
    def bic(self) -> float:
        """Schwarz 1978."""
        return self.n_free * self.log_weight - 2 * self.log_likelihood

    @property
    def aic(self) -> float:
        """Akaike 1974."""
        return 2 * self.n_free - 2 * self.log_likelihood

    @property
    def icl(self) -> float:
        """Biernacki, Celeux and Govaert 2000: the BIC of rows and labels together."""
        return self.n_free * self.log_weight - 2 * self.completed

    @property
    def mml(self) -> float:
        """Figueiredo and Jain 2002: the length of a message that tells mixture and rows."""
        return message_length(self.result.parameters, self.log_likelihood, self.log_weight)

    def value(self, criterion: str) -> float | None:
        """What a criterion says; None where it was not asked for."""
        name = "strength" if criterion == "prediction_strength" else criterion
        found: float | None = getattr(self, name)
        return found

    def badness(self, criterion: str) -> tuple[float, ...]:
        """The number that candidates are sorted by: the least is the best."""
        value = self.value(criterion)
        if value is None or not np.isfinite(value):
            return (np.inf,)
        if criterion in LOWER_IS_BETTER:
            return (value,)
        if criterion == "held_out":
            return (-value,)
        if value < STRONG:  # Tibshirani and Walther 2005: the most clusters that are found again
            return (1.0, -value)
        return (0.0, -self.candidate.n_components, -value)


@dataclass(frozen=True, eq=False)
class Selection:
    """Candidates in the order of a criterion, the best first.

    Parameters
    ----------
    criterion : one of CRITERIA
    ranked : sequence of Measured
    n_rows : int
        Rows that were used.
    lost : sequence of Candidate
        Candidates without a mixture, because components were in trouble.
    fallen : sequence of Candidate
        Candidates that ended lower than fewer components did, by more than the fits' tolerance.
    n_passes : int
        Passes over all rows that all candidates shared.
    bootstrap : Bootstrap, optional
        Test of the best against one component more.
    """

    criterion: str
    ranked: tuple[Measured, ...]
    n_rows: int
    lost: tuple[Candidate, ...] = ()
    fallen: tuple[Candidate, ...] = ()
    n_passes: int = 0
    bootstrap: Bootstrap | None = None

    @classmethod
    def of(cls, criterion: str, measured: Sequence[Measured], **known: Any) -> Selection:
        """The candidates ranked; equal ones in the order of fewer parameters."""
        ranked = sorted(measured, key=lambda one: (one.badness(criterion), one.n_free))
        return cls(criterion, tuple(ranked), **known)

    @property
    def best(self) -> Measured:
        """The candidate of rank 1."""
        return self.ranked[0]

    @property
    def direction(self) -> str:
        """Which values of the criterion are good."""
        if self.criterion == "prediction_strength":
            return f"the most components of at least {STRONG}"
        return f"{'lower' if self.criterion in LOWER_IS_BETTER else 'higher'} is better"

    @property
    def heading(self) -> str:
        """The criterion with its direction."""
        return f"{_NAMES[self.criterion]} ({self.direction})"

    def curve(self, covariance_type: str) -> list[Measured]:
        """The candidates of a family in the order of their numbers of components."""
        mine = (m for m in self.ranked if m.candidate.covariance_type == covariance_type)
        return sorted(mine, key=lambda one: one.candidate.n_components)

    @cached_property
    def gains(self) -> Mapping[Candidate, float]:
        """Log-likelihood that each component more brought, but for the fewest of a family."""
        found: dict[Candidate, float] = {}
        for family in dict.fromkeys(m.candidate.covariance_type for m in self.ranked):
            curve = self.curve(family)
            for fewer, more in pairwise(curve):
                n_more = more.candidate.n_components - fewer.candidate.n_components
                found[more.candidate] = (more.log_likelihood - fewer.log_likelihood) / n_more
        return found

    @property
    def elbow(self) -> int | None:
        """Number of components at which the log-likelihood of the best family bends the most.

        The place farthest above the line from the fewest to the most components (Satopaa et al.
        2011, Finding a kneedle in a haystack); None where there are fewer than three.
        """
        curve = self.curve(self.best.candidate.covariance_type)
        if len(curve) < 3:
            return None
        k = np.array([m.candidate.n_components for m in curve], dtype=np.float64)
        values = np.array([m.log_likelihood for m in curve])
        line = values[0] + (values[-1] - values[0]) * (k - k[0]) / (k[-1] - k[0])
        above = values - line
        return int(k[above.argmax()]) if above.max() > 0 else None

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """A column for each figure, a row for each candidate, the best first."""
        shown = [name for name in CRITERIA if self.best.value(name) is not None]
        best = self.best.value(self.criterion)
        columns: dict[str, list[Any]] = {
            "rank": list(range(1, 1 + len(self.ranked))),
            "n_components": [m.candidate.n_components for m in self.ranked],
            "covariance_type": [m.candidate.covariance_type for m in self.ranked],
            **{name: [m.value(name) for m in self.ranked] for name in shown},
            "difference": [_difference(m.value(self.criterion), best) for m in self.ranked],
            "log_likelihood": [m.log_likelihood for m in self.ranked],
            "gain": [self.gains.get(m.candidate) for m in self.ranked],
            "n_parameters": [m.n_free for m in self.ranked],
            "n_passes": [m.result.n_passes for m in self.ranked],
            "converged": [m.result.converged for m in self.ranked],
            "start": [m.start for m in self.ranked],
        }
        return columns

    @property
    def reason(self) -> list[str]:
        """Why the best was chosen, what others say, and what ought to be known: sentences."""
        best, n = self.best, len(self.ranked)
        name, value = _NAMES[self.criterion], _said(self.best.value(self.criterion))
        lines = [f"{best.candidate}: best {name} of {n}, {value} ({self.direction})."]
        if n > 1:
            second = self.ranked[1]
            away = _difference(second.value(self.criterion), best.value(self.criterion))
            lines[0] = f"{lines[0][:-1]}; next {second.candidate}, {_said(away, sign=True)}."
        others = [
            f"{_NAMES[each]} would choose {found.candidate}"
            for each in ("bic", "icl")
            if each != self.criterion
            and (found := min(self.ranked, key=lambda m: m.badness(each))) is not best
        ]
        lines += [f"{', '.join(others)}."] if others else []
        if self.elbow is not None:
            lines.append(
                f"The gain in log-likelihood per component bends the most at {self.elbow}."
            )
        if len(curve := self.curve(best.candidate.covariance_type)) > 1 and best is curve[-1]:
            lines.append("It is the largest number that was tried: more may be better still.")
        if self.n_rows >= MANY_ROWS:
            lines.append(
                "Of so many rows held-out likelihood and Bayesian criteria never stop adding "
                "components: look at the gain per component, and take components together that "
                "are one cluster."
            )
        lines += [
            f"{each}: ended lower than fewer components did, for tol stopped it; a smaller tol "
            "tells more."
            for each in self.fallen
        ]
        lost = [f"{each}: a component was no density any more; left out." for each in self.lost]
        return lines + lost + ([self.bootstrap.message] if self.bootstrap else [])

    def to_dict(self) -> dict[str, Any]:
        """For a JSON document."""
        return {
            "criterion": self.criterion,
            "direction": self.direction,
            "heading": self.heading,
            "reason": self.reason,
            "elbow": self.elbow,
            "n_passes": self.n_passes,
            "table": {name: [*map(_finite, column)] for name, column in self.table.items()},
            "bootstrap": None if self.bootstrap is None else self.bootstrap.to_dict(),
        }


def prediction_strength(table: Array) -> float:
    """The least share of the pairs of rows in a cluster that another fit puts together as well.

    Parameters
    ----------
    table : (k, l)
        Weight of the rows by their cluster (k) and by the cluster of a fit to other rows (l). A
        weight counts so many equal rows. A cluster without a pair says nothing.

    Tibshirani and Walther 2005, J. Comput. Graph. Stat. 14, equation 2.1.
    """
    rows = table.sum(axis=1)
    pairs = rows * (rows - 1)
    together = np.maximum(table * (table - 1), 0.0).sum(axis=1)
    there = pairs > 0
    return float((together[there] / pairs[there]).min()) if there.any() else 1.0


def _difference(value: float | None, best: float | None) -> float | None:
    return None if value is None or best is None else value - best


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _said(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "unknown"
    decimals = 2 if abs(value) >= 100 else 4
    return f"{value:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
