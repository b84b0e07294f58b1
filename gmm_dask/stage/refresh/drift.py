"""How partitions differ from the data of the fit and from each other, from their sums alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.errors import DriftError
from gmm_dask.mixture import Parameters
from gmm_dask.stage.refresh.partition_sums import total_of
from gmm_dask.stage.settings import RefreshSettings
from gmm_dask.storage import PartitionSums

MOST_PARTITIONS = 1000  # the last ones, each with rows of its own in the table
MOST_DRAWN = 200  # of them in the report
LEAST_SHARE = 1e-4  # below it a share counts as this: the logarithm of none is infinite
DENSE = ("full", "tied")  # covariance types whose sums hold products of columns

Array = npt.NDArray[np.float64]

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.string()),  # null where it is several
        pa.field("window", pa.string(), nullable=False),
        pa.field("baseline", pa.string()),  # null where the value is compared with nothing
        pa.field("metric", pa.string(), nullable=False),
        pa.field("component", pa.int32()),
        pa.field("column", pa.string()),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


class Measure(NamedTuple):
    """One row of the table of drift."""

    partition: str | None
    window: str
    baseline: str | None
    metric: str
    component: int | None
    column: str | None
    value: float


@dataclass(frozen=True, eq=False)
class Moved:
    """What a refresh compares.

    Parameters
    ----------
    parameters : Parameters
        The mixture that all sums are of.
    features : tuple of str
    names : tuple of str
        Names of the partitions.
    sums : tuple of PartitionSums
    training : PartitionSums
        Sums of the data that the mixture was fitted to.
    new : tuple of int
        The partitions that were read now.
    """

    parameters: Parameters
    features: tuple[str, ...]
    names: tuple[str, ...]
    sums: tuple[PartitionSums, ...]
    training: PartitionSums
    new: tuple[int, ...]

    def measures(self) -> list[Measure]:
        """Each of the last partitions, all new ones together, and all there are."""
        found: list[Measure] = []
        for i in range(max(0, len(self.sums) - MOST_PARTITIONS), len(self.sums)):
            before = self.sums[i - 1] if i else None
            found += self._of(self.sums[i], self.names[i], "partition", before)
        return found + self.of_new() + self._of(total_of(self.sums), None, "all", None)

    def of_new(self) -> list[Measure]:
        """All partitions together that were read now; nothing where none was."""
        if not self.new:
            return []
        return self._of(total_of([self.sums[i] for i in self.new]), None, "new", None)

    def _of(
        self, sums: PartitionSums, name: str | None, window: str, before: PartitionSums | None
    ) -> list[Measure]:
        baselines = {"training": self.training}
        if before is not None:
            baselines["previous"] = before
        found: list[tuple[str | None, str, int | None, str | None, float]] = [
            (None, *each) for each in self._alone(sums)
        ]
        for baseline, other in baselines.items():
            found += [(baseline, *each) for each in self._against(sums, other)]
        if sums.statistics.sum_resp.sum() > 0:
            model = _Gaussian.of_mixture(self.parameters)
            value = divergence(_Gaussian.of(sums, self.parameters), model)
            found.append(("model", "divergence", None, None, value))
        return [
            Measure(name, window, baseline, metric, component, column, value)
            for baseline, metric, component, column, value in found
        ]

    def _alone(self, sums: PartitionSums) -> Iterator[tuple[str, int | None, str | None, float]]:
        weight = sums.statistics.sum_weight
        if weight > 0:
            for j, share in enumerate(sums.statistics.sum_resp / weight):
                yield "share", j, None, float(share)
            yield "mean_log_density", None, None, sums.statistics.log_likelihood / weight
        for column, n in zip(self.features, sums.n_missing.tolist(), strict=True):
            yield "missing_share", None, column, n / sums.labels.n_rows

    def _against(
        self, sums: PartitionSums, other: PartitionSums
    ) -> Iterator[tuple[str, int | None, str | None, float]]:
        mine, theirs = sums.statistics, other.statistics
        if mine.sum_resp.sum() <= 0 or theirs.sum_resp.sum() <= 0:
            return
        yield "psi", None, None, stability_index(mine.sum_resp, theirs.sum_resp)
        if sums.n_by_severity.any() and other.n_by_severity.any():
            index = stability_index(*(each.n_by_severity.astype(float) for each in (sums, other)))
            yield "severity_psi", None, None, index
        yield "log_density_drop", None, None, theirs.lower_bound - mine.lower_bound
        gaussians = (_Gaussian.of(each, self.parameters) for each in (sums, other))
        yield "divergence", None, None, divergence(*gaussians)


def curves_of(measures: Sequence[Measure]) -> dict[str, list[float | None]]:
    """Drift of the last partitions from the data of the fit, by metric; one may have no value."""
    found: dict[str, dict[str, float]] = {}
    names: dict[str, None] = {}
    for each in measures:
        if each.window == "partition" and each.partition is not None:
            names[each.partition] = None
            if each.baseline == "training":
                found.setdefault(each.metric, {})[each.partition] = each.value
    last = list(names)[-MOST_DRAWN:]
    if len(last) < 2:
        return {}
    return {metric: [values.get(name) for name in last] for metric, values in found.items()}


def table_of(measures: Sequence[Measure]) -> pa.Table:
    """The measures as a table that any reader of Parquet takes."""
    columns = zip(*measures, strict=True) if measures else [[] for _ in SCHEMA]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def judged(
    moved: Moved, settings: RefreshSettings, warn: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The limits that all new partitions together exceed, each warned of.

    Raises
    ------
    DriftError
        A limit of `refresh.fail` is exceeded.
    """
    worst: dict[str, Measure] = {}
    for each in moved.of_new():
        if each.baseline in (None, "training"):
            known = worst.get(each.metric)
            worst[each.metric] = each if known is None or each.value > known.value else known
    found: list[dict[str, Any]] = []
    for section in ("warn", "fail"):
        for metric, limit in getattr(settings, section).items():
            if (measure := worst.get(metric)) is not None and measure.value > limit:
                found.append(_exceeded(measure, section, limit))
    if failing := [each for each in found if each["limit"].startswith("refresh.fail")]:
        raise DriftError([each["message"] for each in failing], found)
    for exceeded in found:
        warn(exceeded["message"])
    return found


