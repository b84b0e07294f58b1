"""Moves from one optimum to the next: swaps of components, and crossings of two optima.

EM moves components a little; it never takes one from where two share a cluster to where one does
for two (Ueda, Nakano, Ghahramani and Hinton 2000, Neural Comput. 12; Franti and Kivijarvi 2000;
Kwedlo 2022, Expert Syst. Appl. 202, for swaps and crossings together).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gmm_dask.fitting.search.ground import MATRICES, Candidate, Ground

Array = npt.NDArray[np.float64]

NOT_ALONE = 1e-12  # what other components have of a row at least, so that a loss is finite
BACK = 0.2  # standard deviations from a component, and share of its weight: the same one
Part = tuple[float, Array, Array]  # weight, mean and covariance
Pair = tuple[Part, Part]
ODD = 0.02  # what `_oddities` of one cluster may be, beside what chance adds
PLAINLY = 8.0  # times what any parting promises
PARTS = ("light", "skewed", "wide", "inner")  # how a component is parted in two


class Swaps:
    """The ways to take one component of a mixture away and to part another one in two.

    Those whose removal costs least and whose parts differ most from one Gaussian come first.
    Spurious components go before all others.
    """

    def __init__(
        self,
        ground: Ground,
        parent: Candidate,
        spurious: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        R = ground.responsibilities(parent)
        losses = losses_of(ground, R, parent.weights)
        losses[list(spurious)] -= ground.n_rows
        self._by_loss = np.argsort(losses, kind="stable")
        self._least_loss = float(losses.min())
        self._losses, self._parted, self._rng = losses, Parted(ground, parent, R), rng

    @cached_property
    def _ways(self) -> list[tuple[float, int, int, int]]:
        """What each way costs, which component it takes away, and which one it parts and how."""
        k = len(self._losses)
        ways = [
            (self._losses[j] - self._parted.gain(of, how), j, of, how)
            for j in range(k)
            for of in range(k)
            for how in range(len(PARTS))
            if j != of
        ]
        return sorted(ways, key=lambda way: way[0])

    @property
    def cannot_pay(self) -> bool:
        """Whether every component looks Gaussian, and is missed by far more than parts promise."""
        return self._parted.are_gaussian and self._least_loss > PLAINLY * self._parted.largest_gain

    def next(self, n: int) -> list[Candidate]:
        """The next n ways, and no more than there are.

        A quarter of them is drawn by their ranks, and another one parts a component at random into
        the rows about one of them and all others.
        """
        n_near, n_drawn = n // 4, n // 4
        drawn = [self._ways.pop(0) for _ in range(min(n - n_near - n_drawn, len(self._ways)))]
        while len(drawn) < n - n_near and self._ways:
            at = int(self._rng.exponential(max(1.0, len(self._ways) / 3)))
            drawn.append(self._ways.pop(min(at, len(self._ways) - 1)))
        made = [self._parted.swapped(j, of, how) for _, j, of, how in drawn]
        if drawn:
            made += [self._near() for _ in range(n_near)]
        return [each for each in made if each is not None]

    def _near(self) -> Candidate | None:
        """A component that costs little goes to some rows of another one that are near a row."""
        k, rng = len(self._by_loss), self._rng
        j = int(self._by_loss[min(int(rng.exponential(max(1.0, k / 3))), k - 1)])
        heavy = np.cumsum(np.delete(self._parted.rows, j))
        of = int(np.searchsorted(heavy, rng.uniform() * heavy[-1]))
        of = min(of, k - 2)
        return self._parted.near(j, of + (of >= j), rng)


def losses_of(ground: Ground, R: Array, weights: Array) -> Array:
    """What the log-likelihood loses without each component, before anything else moves, (k,)."""
    logs = np.log(np.maximum(1 - R, NOT_ALONE))
    lost = -logs.sum(axis=0) if ground.weight is None else -(ground.weight @ logs)
    return np.asarray(lost + ground.n_rows * np.log1p(-np.minimum(weights, 1 - 1e-12)))


class Parted:
    """The parts of each component along some directions, found when they are asked for."""

    def __init__(self, ground: Ground, parent: Candidate, R: Array) -> None:
        self.ground, self.parent = ground, parent
        self._roots = _roots(ground, parent)
        self.shares = R if ground.weight is None else R * ground.weight[:, None]
        self.rows = self.shares.sum(axis=0)
        self._misfits, self._oddities = np.zeros((2, len(self.rows)))
        self._along = [self._projected(j) for j in range(len(self.rows))]
        self._pairs: dict[tuple[int, int], Pair | None] = {}

    def _projected(self, j: int) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Rows of a component, their coordinates along each of PARTS (4, n), and gains (4,)."""
        mine = np.flatnonzero(self.shares[:, j] > 0.05 * self.shares[:, j].max())
        r = self.shares[mine, j]
        D = self.ground.rows[mine] - self.parent.means[j]
        Z, d = D @ self._roots[j], D.shape[1]
        total = max(float(r.sum()), 1e-300)
        squares = (Z**2).sum(axis=1)
        fourth = (Z * (r * squares)[:, None]).T @ Z / total
        values, vectors = np.linalg.eigh(fourth)
        if self.ground.covariance_type != "full":
            self._misfits[j] = _misfit((Z * r[:, None]).T @ Z / total) * self.rows[j]
        skew = (r * squares) @ Z / total
        size = float(np.sqrt(skew @ skew))
        _, axes = np.linalg.eigh((D * r[:, None]).T @ D)
        along = np.stack(
            [Z @ vectors[:, 0], Z @ (skew / max(size, 1e-300)), D @ axes[:, -1], -squares]
        )
        self._oddities[j] = _oddities(along[:3], r).max()
        rows = self.rows[j]
        off = abs(float(squares @ (r * squares)) / total / (d * (d + 2)) - 1)
        gains = rows * np.array(
            [
                max(0.0, 1 - float(values[0]) / (d + 2)),
                0.3 * size / math.sqrt(d + 2),
                0.1,
                0.2 * off,
            ]
        )
        return mine, along, gains

    @property
    def are_gaussian(self) -> bool:
        """Whether the rows of each component look like draws from a Gaussian of its family.

        No covariance of its own would bring a component more than twice what chance does: half a
        log-likelihood for each of its d (d + 1) / 2 numbers (Wilks 1938). And no line through a
        component shows that it holds two clusters.
        """
        d = self.parent.means.shape[1]
        by_chance = (d + 4) / np.maximum(self.rows, 1.0)  # of Gaussian rows 2 % at most have more
        are_single = self._oddities <= ODD + by_chance
        return bool(are_single.all() and (self._misfits <= d * (d + 1) / 2).all())

    @property
    def largest_gain(self) -> float:
        """The most that parting one component in any way is guessed to bring."""
        return max(float(gains.max()) for _, _, gains in self._along)

    def gain(self, j: int, how: int) -> float:
        """A guess of what parting a component in this way is worth."""
        return float(self._along[j][2][how])

    def swapped(self, without: int, of: int, how: int) -> Candidate | None:
        """The parent without one component and with two parts of another; None without parts."""
        if (of, how) not in self._pairs:
            mine, along, _ = self._along[of]
            threshold = _threshold(along[how], self.shares[mine, of])
            self._pairs[of, how] = self._pair(of, along[how] > threshold)
        return self._with_parts(without, of, self._pairs[of, how])

    def near(self, without: int, of: int, rng: np.random.Generator) -> Candidate | None:
        """The parent without one component, and with another parted: near a row, and the rest.

        The part near the row, which is drawn, has from a few rows up to half of the component's.
        """
        mine = self._along[of][0]
        Z = self.ground.rows[mine] @ self._roots[of]
        squares = ((Z - Z[rng.integers(len(mine))]) ** 2).sum(axis=1)
        least = min(len(mine), self._least)
        share = math.exp(rng.uniform() * math.log(max(1.0, len(mine) / (2 * least))))
        near = squares <= np.sort(squares)[int(least * share) - 1]
        return self._with_parts(without, of, self._pair(of, near))

    @property
    def _least(self) -> int:
        """Rows that a component has at least."""
        d = self.parent.means.shape[1]
        return d + 2 if self.ground.covariance_type == "full" else 3

    def _pair(self, of: int, above: npt.NDArray[np.bool_]) -> Pair | None:
        """Both parts of a component, told by its rows; None where one of them is nothing."""
        mine = self._along[of][0]
        r = self.shares[mine, of]
        one, other = (self._part(mine[side], r[side], of) for side in (above, ~above))
        return None if one is None or other is None else (one, other)

    def _with_parts(self, without: int, of: int, pair: Pair | None) -> Candidate | None:
        if pair is None:
            return None
        parent, kept = self.parent, [i for i in range(len(self.rows)) if i not in (without, of)]
        (w1, m1, s1), (w2, m2, s2) = pair
        weights = np.concatenate([parent.weights[kept], [w1, w2]])
        means = np.concatenate([parent.means[kept], [m1, m2]])
        covariances = parent.covariances
        if self.ground.covariance_type != "tied":
            covariances = np.concatenate([covariances[kept], [s1, s2]])
        return Candidate(
            weights / weights.sum(), means, covariances, parent.line, parent.log_likelihood
        )

    def _part(self, mine: npt.NDArray[np.intp], r: Array, of: int) -> Part | None:
        rows, d = float(r.sum()), self.parent.means.shape[1]
        if len(mine) < 2 or not rows > 0:
            return None
        Y = self.ground.rows[mine]
        mean = r @ Y / rows
        D = Y - mean
        S, kind = self.parent.covariances, self.ground.covariance_type
        prior = min(float(d + 1), 0.2 * rows)
        if kind == "full":
            found = ((D * r[:, None]).T @ D + prior * S[of]) / (rows + prior)
        elif kind == "tied":
            found = S
        else:
            squares = r @ D**2
            squares = squares.mean() if kind == "spherical" else squares
            found = (squares + prior * S[of]) / (rows + prior)
        return rows / self.ground.n_rows, np.asarray(mean), np.asarray(found)


