"""What stands beside the label of a row: its cluster, how unusual it is, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.mixture import Parameters, RowScores
from gmm_dask.mixture.merging import looked_up, row_entropies
from gmm_dask.mixture.reasons import LabelReasons, RowReasons, explain, two_best
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.stage.settings.output_settings import REASONS
from gmm_dask.storage import FURTHER_COLUMNS, to_arrow, to_ragged_lists, words_to_arrow

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

N_COLUMNS = 3  # that are named for a row, at most
OF_LABELS = ("next_label", "label_columns", "label_evidence")


@dataclass(frozen=True, eq=False)
class Further:
    """What is asked for beside label and density.

    Parameters
    ----------
    names : tuple of str
        The columns of the labels, in their order.
    features : tuple of str
    severities : Severities, optional
        Where severity or a flag is asked for.
    clusters : tuple of int, optional
        Cluster of each component, where the cluster is asked for.
    limit : float, optional
        The severity above which a row is flagged.
    reasons : {"none", "flagged", "all"}
    """

    names: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    severities: Severities | None = None
    limit: float | None = None
    clusters: tuple[int, ...] | None = None
    reasons: Literal["none", "flagged", "all"] = "none"


class Explained:
    """The further columns of the n rows of a chunk, which come block by block."""

    def __init__(self, further: Further, n: int) -> None:
        self._further, self._n = further, n
        self._severity = np.full(n if further.severities else 0, np.nan)
        self._flagged = np.zeros(n if further.limit is not None else 0, bool)
        self._cluster = np.full(n if further.clusters else 0, -1, np.int32)
        self._entropy = np.full(n if "entropy" in further.names else 0, np.nan)
        self._places: list[npt.NDArray[np.intp]] = []
        self._others: list[Any] = []
        self._reasons: list[tuple[RowReasons, LabelReasons | None]] = []

    @property
    def n_flagged(self) -> int:
        """Rows that are flagged."""
        return int(self._flagged.sum())

    def add(
        self,
        places: npt.NDArray[np.intp],
        X: Rows,
        scores: RowScores,
        parameters: Parameters,
        arithmetic: RowArithmetic,
    ) -> None:
        """Take usable rows X (m, d), whose places in the chunk are `places`, and their scores."""
        further, chosen = self._further, np.ones(len(X), bool)
        if further.clusters is not None:
            self._cluster[places] = looked_up(further.clusters, scores.labels)
        if "entropy" in further.names:
            self._entropy[places] = row_entropies(arithmetic.responsibilities(X, parameters))
        if further.severities is not None:
            severity = further.severities.of(scores.log_density)
            self._severity[places] = severity
            if further.limit is not None:
                chosen = severity > further.limit
                self._flagged[places] = chosen
        if further.reasons == "none":
            return
        where: Any = slice(None) if further.reasons == "all" or chosen.all() else chosen
        rows, others = X[where], None
        best = np.zeros(len(rows), np.intp)
        if parameters.n_components > 1:
            # A row of noise is compared with the component that it would be of without noise.
            parameters = replace(parameters, noise=None)
            best, others = two_best(arithmetic.responsibilities(rows, parameters))
        self._places.append(places[where])
        self._others.append(others)
        self._reasons.append(explain(rows, parameters, best, others, N_COLUMNS))

    def columns(self, usable: npt.NDArray[np.bool_]) -> Mapping[str, pa.Array]:
        """The columns by name; rows that are not `usable` have cluster -1, and null elsewhere."""
        found: dict[str, pa.Array] = {}
        if self._further.clusters is not None:
            found["cluster"] = to_arrow(self._cluster, pa.int32())
        if "entropy" in self._further.names:
            found["entropy"] = to_arrow(self._entropy, pa.float64(), ~usable)
        if self._further.severities is not None:
            found["severity"] = to_arrow(self._severity, pa.float64(), ~usable)
        if self._further.limit is not None:
            found["anomaly"] = to_arrow(self._flagged, pa.bool_(), ~usable)
        if self._reasons:
            found |= self._of_rows() | self._of_labels()
        elif self._further.reasons != "none":  # a chunk of no rows
            found |= {name: pa.nulls(self._n, FURTHER_COLUMNS[name]) for name in REASONS}
        return {name: found[name] for name in self._further.names}

    def _of_rows(self) -> dict[str, pa.Array]:
        reasons = [of_rows for of_rows, _ in self._reasons]
        columns, scores, expected = map(np.concatenate, zip(*reasons, strict=True))
        return {
            "reason_columns": self._lists(columns, None),
            "reason_scores": self._lists(columns, scores),
            "reason_expected": self._lists(columns, expected),
        }

    def _of_labels(self) -> dict[str, pa.Array]:
        """Null in every row where there is but one component."""
        reasons = [of_labels for _, of_labels in self._reasons if of_labels is not None]
        if not reasons:
            return {name: pa.nulls(self._n, FURTHER_COLUMNS[name]) for name in OF_LABELS}
        columns, evidence = map(np.concatenate, zip(*reasons, strict=True))
        places, others = np.concatenate(self._places), np.full(self._n, -1, np.int32)
        others[places] = np.concatenate(self._others)
        return {
            "next_label": to_arrow(others, pa.int32(), others < 0),
            "label_columns": self._lists(columns, None),
            "label_evidence": self._lists(columns, evidence),
        }

    def _lists(self, columns: npt.NDArray[np.intp], values: Array | None) -> pa.Array:
        """Values (m, c), or the names of the columns, as the lists of n rows."""
        places, there = np.concatenate(self._places), columns >= 0
        counts, absent = np.zeros(self._n, np.int32), np.ones(self._n, bool)
        counts[places], absent[places] = there.sum(axis=1), False
        if values is None:
            flat = words_to_arrow(self._further.features).take(to_arrow(columns[there], pa.int64()))
        else:
            flat = to_arrow(values[there], pa.float64())
        return to_ragged_lists(flat, counts, absent)
