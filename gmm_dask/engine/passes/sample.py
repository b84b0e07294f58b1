"""The sample that a start is found on: different rows, each with the weight of all its equals.

A row's key is a hash of its values and the seed. The sample is the rows of smallest key (bottom-k
sampling: Cohen and Kaplan 2007, Summarizing data using bottom-k sketches), and beside them every
row that holds much of the weight, which most keys would miss. So it knows neither the order of
the rows nor whether a row stands there three times or once with the weight 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture.look import Keys, row_keys
from gmm_dask.mixture.row_arithmetic import RowArithmetic
from gmm_dask.mixture.spread import weight_unit

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

LAST_KEY = 2**64 - 1
MUCH = 1 / 512  # share of the weight of a row that is in the sample whatever its key
COUNTED = 1023  # a chunk tells the weight of rows of more than this part of its own
SPARE = 2  # keys looked at, in sizes of the sample: half the rows may be equal or of no use
SPARE_PART = 16  # of a size that is not worth another look: what more rows than that take is memory


@dataclass(frozen=True, eq=False)
class Draw:
    """What a look at the rows has to bring.

    Parameters
    ----------
    salt : int
        From the seed.
    size : int
        Rows of the sample at most.
    least : int
        Rows that it has where the data have them: for fewer, all rows are looked at again. For
        more they are not, and it has so many or `size`.
    limit : int
        Largest key of interest.
    much : (c,) uint64, ascending
        Keys of interest whatever they are.
    by_value : bool
        False takes the place of a row for its value: each is another then.
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
        """Of n_rows > least rows."""
        salt = int(seed.generate_state(1, np.uint64)[0])
        looked_at = max(SPARE * least, size + size // SPARE_PART)
        limit = min(LAST_KEY, looked_at * 2**64 // n_rows)
        return cls(salt, size, least, limit, by_value=by_value, count=by_value)

    @property
    def much_share(self) -> float:
        """Share of the weight that is much."""
        return _much_share(self.size)

    def wants(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether rows of these keys are of interest, (n,)."""
        return np.asarray((keys <= np.uint64(self.limit)) | _among(keys, self.much))


@dataclass(frozen=True, eq=False)
class Sketch:
    """What one look at some rows brought; weights are in `unit`.

    Parameters
    ----------
    keys : (m,) uint64, ascending
    X : (m, d)
        Different rows, with the weight of all rows equal to each.
    weight : (m,)
    heavy_keys, heavy_weight : (c,)
        Of every row that weighs more than `lost`, at most that much too little (Agarwal et al.
        2012, Mergeable summaries).
    lost : float
    total : float
        Weight of all rows.
    unit : float
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
        """Of rows X (n, d) of positive weight, and their keys (n,)."""
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
        """What another look has to bring; None where this one brought everything.

        Parameters
        ----------
        n_eligible : int
            Rows of positive weight, however many of them are equal.
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
        """The sample and its weights, in `unit`, which add up to that of all rows.

        So rows that do not hold much of the weight stand for those that were not drawn.
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
        """Different rows of keys up to the limit; of more than `size` one more is kept."""
        return int((self.keys <= np.uint64(draw.limit)).sum())


def sample_chunk(
    arithmetic: RowArithmetic,
    draw: Draw,
    first_row: int,
    X: Rows,
    weights: Rows | None = None,
) -> Sketch:
    """What one chunk has for the sample."""
    eligible = eligible_rows(X, weights, arithmetic.usable(X, weights), arithmetic)
    return Sketch.of_chunk(draw, first_row, eligible, X, weights)


def chosen_rows(
    chosen: npt.NDArray[np.bool_], X: Rows, weights: Rows | None
) -> tuple[Rows, Array | None]:
    """The chosen rows, and their weights in float64."""
    if not chosen.all():
        X, weights = X[chosen], None if weights is None else weights[chosen]
    return X, None if weights is None else np.asarray(weights, dtype=np.float64)


def eligible_rows(
    X: Rows, weights: Rows | None, usable: npt.NDArray[np.bool_], arithmetic: RowArithmetic
) -> npt.NDArray[np.bool_]:
    """Usable rows of positive weight with at least one value, (n,)."""
    if arithmetic.missing == "em":
        usable = usable & ~np.isnan(X).all(axis=1)
    return usable if weights is None else np.asarray(usable & (weights > 0))


def fewer(X: Rows, weight: Array, size: int) -> tuple[Rows, Array]:
    """At most so many rows of a sample, which stands in the order of its keys, and their weights.

    From 2 / MUCH rows on it is what a draw of that size would have found, unless a row weighs
    nearly MUCH: such a one may stand for others here and then counts as of much weight.
    """
    chosen, found = _standing_for_all(weight, np.ones(len(X), bool), float(weight.sum()), size)
    return X[chosen], found


def _much_share(size: int) -> float:
    """Rows of that share of the weight are half of a sample at most."""
    return max(MUCH, 2 / size)


def _standing_for_all(
    weight: Array, near: npt.NDArray[np.bool_], total: float, size: int
) -> tuple[npt.NDArray[np.intp], Array]:
    """Which rows a sample of `size` has, and their weights, which add up to the total.

    Those of much weight, and of the others the first that are near.
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
    """Equal rows as one, which has all their weight; keys ascend.

    One more than the sample has room for, which tells that these are not all; and what is wanted
    whatever its key. Of the others a part may be missing here that another chunk has kept.
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
    """The keys that hold more than one part in COUNTED of the weight, theirs, and that part.

    A key weighs no more than all that share its first bits: nearly none has to be counted.
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