def _misfit(covariance: Array) -> float:
    """What a covariance of its own would bring each row, where its own should be the unit."""
    values = np.linalg.eigvalsh(covariance)
    return float((values - 1 - np.log(np.maximum(values, 1e-12))).sum() / 2)


def _oddities(Z: Array, r: Array) -> Array:
    """Skewness^2 / 6 + (kurtosis - 3)^2 / 24 of weighted values (s, n), (s,).

    Jarque and Bera 1987. Values beyond three standard deviations count as three, so that single far
    rows say little. Two distant clusters of equal weight have 1 / 6.
    """
    share = r / max(float(r.sum()), 1e-300)
    Z = Z - (Z @ share)[:, None]
    deviations = np.sqrt(np.maximum(Z**2 @ share, 1e-300))
    Z = np.clip(Z / deviations[:, None], -3, 3)
    cubes = Z**2 * Z
    return np.asarray((cubes @ share) ** 2 / 6 + ((cubes * Z) @ share - 3) ** 2 / 24)


def _roots(ground: Ground, mixture: Candidate) -> Array:
    """A root of each component's precision, (k, d, d)."""
    S, (k, d) = mixture.covariances, mixture.means.shape
    if ground.covariance_type in MATRICES:
        values, vectors = np.linalg.eigh(S)
        roots = vectors / np.sqrt(np.maximum(values, 1e-300))[..., None, :]
        return np.asarray(np.broadcast_to(roots, (k, d, d)))
    return np.asarray(np.eye(d) / np.sqrt(S if S.ndim == 2 else S[:, None])[:, None])


