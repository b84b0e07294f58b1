"""What stands beside the label of a row: its cluster, how unusual it is, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.mixture import Parameters, RowScores
from gmm_dask.mixture.merging import looked_up, row_entropies
from gmm_dask.mixture.reasons import LabelReasons, RowReasons
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.storage import Lengths, repeated_words, to_arrow, words_to_arrow

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

N_COLUMNS = 3  # that are named for a row, at most


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
            severity = further.severities.of(scores.log_density, arithmetic)
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
            best, others = arithmetic.two_best(rows, parameters)
            self._others.append(others)
        self._places.append(places[where])
        self._reasons.append(arithmetic.explain(rows, parameters, best, others, N_COLUMNS))

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
        if self._further.reasons != "none":
            found |= self._of_rows() | self._of_labels()
        return {name: found[name] for name in self._further.names}

    def _of_rows(self) -> dict[str, pa.Array]:
        columns, scores, expected = _joined([of_rows for of_rows, _ in self._reasons], 3)
        lists = _Lists.of(columns, self._places, self._n)
        return {
            "reason_columns": lists.words(self._further.features),
            "reason_scores": lists.numbers(scores),
            "reason_expected": lists.numbers(expected),
        }

    def _of_labels(self) -> dict[str, pa.Array]:
        """Null in every row where there is but one component."""
        reasons = [of_labels for _, of_labels in self._reasons if of_labels is not None]
        columns, evidence = _joined(reasons, 2)
        places, others = self._places if reasons else [], np.full(self._n, -1, np.int32)
        for at, of_rows in zip(places, self._others, strict=True):
            others[at] = of_rows
        lists = _Lists.of(columns, places, self._n)
        return {
            "next_label": to_arrow(others, pa.int32(), others < 0),
            "label_columns": lists.words(self._further.features),
            "label_evidence": lists.numbers(evidence),
        }


@dataclass(frozen=True, eq=False)
class _Lists:
    """Columns that are named for some of n rows, and which of the places for them are taken.

    Parameters
    ----------
    columns : (m, c)
    there : (m, c) bool, or None where all are taken
    lengths : Lengths
    """

    columns: npt.NDArray[np.integer[Any]]
    there: npt.NDArray[np.bool_] | None
    lengths: Lengths

    @classmethod
    def of(
        cls, columns: npt.NDArray[np.integer[Any]], places: Sequence[npt.NDArray[np.intp]], n: int
    ) -> _Lists:
        """The columns of the rows at these places, block by block."""
        counts, absent = np.zeros(n, np.int32), np.ones(n, bool)
        whole = not columns.size or bool(columns.min() >= 0)
        there = None if whole else columns >= 0
        first = 0
        for at in places:
            of_rows = slice(first, first + len(at))
            counts[at] = columns.shape[1] if there is None else there[of_rows].sum(axis=1)
            absent[at], first = False, of_rows.stop
        return cls(columns, there, Lengths.of(counts, absent))

    def numbers(self, values: Array) -> pa.ListArray:
        """A number of each column, from (m, c)."""
        return self.lengths.lists(to_arrow(self._taken(values), pa.float64()))

    def words(self, names: Sequence[str]) -> pa.ListArray:
        """The name of each column."""
        return self.lengths.lists(repeated_words(self._taken(self.columns), words_to_arrow(names)))

    def _taken(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values.ravel() if self.there is None else values[self.there]


def _joined(reasons: Sequence[Sequence[npt.NDArray[Any]]], n_arrays: int) -> Sequence[Any]:
    """The arrays of all blocks, one below the other; the first are columns."""
    if not reasons:
        return [np.empty((0, N_COLUMNS), np.intp), *[np.empty((0, N_COLUMNS))] * (n_arrays - 1)]
    if len(reasons) == 1:
        return reasons[0]
    return [*map(np.concatenate, zip(*reasons, strict=True))]
