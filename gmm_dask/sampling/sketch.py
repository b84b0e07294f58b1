"""The sample that a start is found on: different rows, with the weight of all rows equal to each.

A row's key is a hash of its values and the seed. The sample consists of the rows of smallest key
(bottom-k sampling: Cohen and Kaplan 2007, Summarizing data using bottom-k sketches) and of every
row that holds much of the weight, whatever its key. So the sample depends neither on the order of
the rows nor on whether a row stands there three times or once with the weight 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.sampling.keys import Keys, row_keys
from gmm_dask.sampling.spread import weight_unit

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

LAST_KEY = 2**64 - 1
MUCH = 1 / 512  # a row of this share of the weight is in the sample whatever its key
COUNTED = 1023  # a sketch tells the weight of each row of more than 1 / COUNTED of its own
SPARE = 2  # keys of interest for each row of the sample: half the rows may be equal or unusable
SPARE_PART = 16  # the same for a larger sample that is not worth another look: 1 / SPARE_PART more


@dataclass(frozen=True, eq=False)
class Draw:
    """Which rows a pass that draws the sample has to bring.

    Parameters
    ----------
    salt : int
        Salt of the hash of the rows, which is drawn from the seed.
    size : int
        The number of rows in the sample, at most.
    least : int
        Rows that the sample has where the data have so many: where a pass brought fewer, another
        pass follows. For more than `least` none does, and the sample has `least` or `size` rows.
    limit : int
        Largest key of interest.
    much : (c,) uint64, ascending
        Keys that are of interest beyond the limit, too.
    by_value : bool
        False hashes the place of a row instead of its values, so that no two rows are equal.
    count : bool
        Whether to look for rows that hold much of the weight.
    """

    salt: int
    size: int
    least: int
    limit: int
    much: Keys = field(default_factory=lambda: np.zeros(0, np.uint64))
    by_value: bool = True
    count: bool = True

    @classmethod
    def first(
        cls, seed: np.random.SeedSequence, least: int, size: int, n_rows: int, by_value: bool
    ) -> Draw:
        """The first draw from n_rows > least rows."""
        salt = int(seed.generate_state(1, np.uint64)[0])
        looked_at = max(SPARE * least, size + size // SPARE_PART)
        limit = min(LAST_KEY, looked_at * 2**64 // n_rows)
        return cls(salt, size, least, limit, by_value=by_value, count=by_value)

    @property
    def much_share(self) -> float:
        """Share of the weight from which on a row is in the sample whatever its key."""
        return _much_share(self.size)

    def wants(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether rows of these keys are of interest, (n,)."""
        return np.asarray((keys <= np.uint64(self.limit)) | _among(keys, self.much))


