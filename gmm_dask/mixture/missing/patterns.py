"""Which features rows have values in, and which rows are alike in that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Rows that have values in the same features.

    Parameters
    ----------
    rows : (m,)
        Indices of the rows that have the pattern, ascending.
    observed, missing : indices of features
    """

    rows: Indices
    observed: Indices
    missing: Indices

    def of(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values that are there, (m, observed)."""
        return X[self.rows[:, None], self.observed]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Rows of several patterns, all with the same number of observed features.

    Parameters
    ----------
    rows : (n,)
        Indices of the rows; rows of one pattern stand together.
    starts : (p,)
        Where the rows of each pattern begin in `rows`.
    observed : (p, o)
    missing : (p, m)
    """

    rows: Indices
    starts: Indices
    observed: Indices
    missing: Indices

    @property
    def which(self) -> Indices:
        """The pattern of each row, (n,)."""
        counts = np.diff(self.starts, append=len(self.rows))
        return np.repeat(np.arange(len(self.starts)), counts)

    def take(self, places: Indices) -> Bundle:
        """Some of the rows, by their places in ascending order."""
        kept, starts = np.unique(self.which[places], return_index=True)
        return Bundle(self.rows[places], starts, self.observed[kept], self.missing[kept])


@dataclass(frozen=True, eq=False)
class Patterns:
    """All patterns of some rows, in an order that the patterns alone decide: fewest missing first.

    Parameters
    ----------
    rows : (n,)
        Indices of the rows, pattern by pattern.
    edges : (p + 1,)
        Where each pattern begins and ends in `rows`.
    absent : (p, d)
    """

    rows: Indices
    edges: Indices
    absent: Mask

    @classmethod
    def of(cls, absent: Mask) -> Patterns:
        """The patterns of rows whose missing values are marked, (n, d)."""
        words = _words(absent)
        _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(absent[first].sum(axis=1), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        each = place[inverse.ravel()]
        edges = np.concatenate([[0], np.cumsum(np.bincount(each, minlength=len(order)))])
        return cls(np.argsort(each, kind="stable"), edges, absent[first[order]])

    def split(self, populous: int, bundle_rows: int) -> tuple[list[Pattern], list[Bundle]]:
        """Patterns of so many rows, or of all or no features; bundles of the others."""
        counts, n_missing = np.diff(self.edges), self.absent.sum(axis=1)
        one = (counts >= populous) | (n_missing == 0) | (n_missing == self.absent.shape[1])
        left = np.flatnonzero(~one)
        cuts = np.flatnonzero(np.diff(n_missing[left])) + 1
        bundles = [
            self._bundle(part)
            for alike in np.split(left, cuts)
            for part in _limited(alike, counts, bundle_rows)
        ]
        return [self._pattern(i) for i in map(int, np.flatnonzero(one))], bundles

    def _pattern(self, i: int) -> Pattern:
        absent = self.absent[i]
        rows = self.rows[self.edges[i] : self.edges[i + 1]]
        return Pattern(rows, np.flatnonzero(~absent), np.flatnonzero(absent))

    def _bundle(self, which: Indices) -> Bundle:
        absent, counts = self.absent[which], self.edges[which + 1] - self.edges[which]
        rows = np.concatenate([self.rows[self.edges[i] : self.edges[i + 1]] for i in which])
        p = len(which)
        observed, missing = (np.nonzero(mask)[1].reshape(p, -1) for mask in (~absent, absent))
        return Bundle(rows, np.cumsum(counts) - counts, observed, missing)


def patterns(X: npt.NDArray[Any]) -> Iterator[Pattern]:
    """The patterns of X (n, d)."""
    yield from Patterns.of(np.isnan(X)).split(0, 1)[0]


def _words(absent: Mask) -> npt.NDArray[np.uint64]:
    """Each row's marks as one number, (n,), or as several, (n, words)."""
    packed = np.packbits(absent, axis=1)
    n, width = packed.shape
    padded = np.zeros((n, max(1, -(-width // 8)) * 8), np.uint8)
    padded[:, :width] = packed
    words = padded.view(np.uint64)
    return words[:, 0] if words.shape[1] == 1 else words


def _limited(which: Indices, counts: Indices, rows: int) -> Iterator[Indices]:
    """The patterns in runs of so many rows together, at least one pattern each."""
    if len(which):
        before = np.cumsum(counts[which]) - counts[which]
        yield from np.split(which, np.flatnonzero(np.diff(before // rows)) + 1)