def with_twins(mixture: Candidate, gone: Sequence[int]) -> Candidate | None:
    """The mixture with halves of its heaviest others in place of some components, or None."""
    kept = [j for j in range(len(mixture.weights)) if j not in gone]
    if not kept:
        return None
    while len(kept) < len(mixture.weights):
        shares = mixture.weights[kept] / np.array([kept.count(j) for j in kept])
        kept.append(kept[int(shares.argmax())])
    weights = mixture.weights[kept] / np.array([kept.count(j) for j in kept])
    return replace(
        mixture,
        weights=weights / weights.sum(),
        means=mixture.means[kept],
        covariances=mixture.covariances[kept],
        rows=None,
    )


def leaving(ground: Ground, parent: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are not on their way back to where they come from.

    Those have a component near each of the parent's, of nearly the same weight.
    """
    if not candidates:
        return []
    means = np.stack([each.means for each in candidates])
    weights = np.log(np.stack([each.weights for each in candidates]))
    apart = means[:, None] - parent.means[:, None]  # from each component of the parent
    squares = ((apart @ _roots(ground, parent)) ** 2).sum(axis=3)
    nearest = squares.argmin(axis=2)
    lighter = np.take_along_axis(weights, nearest, 1) - np.log(parent.weights)
    is_near = (squares.min(axis=2) < BACK**2) & (np.abs(lighter) < BACK)
    return [each for each, near in zip(candidates, is_near.all(axis=1), strict=True) if not near]


def _threshold(values: Array, r: Array) -> float:
    """Where values part into the two groups of least variance within."""
    order = np.argsort(values, kind="stable")
    x, w = values[order], r[order]
    x = x - w @ x / w.sum()
    lower, upper = np.cumsum(w)[:-1], np.cumsum(w[::-1])[::-1][1:]
    between = np.cumsum(w * x)[:-1] ** 2 * (1 / lower + 1 / upper)
    if not len(between):
        return math.inf
    return float(values[order[int(between.argmax())]])


def crossings(
    ground: Ground, parents: Sequence[Candidate], n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Mixtures of components of two parents: of all of both, those that are missed most stay."""
    one, other = parents
    k = len(one.weights)
    if k < 2:
        return []
    found = []
    R = np.concatenate(
        [0.5 * ground.responsibilities(one), 0.5 * ground.responsibilities(other)], 1
    )
    densities = ground.log_densities(one), ground.log_densities(other)
    tilt = np.clip(densities[0] - densities[1], -50, 50)
    share = 1 / (1 + np.exp(-tilt))
    R = R * np.repeat(np.stack([2 * share, 2 * (1 - share)], axis=1), k, axis=1)
    weights = np.concatenate([one.weights, other.weights]) / 2
    for i in range(n):
        R_left, alive, w = R.copy(), list(range(2 * k)), weights.copy()
        while len(alive) > k:
            losses = losses_of(ground, R_left[:, alive], w[alive] / w[alive].sum())
            if i:
                losses = losses * rng.uniform(0.5, 1.5, len(losses))
            gone = alive.pop(int(losses.argmin()))
            rest = np.maximum(1 - R_left[:, gone], NOT_ALONE)
            R_left = R_left / rest[:, None]
        found.append(_of_both(ground, one, other, np.array(alive), w))
    return found


def _of_both(
    ground: Ground, one: Candidate, other: Candidate, alive: npt.NDArray[np.intp], weights: Array
) -> Candidate:
    kept = weights[alive] / weights[alive].sum()
    covariances = one.covariances
    if ground.covariance_type == "tied":
        covariances = (one.covariances + other.covariances) / 2
    else:
        covariances = np.concatenate([one.covariances, other.covariances])[alive]
    means = np.concatenate([one.means, other.means])[alive]
    return replace(
        one, weights=kept, means=means, covariances=covariances, rows=None, converged=False
    )
