"""How unusual a row is: where its log-density stands among those of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.mixture import Parameters
from gmm_dask.mixture.parameters import mixture_sample
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.storage import NUMBER, At, list_of, shape

Array = npt.NDArray[np.float64]

# Whole percents, and ten times as fine where nine tenths are behind, three times over.
_TAIL = [100 - 10.0**-e * (10 - i) for e in range(1, 4) for i in range(1, 10)]
LEVELS: tuple[float, ...] = (*map(float, range(100)), *(round(each, 9) for each in _TAIL), 100.0)
_TABLE = shape(
    {"levels": list_of(NUMBER, len(LEVELS)), "log_density": list_of(NUMBER, len(LEVELS))}
)
N_DRAWN = 1 << 16  # of which 65 are beyond a severity of 99.9


@dataclass(frozen=True, eq=False)
class Severities:
    """Log-densities of the training data at fixed levels of severity.

    Parameters
    ----------
    log_density : (len(LEVELS),)
        At severity s: s per cent of the training data, by weight, are denser; descending.
    """

    log_density: Array

    @classmethod
    def of_sample(
        cls,
        X: npt.NDArray[Any],
        weight: Array | None,
        parameters: Parameters,
        arithmetic: RowArithmetic,
    ) -> Severities | None:
        """Exact quantiles of a weighted sample of the training data; None where it is empty."""
        if not len(X):
            return None
        density = arithmetic.score(X, parameters).log_density
        order = np.argsort(-density, kind="stable")
        weight = np.ones(len(X)) if weight is None else weight
        above = np.cumsum(weight[order]) - weight[order] / 2
        total = weight.sum()
        if not (np.isfinite(density).all() and 0 < total < np.inf):
            return None
        return cls(np.interp(LEVELS, 100 * above / total, density[order]))

    @classmethod
    def of_mixture(cls, parameters: Parameters) -> Severities | None:
        """Severities of rows drawn from a mixture: the same rows whenever they are drawn."""
        rows, _ = mixture_sample(parameters, N_DRAWN, np.random.RandomState(0))
        return cls.of_sample(rows, None, parameters, RowArithmetic("error"))

    @classmethod
    def noted(cls, metrics: Mapping[str, Any], path: str) -> Severities | None:
        """Severities of a metrics.json; None where it has none, OutputError if damaged."""
        if metrics.get("severity") is None:
            return None
        at = At(path).inside("severity")
        table = _TABLE.load(metrics["severity"], at)
        if tuple(table["levels"]) != LEVELS:
            at.refuse("is of other levels than this version writes", "levels")
        return cls(np.array(table["log_density"]))

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        return {"levels": list(LEVELS), "log_density": self.log_density.tolist()}

    def of(self, log_density: Array, arithmetic: RowArithmetic) -> Array:
        """Share of the training data that is denser, in per cent, (n,)."""
        ascending = self.log_density[::-1]
        return arithmetic.interpolated(log_density, ascending, np.array(LEVELS[::-1]))


def needed(severities: Severities | None) -> Severities:
    """The severities of a model; raises SettingsError where nobody knows them."""
    if severities is None:
        raise SettingsError(
            "labels.severity, labels.anomaly: nobody knows how dense the training data of the "
            "model are. Name a version that was fitted by the stage, as OUT or OUT@7."
        )
    return severities