@dataclass(frozen=True, eq=False)
class Sketch:
    """What one pass over some rows brought for the sample; weights are in `unit`.

    Parameters
    ----------
    keys : (m,) uint64, ascending
    X : (m, d)
        Different rows of these keys.
    weight : (m,)
        Weight of all rows equal to each of them.
    heavy_keys, heavy_weight : (c,)
        Key and weight of every row that weighs more than `lost`; the weight is at most `lost` too
        small (Agarwal et al. 2012, Mergeable summaries).
    lost : float
    total : float
        Weight of all rows.
    unit : float
        A power of two.
    """

    keys: Keys
    X: Rows
    weight: Array
    heavy_keys: Keys
    heavy_weight: Array
    lost: float
    total: float
    unit: float

    @classmethod
    def of(cls, draw: Draw, keys: Keys, X: Rows, weight: Array | None) -> Sketch:
        """The sketch of rows X (n, d) of positive weight and of their keys (n,)."""
        unit = 1.0 if weight is None else weight_unit(float(weight.max(initial=0.0)))
        weight = None if weight is None else weight / unit
        wanted = np.flatnonzero(draw.wants(keys))
        counted = np.ones(len(wanted)) if weight is None else weight[wanted]
        found = _merged(keys[wanted], X[wanted], counted, draw)
        heavy = _heaviest(keys, weight) if draw.count else (keys[:0], counted[:0], 0.0)
        return cls(*found, *heavy, float(len(X) if weight is None else weight.sum()), unit)

    @classmethod
    def of_chunk(
        cls,
        draw: Draw,
        first_row: int,
        eligible: npt.NDArray[np.bool_],
        X: Rows,
        weights: Rows | None,
        keys: Keys | None = None,
    ) -> Sketch:
        """The sketch of a chunk's eligible rows (n, d); where drawn by place, places are hashed."""
        X, weight = chosen_rows(eligible, X, weights)
        if not draw.by_value:
            keys = row_keys(first_row + np.flatnonzero(eligible)[:, None], draw.salt)
        elif keys is None:
            keys = row_keys(X, draw.salt)
        return cls.of(draw, keys, X, weight)

    @classmethod
    def merged(cls, draw: Draw, parts: Sequence[Sketch]) -> Sketch:
        """The sketch of all rows from those of the chunks."""
        unit = max(part.unit for part in parts)
        ratios = [part.unit / unit for part in parts]
        found = _merged(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.X for part in parts]),
            np.concatenate([part.weight * r for part, r in zip(parts, ratios, strict=True)]),
            draw,
        )
        heavy = _summed(
            np.concatenate([part.heavy_keys for part in parts]),
            np.concatenate([part.heavy_weight * r for part, r in zip(parts, ratios, strict=True)]),
        )
        lost = sum(part.lost * r for part, r in zip(parts, ratios, strict=True))
        total = sum(part.total * r for part, r in zip(parts, ratios, strict=True))
        return cls(*found, *heavy, lost, total, unit)

    def next_draw(self, draw: Draw, n_eligible: int) -> Draw | None:
        """What another pass has to bring; None where this one brought everything.

        Parameters
        ----------
        n_eligible : int
            Number of rows of positive weight, equal ones included.
        """
        seen = self._n_near(draw)
        complete = seen > draw.least or draw.limit == LAST_KEY  # one more tells that there are more
        least = draw.much_share * self.total
        possible = self.heavy_keys[self.heavy_weight + self.lost >= least]
        if complete and (self.is_all(draw) or _among(possible, self.keys).all()):
            return None
        wider = max(2, 3 * draw.size // (2 * max(16, seen)))
        limit = draw.limit if complete else draw.limit * wider
        limit = LAST_KEY if n_eligible <= draw.size else min(LAST_KEY, limit)
        return replace(draw, limit=limit, much=np.union1d(draw.much, possible), count=False)

    def chosen(self, draw: Draw) -> tuple[Rows, Array]:
        """The rows of the sample and their weights, which add up to the weight of all rows.

        Rows that do not hold much of the weight stand for those that were not drawn, too.
        """
        if self.is_all(draw):
            return self.X, self.weight
        near = self.keys <= np.uint64(draw.limit)
        size = draw.size if self._n_near(draw) > draw.size else draw.least
        chosen, weight = _standing_for_all(self.weight, near, self.total, size)
        return self.X[chosen], weight

    def is_all(self, draw: Draw) -> bool:
        """Whether every different row is here, with all its weight."""
        return draw.limit == LAST_KEY and len(self.keys) <= draw.size

    def n_different(self, draw: Draw) -> float:
        """How many different rows there are; an estimate unless all are here.

        The m-th smallest key of many, as a share of all keys, tells how dense they are (Beyer et
        al. 2007, On synopses for distinct-value estimation under multiset operations).
        """
        if self.is_all(draw):
            return float(len(self.keys))
        near = self._n_near(draw)
        last = int(self.keys[near - 1]) + 1 if near else 1
        return max(near - 1, 1) * (2.0**64 / last)

    def _n_near(self, draw: Draw) -> int:
        """Number of different rows of keys up to the limit, or `size` + 1 where there are more."""
        return int((self.keys <= np.uint64(draw.limit)).sum())


def chosen_rows(
    chosen: npt.NDArray[np.bool_], X: Rows, weights: Rows | None
) -> tuple[Rows, Array | None]:
    """The chosen rows and their weights in float64; the arrays themselves where all are chosen."""
    if not chosen.all():
        X, weights = X[chosen], None if weights is None else weights[chosen]
    return X, None if weights is None else np.asarray(weights, dtype=np.float64)


def fewer(X: Rows, weight: Array, size: int) -> tuple[Rows, Array]:
    """A sample of at most `size` rows out of a sample in the order of its keys, and its weights.

    From 2 / MUCH rows on the result is what a draw of that size would have found, unless a row
    weighs nearly MUCH: such a row may stand for others in X, and then counts as one of much weight.
    """
    chosen, found = _standing_for_all(weight, np.ones(len(X), bool), float(weight.sum()), size)
    return X[chosen], found


def _much_share(size: int) -> float:
    """The share of the weight from which on rows are in a sample whatever their keys.

    Rows of so much weight are at most half of the sample.
    """
    return max(MUCH, 2 / size)


def _standing_for_all(
    weight: Array, near: npt.NDArray[np.bool_], total: float, size: int
) -> tuple[npt.NDArray[np.intp], Array]:
    """Which rows a sample of `size` has, and their weights, which add up to the total.

    The sample has the rows of much weight and, of the others, the first that are near.
    """
    much = weight >= _much_share(size) * total
    others = np.flatnonzero(~much & near)
    others = others[: size - int(much.sum())]
    weight = weight.copy()
    rest = max(total - float(weight[much].sum()), 0.0)
    weight[others] *= rest / max(float(weight[others].sum()), np.finfo(float).tiny)
    chosen = np.sort(np.concatenate([np.flatnonzero(much), others]))
    return chosen, weight[chosen]


def _among(keys: Keys, known: Keys) -> npt.NDArray[np.bool_]:
    """Whether each key is one of the known ones, which ascend."""
    if not len(known):
        return np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.asarray(known[place] == keys)


def _merged(keys: Keys, X: Rows, weight: Array, draw: Draw) -> tuple[Keys, Rows, Array]:
    """Different rows in the order of their keys, each with the weight of all rows equal to it.

    Of these, size + 1 rows are kept, where the last tells that there are more than the sample has
    room for; rows whose keys are in `draw.much` are kept beyond that.
    """
    order = np.argsort(keys, kind="stable")
    keys, weight = keys[order], weight[order]
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    old = np.flatnonzero(~new)
    new[old] = differ(X[order[old]], X[order[old - 1]])
    first = np.flatnonzero(new)
    if len(first):
        weight = np.add.reduceat(weight, first)
    kept = (np.arange(len(first)) <= draw.size) | _among(keys[first], draw.much)
    first, weight = first[kept], weight[kept]
    return keys[first], X[order[first]], weight


def differ(A: Rows, B: Rows) -> npt.NDArray[np.bool_]:
    """Whether two rows have different values, (n,); a missing value equals another."""
    return np.asarray(((A != B) & ~(np.isnan(A) & np.isnan(B))).any(axis=1))


def _summed(keys: Keys, weight: Array) -> tuple[Keys, Array]:
    """The weight of each key; keys ascend."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    return keys[first], np.add.reduceat(weight[order], first) if len(first) else weight


def _heaviest(keys: Keys, weight: Array | None) -> tuple[Keys, Array, float]:
    """Keys that hold more than 1 / COUNTED of all weight, their weights, and that threshold.

    A key weighs no more than all keys that share its first 16 bits, so nearly none is counted.
    """
    bucket = (keys >> np.uint64(48)).view(np.int64)
    weights = np.bincount(bucket, weight, 1 << 16)
    lost = float(weights.sum()) / COUNTED
    if not (weights > lost).any():
        return keys[:0], np.zeros(0), lost
    chosen = (weights > lost)[bucket]
    each = np.ones(int(chosen.sum())) if weight is None else weight[chosen]
    keys, weight = _summed(keys[chosen], each)
    kept = weight > lost
    return keys[kept], weight[kept], lost