def _exceeded(measure: Measure, section: str, limit: float) -> dict[str, Any]:
    of_column = "" if measure.column is None else f" of {measure.column}"
    remedy = {
        "warn": "See drift.parquet; refresh.polish lets the mixture follow.",
        "fail": "Nothing is published. See whether the data are right; if they are, raise the "
        "limit, or fit anew.",
    }[section]
    name = f"refresh.{section}.{measure.metric}"
    return {
        "metric": measure.metric,
        "column": measure.column,
        "value": measure.value,
        "limit": name,
        "at_most": limit,
        "message": f"Drift: {measure.metric}{of_column} of the new partitions is "
        f"{measure.value:.4g}, above the {limit:.4g} of {name}. {remedy}",
    }


def stability_index(found: Array, expected: Array) -> float:
    """The population stability index of counts: sum of (p - q) log(p / q) of their shares."""
    p = np.maximum(found / found.sum(), LEAST_SHARE)
    q = np.maximum(expected / expected.sum(), LEAST_SHARE)
    return float(np.sum((p - q) * np.log(p / q)))


class _Gaussian(NamedTuple):
    """Mean (d,) and covariance (d, d) of rows that are no noise, and how many there are."""

    mean: Array
    covariance: Array
    weight: float

    @classmethod
    def of(cls, sums: PartitionSums, parameters: Parameters) -> _Gaussian:
        """The summary of rows; of families that keep no products of columns, without them."""
        found, weight = sums.statistics, float(sums.statistics.sum_resp.sum())
        centre, offsets, _ = _centred(parameters)
        delta = (found.sum_x + found.sum_resp[:, None] * offsets).sum(axis=0) / weight
        if parameters.covariance_type not in DENSE:
            return cls(centre + delta, np.diag(sums.spread.variances), weight)
        crossed = found.sum_x.T @ offsets
        between = (offsets * found.sum_resp[:, None]).T @ offsets
        within = found.sum_xx if found.sum_xx.ndim == 2 else found.sum_xx.sum(axis=0)
        second = (within + crossed + crossed.T + between) / weight
        return cls(centre + delta, second - np.outer(delta, delta), weight)

    @classmethod
    def of_mixture(cls, parameters: Parameters) -> _Gaussian:
        """The summary of a mixture."""
        centre, offsets, weights = _centred(parameters)
        covariance = np.einsum("k,kde->de", weights, parameters.dense_covariances())
        covariance = covariance + (offsets * weights[:, None]).T @ offsets
        if parameters.covariance_type not in DENSE:
            covariance = np.diag(np.diagonal(covariance))
        return cls(centre, covariance, np.inf)


def _centred(parameters: Parameters) -> tuple[Array, Array, Array]:
    """The mean of the Gaussians (d,), their means from there (k, d), and their shares (k,)."""
    weights = parameters.weights / parameters.weights.sum()  # noise has the rest
    centre = weights @ parameters.means
    return centre, parameters.means - centre, weights


def divergence(found: _Gaussian, expected: _Gaussian) -> float:
    """Half the sum of both Kullback-Leibler divergences of two Gaussians (Jeffreys 1946).

    d + 1 rows of what is expected count among those found, so that a few rows have a covariance.
    """
    d = len(found.mean)
    share = (d + 1) / (found.weight + d + 1)
    mine = (1 - share) * found.covariance + share * expected.covariance
    theirs, delta = expected.covariance, found.mean - expected.mean
    scale = np.sqrt(np.maximum(np.diagonal(theirs), np.finfo(float).tiny))
    mine, theirs = (each / scale / scale[:, None] for each in (mine, theirs))
    ridge = 1e-9 * np.eye(d)  # columns that follow from others
    mine, theirs, delta = mine + ridge, theirs + ridge, delta / scale
    precisions = np.linalg.inv(mine), np.linalg.inv(theirs)
    traces = np.sum(precisions[0] * theirs) + np.sum(precisions[1] * mine)
    distance = delta @ (precisions[0] + precisions[1]) @ delta
    return max(0.0, float(traces - 2 * d + distance)) / 4
