"""The sums of each partition under one mixture, so that what did not change is not read again.

Arrays are stacked over partitions and packed bit for bit; the last of them are the sums of the
data that the mixture was fitted to, which drift is measured against.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import OutputError
from gmm_dask.mixture import Parameters, SufficientStatistics
from gmm_dask.sampling import ColumnSpread
from gmm_dask.storage.records.codec import (
    COUNT,
    NAME,
    RUN_ID,
    SHA256,
    At,
    Kind,
    Positive,
    list_of,
    optional,
    packed,
    record,
    shape,
)
from gmm_dask.storage.records.contents import FileContent
from gmm_dask.storage.records.documents import Document
from gmm_dask.storage.records.model_file import (
    ARRAYS,
    MODEL_KEY,
    array_shapes,
    check_mixture,
    kind_of_noise,
    mixture_sizes,
)
from gmm_dask.storage.records.receipts import LabelSums
from gmm_dask.storage.store.runs import STATISTICS, RunFolder

MAX_STATISTICS_BYTES = 256 << 20  # of all arrays; more is not kept, so that a driver can hold it

TENTHS = 10

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class PartitionSums:
    """What the rows of a partition come to under a mixture; sums of partitions add up.

    Parameters
    ----------
    labels : LabelSums
    statistics : SufficientStatistics
        In the unit of `spread`.
    spread : ColumnSpread
        Spread of the columns over the rows that count.
    n_missing : (d,)
        Rows in which the feature has no value, those left out among them.
    n_by_severity : (10,)
        Usable rows by the tenth of the training data that is as dense; zeros where that is not
        known.
    """

    labels: LabelSums
    statistics: SufficientStatistics
    spread: ColumnSpread
    n_missing: npt.NDArray[np.int64]
    n_by_severity: npt.NDArray[np.int64]

    def __add__(self, other: PartitionSums) -> PartitionSums:
        spread = self.spread + other.spread
        mine, theirs = self.in_unit(spread.unit), other.in_unit(spread.unit)
        return PartitionSums(
            self.labels + other.labels,
            mine.statistics + theirs.statistics,
            spread,
            self.n_missing + other.n_missing,
            self.n_by_severity + other.n_by_severity,
        )

    def in_unit(self, unit: float) -> PartitionSums:
        """The sums with their weights in another unit, a power of two: no bit is lost."""
        ratio, found = self.spread.unit / unit, self.statistics
        if ratio == 1:
            return self
        sums = ("sum_weight", "log_likelihood", "sum_resp", "sum_x", "sum_xx")
        scaled: dict[str, Any] = {name: getattr(found, name) * ratio for name in sums}
        if found.sum_observed is not None:
            scaled["sum_observed"] = found.sum_observed * ratio
        return replace(self, statistics=replace(found, **scaled), spread=self.spread.in_unit(unit))


@dataclass(frozen=True)
class Cut:
    """How rows were read: the same rows read otherwise may have sums of other last bits.

    Parameters
    ----------
    features : tuple of str
    dtype : str
    chunk_rows : int
    missing : str
    weight_column : str or None
    """

    features: tuple[str, ...]
    dtype: str
    chunk_rows: Positive
    missing: str
    weight_column: str | None


@dataclass(frozen=True, eq=False)
class KeptStatistics:
    """The sums of each partition of a version's data, and the mixture that they are of.

    Parameters
    ----------
    model_sha256 : str
        Hash of the version's own model.
    of_run, of_model : str
        The run whose mixture the sums are of, and the checksum of its model.
    of_version : int or None
        The version of that run; None where it is the very run of this file.
    parameters : Parameters
        The mixture that the sums are of.
    cut : Cut
    files : tuple of FileContent
        Contents of the partitions that have rows, in their order.
    sums : tuple of PartitionSums
        One for each of them.
    training : PartitionSums
        Sums of the data that the mixture was fitted to.
    """

    model_sha256: str
    of_run: str
    of_model: str
    of_version: int | None
    parameters: Parameters
    cut: Cut
    files: tuple[FileContent, ...]
    sums: tuple[PartitionSums, ...]
    training: PartitionSums


def dump_statistics(kept: KeptStatistics) -> bytes | None:
    """The content of statistics.json; None where it would be more than a driver should hold."""
    n_numbers = math.prod(kept.parameters.family.sum_shape) + 8 * kept.parameters.means.size
    if 8 * n_numbers * (1 + len(kept.sums)) > MAX_STATISTICS_BYTES:
        return None
    return STATISTICS_FILE.dump(kept)


def load_statistics(folder: RunFolder) -> KeptStatistics | None:
    """The statistics of a run; None where it kept none.

    Raises
    ------
    OutputError
        The file is damaged, or of a newer version.
    """
    if not folder.exists(STATISTICS):
        return None
    return STATISTICS_FILE.load(folder.get(STATISTICS), folder.path(STATISTICS))


def _dump(kept: KeptStatistics) -> dict[str, Any]:
    parameters, sums = kept.parameters, [*kept.sums, kept.training]
    k, d = parameters.means.shape
    document = {
        **vars(kept),
        "covariance_type": parameters.covariance_type,
        "n_components": k,
        "n_features": d,
        "parameters": {name: getattr(parameters, name) for name in ARRAYS},
        "noise": parameters.noise,
        "arrays": sums,
    }
    return _kind(parameters.covariance_type, k, d, len(sums)).dump(document)  # type: ignore[no-any-return]


def _load(document: Any, at: At) -> KeptStatistics:
    covariance_type, k, d = mixture_sizes(document, at)
    files = _FILES.of(document, "files", at)
    found = _kind(covariance_type, k, d, 1 + len(files)).load(document, at)
    parameters = Parameters.from_arrays(
        **found["parameters"], covariance_type=covariance_type, noise=found["noise"]
    )
    check_mixture(parameters, at.inside("parameters"))
    if len(found["cut"].features) != d:
        at.refuse(f"are not the {d} of the mixture", "cut.features")
    *sums, training = found["arrays"]
    names = ("of_run", "of_model", "of_version", "cut")
    return KeptStatistics(
        found[MODEL_KEY],
        **{name: found[name] for name in names},
        parameters=parameters,
        files=files,
        sums=tuple(sums),
        training=training,
    )


_FILES: Kind[tuple[FileContent, ...]] = list_of(record(FileContent))
_SUMS = ("sum_weight", "log_likelihood", "sum_log_max")  # of LabelSums
_SPREAD = ("weight", "mean", "scatter", "least", "greatest")
_COUNTS = ("n_rows", "n_dropped", "n_incomplete", "n_noise")


def kind_of_sums(covariance_type: str, k: int, d: int, n: int) -> Kind[Sequence[PartitionSums]]:
    """How n sums under a mixture of k components of d features are written and read."""
    arrays = shape(
        {
            "counts": packed(n, len(_COUNTS) + 1, dtype="int64"),
            "n_labelled": packed(n, k, dtype="int64"),
            "n_missing": packed(n, d, dtype="int64"),
            "n_by_severity": packed(n, TENTHS, dtype="int64"),
            "label_sums": packed(n, len(_SUMS)),
            "totals": packed(n, 3),  # unit, weight, log-likelihood
            "sum_resp": packed(n, k),
            "sum_x": packed(n, k, d),
            "sum_xx": packed(n, *array_shapes(covariance_type, k, d)["covariances"]),
            "sum_observed": optional(packed(n, k, d, nan=True)),
            "spread": packed(n, len(_SPREAD), d, nan=True),
        }
    )
    return Kind(
        lambda value, at: _unstacked(arrays.load(value, at)),
        lambda sums: arrays.dump(_stacked(sums)),
    )


def _kind(covariance_type: str, k: int, d: int, n: int) -> Kind[dict[str, Any]]:
    """The fields of a file of n sums, the last of which are of the training data."""
    shapes = array_shapes(covariance_type, k, d)
    return shape(
        {
            MODEL_KEY: SHA256,
            "of_run": RUN_ID,
            "of_model": SHA256,
            "of_version": optional(COUNT),
            "covariance_type": NAME,
            "n_components": COUNT,
            "n_features": COUNT,
            "parameters": shape({name: packed(*shapes[name]) for name in ARRAYS}),
            "noise": optional(kind_of_noise(packed(d))),
            "cut": record(Cut),
            "files": _FILES,
            "arrays": kind_of_sums(covariance_type, k, d, n),
        }
    )


def _stacked(sums: Sequence[PartitionSums]) -> dict[str, Array | None]:
    found = [each.statistics for each in sums]
    observed = None
    if any(each.sum_observed is not None for each in found):
        absent = np.full(found[0].sum_x.shape, np.nan)
        observed = _stack(
            absent if each.sum_observed is None else each.sum_observed for each in found
        )
    spread = _stack([getattr(each.spread, name) for name in _SPREAD] for each in sums)
    return {
        "counts": _stack(
            [*(getattr(each.labels, name) for name in _COUNTS), each.statistics.n_rows]
            for each in sums
        ),
        "n_labelled": _stack(each.labels.n_labelled for each in sums),
        "n_missing": _stack(each.n_missing for each in sums),
        "n_by_severity": _stack(each.n_by_severity for each in sums),
        "label_sums": _stack([getattr(each.labels, name) for name in _SUMS] for each in sums),
        "totals": _stack(
            [each.spread.unit, each.statistics.sum_weight, each.statistics.log_likelihood]
            for each in sums
        ),
        **{name: _stack(getattr(each, name) for each in found) for name in _ARRAYS},
        "sum_observed": observed,
        "spread": np.where(np.isinf(spread), np.nan, spread),  # bounds where there is no value
    }


_ARRAYS = ("sum_resp", "sum_x", "sum_xx")


def _stack(arrays: Iterable[Any]) -> Array:
    return np.stack([np.asarray(each) for each in arrays])


def _unstacked(arrays: dict[str, Any]) -> list[PartitionSums]:
    found = []
    for i, counts in enumerate(arrays["counts"].tolist()):
        unit, weight, log_likelihood = arrays["totals"][i].tolist()
        observed = None if arrays["sum_observed"] is None else arrays["sum_observed"][i]
        labels = LabelSums(
            **dict(zip(_COUNTS, counts, strict=False)),
            **dict(zip(_SUMS, arrays["label_sums"][i].tolist(), strict=True)),
            n_labelled=tuple(arrays["n_labelled"][i].tolist()),
        )
        statistics = SufficientStatistics(
            n_rows=counts[-1],
            sum_weight=weight,
            log_likelihood=log_likelihood,
            **{name: arrays[name][i] for name in _ARRAYS},
            sum_observed=None if observed is None or np.isnan(observed).any() else observed,
        )
        columns, mean, scatter, least, greatest = arrays["spread"][i]
        least = np.where(np.isnan(least), np.inf, least)
        greatest = np.where(np.isnan(greatest), -np.inf, greatest)
        spread = ColumnSpread(columns, mean, scatter, least, greatest, unit)
        counted = arrays["n_missing"][i], arrays["n_by_severity"][i]
        found.append(PartitionSums(labels, statistics, spread, *counted))
    return found


STATISTICS_FILE: Document[KeptStatistics] = Document(
    Kind(_load, _dump),
    "gmm_dask.statistics",
    remedy="Move the file's run away, or fit anew: gmm-dask run.",
    error=OutputError,
)
