"""Columns that are numbers and yet hardly measurements: constants, codes of classes, keys.

A whole number that no two rows share may be a key, or a measurement of wide range in few rows.
They are told apart by what a measurement does: its values gather, so that two rows that share a
value are as frequent as two rows whose values are neighbours. A key leaves no such gap unfilled
and fills no place twice; or it is a random number, spread evenly from the least to the greatest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

FEW = 16  # different values at most that codes of classes have
ROWS_EACH = 5  # rows at least that there are for each of them
SHARED = 1 / 20  # of the rows at most that hold a value which another row holds, too
NEIGHBOURS = 10  # pairs of next values at least that say anything
NEIGHBOURS_EACH = 8  # pairs of next values that outweigh one pair of equal values
ROWS_SPREAD = 150  # rows from which on an even spread is told from a bell
EVEN = 4.0  # Anderson and Darling's statistic: one of a hundred even columns is beyond it
MOST_VALUES = 1 << 18  # of the sample that are looked at, so that it takes no time
LEAST_ROWS = 1 << 10  # that are looked at however many columns there are
HEAD = 64  # rows that rule out nearly every column of measurements

# Such a whole number is a key, of these rows or of others; the second kind only if it is unique.
NAMED_KEY = re.compile(r"(?i:(^|[^a-z])(id|uuid|guid|key|pk|fk)$|^id[^a-z])|[a-z](Id|ID|Key)$")
NAMED_NUMBER = re.compile(r"(?i:(id|key|no|nr|num|number|index|idx|code|serial|row)$)")


class Oddity(StrEnum):
    """Why a column is hardly a feature."""

    CONSTANT = "constant"
    CODE = "code"
    KEY = "key"


class Seen(NamedTuple):
    """The rows that columns are judged by.

    Parameters
    ----------
    rows : (m, d)
        NaN is a missing value.
    least, greatest : (d,)
        Least and greatest value of each column, over all rows.
    n_rows : int
        All rows that `rows` stand for.
    is_drawn : bool
        Whether they are different rows, drawn at random; else they are all rows, in their order.
    copies : float
        Number of rows that are equal to a different row, counting that one as well.
    """

    rows: Rows
    least: Array
    greatest: Array
    n_rows: int
    is_drawn: bool = False
    copies: float = 1.0


def odd_columns(seen: Seen, names: Sequence[str]) -> dict[Oddity, tuple[int, ...]]:
    """The columns of each oddity that some column has, in their order; names are (d,)."""
    rows = _bounded(seen)
    head = rows[:HEAD]
    with np.errstate(invalid="ignore"):
        candidates = ((head == np.rint(head)) | np.isnan(head)).all(axis=0)
    constant = seen.least >= seen.greatest
    found = {Oddity.CONSTANT: np.flatnonzero(constant).tolist(), Oddity.CODE: [], Oddity.KEY: []}
    for j in map(int, np.flatnonzero(candidates & ~constant)):
        column = _Column.of(rows, j, seen)
        if column is not None and (oddity := column.oddity(names[j])):
            found[oddity].append(j)
    return {oddity: tuple(columns) for oddity, columns in found.items() if columns}


def _bounded(seen: Seen) -> Rows:
    """At most as many of the rows as can be looked at quickly; the rows keep their order."""
    rows = seen.rows
    most = max(LEAST_ROWS, MOST_VALUES // max(1, rows.shape[1]))
    if len(rows) <= most:
        return rows
    if seen.is_drawn:
        return rows[:most]
    chosen: Rows = np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))
    return np.asarray(rows[chosen])


@dataclass(frozen=True, eq=False)
class _Column:
    """A column of whole numbers, two of which differ.

    Parameters
    ----------
    values : (m,) int64
        Values that were looked at, without the missing ones.
    gaps : (m - 1,) int64
        Between each value and the next larger one.
    n_rows : float
        All rows that have a value.
    length : float
        Distance from the least value of all rows to the greatest.
    seen : Seen
    """

    values: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    n_rows: float
    length: float
    seen: Seen

    @classmethod
    def of(cls, rows: Rows, j: int, seen: Seen) -> _Column | None:
        """Column j of the rows (m, d); None where a value is not whole, or no fraction exists."""
        column = rows[:, j]
        values = column[~np.isnan(column)]
        exact = 2.0 ** (np.finfo(column.dtype).nmant + 1)  # beyond, every number is whole
        if len(values) < 2 or not ((np.abs(values) <= exact) & (values == np.rint(values))).all():
            return None
        values = values.astype(np.int64)
        n_rows = seen.n_rows * len(values) / len(rows)
        length = float(seen.greatest[j] - seen.least[j])
        return cls(values, np.diff(np.sort(values)), n_rows, length, seen)

    def oddity(self, name: str) -> Oddity | None:
        """CODE or KEY, or neither."""
        n_different = 1 + int(np.count_nonzero(self.gaps))
        if n_different <= FEW and self.n_rows >= ROWS_EACH * n_different:
            return Oddity.CODE
        if NAMED_KEY.search(name):
            return Oddity.KEY
        if not self.is_nearly_unique:
            return None
        is_key = NAMED_NUMBER.search(name) or self.ascends or self.is_filled or self.is_even
        return Oddity.KEY if is_key else None

    @cached_property
    def step(self) -> int:
        """Distance between neighbours of the lattice that all values lie on."""
        return max(1, int(np.gcd.reduce(self.gaps)))

    @cached_property
    def n_shared(self) -> int:
        """Rows that were looked at less their different values."""
        return int(np.count_nonzero(self.gaps == 0))

    @property
    def is_nearly_unique(self) -> bool:
        """Whether nearly every row has a value of its own, also of the rows that were not drawn."""
        m = len(self.values)
        few_copies = self.seen.copies <= 1 + SHARED + 4 / np.sqrt(m)  # four standard errors
        if self.n_shared > SHARED * m or not few_copies:
            return False
        return self.n_rows * (1 - SHARED) <= self.length / self.step + 1

    @property
    def ascends(self) -> bool:
        """Whether each row has a larger value than the row before; unknown of rows drawn."""
        in_order = not self.seen.is_drawn and len(self.values) > NEIGHBOURS
        return in_order and bool((np.diff(self.values) > 0).all())

    @property
    def is_filled(self) -> bool:
        """Whether next places are both taken much more often than one place is taken twice.

        Independent draws from any smooth distribution take both at most twice as often.
        """
        if self.seen.is_drawn and self.seen.rows.shape[1] == 1:
            return False  # rows of equal values are one row there
        n_next = int(np.count_nonzero(self.gaps == self.step))
        before = np.concatenate([[1], self.gaps[:-1]])
        n_twice = int(np.count_nonzero((self.gaps == 0) & (before > 0)))  # or more often
        return n_next >= NEIGHBOURS + NEIGHBOURS_EACH * n_twice

    @property
    def is_even(self) -> bool:
        """Whether different values are random numbers between two ends (Anderson, Darling 1954)."""
        n = len(self.values) - self.n_shared
        if n < ROWS_SPREAD:
            return False
        below = np.concatenate([[0], np.cumsum(self.gaps[self.gaps > 0] // self.step)])
        above = below[-1] - below[::-1]
        logs = np.log(below + 0.5) + np.log(above + 0.5) - 2 * np.log(below[-1] + 1)
        odd = 2 * np.arange(1, n + 1) - 1
        return -n - float(np.mean(odd * logs)) <= EVEN
