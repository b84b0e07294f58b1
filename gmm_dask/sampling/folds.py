"""Parts of the rows by a hash of their values: equal rows are in one part, whoever looks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.sampling.keys import Keys, row_keys

Rows = npt.NDArray[Any]

_ALL = 2**64  # hashes there are


@dataclass(frozen=True)
class Fold:
    """The rows whose hash is in a part of all hashes.

    Parameters
    ----------
    salt : int
        Salt of the hash of the rows.
    start, stop : float
        Shares of all hashes, from 0 to 1: the part begins at the one and ends before the other.
    """

    salt: int
    start: float
    stop: float

    def of(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether rows of these hashes are in it, (n,)."""
        first, last = int(self.start * _ALL), int(self.stop * _ALL) - 1
        return np.asarray((keys >= np.uint64(first)) & (keys <= np.uint64(last)))


def folded(
    X: Rows, weight: Rows | None, folds: Iterable[Fold]
) -> dict[Fold, tuple[Rows, Rows | None]]:
    """The rows X (n, d) of each fold, (m, d), with their weights, (m,); a hash is taken once."""
    keys: dict[int, Keys] = {}
    found = {}
    for fold in dict.fromkeys(folds):
        if fold.salt not in keys:
            keys[fold.salt] = row_keys(X, fold.salt)
        there = fold.of(keys[fold.salt])
        found[fold] = X[there], None if weight is None else weight[there]
    return found
