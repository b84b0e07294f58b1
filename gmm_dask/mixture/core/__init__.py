"""The compiled core: the contract of `steps` in C++, many times faster, without a matrix of n x k.

`src/` has the C++ sources, `library` finds what was built of them, and this module hands rows over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import steps
from gmm_dask.mixture.core.arguments import Arguments, in_double, in_single, takes
from gmm_dask.mixture.core.library import (
    Look,
    Scores,
    Sums,
    address,
    aligned_zeros,
    call,
    is_there,
    level_name,
)
from gmm_dask.mixture.core.loadings import compiled
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import RowScores
from gmm_dask.sampling import ColumnSpread, Keys
from gmm_dask.sampling import spread_and_keys as in_numpy

__all__ = [
    "SLOWER",
    "Precision",
    "e_step",
    "is_there",
    "level_name",
    "responsibilities",
    "score_rows",
    "spread_and_keys",
]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = npt.NDArray[Any]
Precision = Literal["double", "single"]

FEW_COLUMNS = 8  # up to which sums are taken over rows in lanes; as in sums.hpp
SLOWER = (
    "This installation has no compiled core: NumPy's arithmetic is used, many times slower. "
    "Install gmm_dask from a wheel, or with $CXX or ziglang."
)
LANES = 8  # places that each such sum is kept in
BLOCK_ROWS = 1 << 14  # copied at once where rows are not contiguous
FAR_ROWS = 1 << 12  # beyond so many in a block, it is left to NumPy
FAR_PART = 16  # and beyond this part of it, to float64 instead of float32


def e_step(
    X: Rows,
    parameters: Parameters,
    sample_weight: Rows | None = None,
    precision: Precision = "double",
) -> SufficientStatistics:
    """The statistics of `steps.e_step`, to 1e-12; rows that no component reaches are left to it.

    Parameters
    ----------
    X : (n, d) float32 or float64
    parameters : Parameters
    sample_weight : (n,), optional
    precision : {"double", "single"}
        single: in float32 where the mixture and the weights allow it, whatever the rows are
        stored in; log-likelihood per row and what is summed are right to about 1e-6, as
        `docs/decisions.md` has it, and sums over many rows are still float64.
    """
    if parameters.family.loadings is not None:
        return steps.e_step(X, compiled(parameters), sample_weight)
    _check_features(X, parameters)
    steps.check_weights(X, sample_weight)
    weights = None if sample_weight is None else _side_by_side(sample_weight, np.float64)
    if weights is not None:
        steps.positive(weights)
    single = precision == "single" and (weights is None or takes(weights))
    arguments = (in_single(parameters) if single else None) or in_double(parameters)
    blocks = [
        _block_statistics(
            _rows(X[block]), parameters, arguments, None if weights is None else weights[block]
        )
        for block in _blocks(X)
    ]
    return reduce(add, blocks) if blocks else SufficientStatistics.zero(parameters)


def score_rows(X: Rows, parameters: Parameters) -> RowScores:
    """The scores of `steps.score_rows`, to 1e-12; a row's do not depend on the rows beside it."""
    if parameters.family.loadings is not None:
        return steps.score_rows(X, compiled(parameters))
    return _scored(X, parameters, None)


def responsibilities(X: Rows, parameters: Parameters) -> Array:
    """The shares of `steps.responsibilities`, to 1e-12."""
    if parameters.family.loadings is not None:
        return steps.responsibilities(X, compiled(parameters))
    shares = np.empty((X.shape[0], parameters.n_components))
    _scored(X, parameters, shares)
    return shares


def spread_and_keys(
    X: Rows, sample_weight: Array | None = None, salt: int | None = None
) -> tuple[ColumnSpread, Keys]:
    """The keys of `sampling.spread_and_keys`, and its moments to 1e-12.

    Rows that have weights or are not finite are left to it.
    """
    if sample_weight is not None or not len(X):
        return in_numpy(X, sample_weight, salt)
    n, d = X.shape
    keys = np.empty(0 if salt is None else n, np.uint64)
    parts = []
    for block in _blocks(X):
        rows, moments = _rows(X[block]), np.empty((4, d))
        record = Look(
            len(rows), d, _is_narrow(rows), address(rows), address(moments), salt or 0,
            address(keys[block]),
        )  # fmt: skip
        call("gmm_look_at", record)
        parts.append(ColumnSpread(np.full(d, float(len(rows))), *moments))
    spread = reduce(add, parts)
    if not np.isfinite(spread.mean).all():
        return in_numpy(X, sample_weight, salt)
    return spread, keys


def _scored(X: Rows, parameters: Parameters, shares: Array | None) -> RowScores:
    _check_features(X, parameters)
    n, arguments = X.shape[0], in_double(parameters)
    scores = RowScores(np.empty(n, np.int32), np.empty(n), np.empty(n))
    for block in _blocks(X):
        rows, far = _rows(X[block]), np.empty(FAR_ROWS, np.int64)
        result = (*(each[block] for each in scores), None if shares is None else shares[block])
        task = arguments.task(rows, None, far)
        call("gmm_score", task, Scores(*map(address, result)))
        if task.n_far:
            chosen = _far_rows(task.n_far, far, len(rows))
            _score_far(rows[chosen], chosen, parameters, result)
    return scores


def _score_far(X: Rows, chosen: Indices, parameters: Parameters, result: Any) -> None:
    *scores, shares = result
    for target, values in zip(scores, steps.score_rows(X, parameters), strict=True):
        target[chosen] = values
    if shares is not None:
        shares[chosen] = steps.responsibilities(X, parameters)


def _block_statistics(
    X: Rows, parameters: Parameters, arguments: Arguments, weights: Array | None
) -> SufficientStatistics:
    kept = _Kept.zero(parameters, arguments.itemsize)
    is_single = arguments.itemsize == 4
    far = np.empty(max(FAR_ROWS, len(X) // FAR_PART) if is_single else FAR_ROWS, np.int64)
    task, sums = arguments.task(X, weights, far), kept.record
    call("gmm_expect", task, sums)
    if task.n_far > len(far):
        return _far_statistics(X, parameters, weights, is_single=is_single)
    chosen = far[: task.n_far]
    n_near = len(X) - len(chosen)
    sum_weight = float(n_near)
    if weights is not None:
        sum_weight = float(weights.sum() - weights[chosen].sum())
    found = kept.statistics(parameters, n_near, sum_weight, sums.log_likelihood)
    if len(chosen):
        of_far = None if weights is None else weights[chosen]
        found += _far_statistics(X[chosen], parameters, of_far, is_single=is_single)
    return found


def _far_statistics(
    X: Rows, parameters: Parameters, weights: Array | None, *, is_single: bool
) -> SufficientStatistics:
    """Statistics of rows too far for float32, in float64; of rows too far for that, by NumPy."""
    if is_single:
        return _block_statistics(X, parameters, in_double(parameters), weights)
    return steps.e_step(X, parameters, weights)


@dataclass(frozen=True, eq=False)
class _Kept:
    """Where the core adds up: in LANES places for each sum, or in columns filled up to whole lines.

    Parameters
    ----------
    sum_resp : (k, LANES)
    sum_x : (k, d, LANES), or (k, filled d) where rows are summed in lists
    sum_xx : (k, d, d, LANES) or (k or 1, filled d, filled d); without matrices as sum_x
    in_lists : bool
    """

    sum_resp: Array
    sum_x: Array
    sum_xx: Array
    in_lists: bool

    @classmethod
    def zero(cls, parameters: Parameters, itemsize: int) -> _Kept:
        (k, d), matrices = parameters.means.shape, parameters.family.matrices
        in_lists = d > FEW_COLUMNS
        per_line = 64 // itemsize
        features = (-(-d // per_line) * per_line,) if in_lists else (d, LANES)
        scatter: tuple[int, ...] = (k, *features) if matrices is None else (k, d, *features)
        if in_lists and matrices is not None:
            scatter = (len(matrices), *features, *features)
        sum_resp, sum_x = aligned_zeros(k, LANES), aligned_zeros(k, *features)
        return cls(sum_resp, sum_x, aligned_zeros(*scatter), in_lists)

    @property
    def record(self) -> Sums:
        """The sums as the core is told of them."""
        return Sums(0.0, address(self.sum_resp), address(self.sum_x), address(self.sum_xx))

    def statistics(
        self, parameters: Parameters, n: int, sum_weight: float, log_likelihood: float
    ) -> SufficientStatistics:
        """The sums in the shapes of the family."""
        d, family = parameters.n_features, parameters.family
        if not self.in_lists:
            sum_x, sum_xx = self.sum_x.sum(axis=-1), self.sum_xx.sum(axis=-1)
        else:
            sum_x = np.ascontiguousarray(self.sum_x[:, :d])
            if family.matrices is None:
                sum_xx = np.ascontiguousarray(self.sum_xx[:, :d])
            else:  # the core has put them together
                n_numbers = len(self.sum_xx) * d * d
                sum_xx = self.sum_xx.ravel()[:n_numbers].reshape(-1, d, d)
        return SufficientStatistics(
            n, sum_weight, log_likelihood, self.sum_resp.sum(axis=1), sum_x, family.kept(sum_xx)
        )


def _far_rows(n_far: int, far: Indices, n_rows: int) -> Indices:
    """The rows that are left to NumPy: those that were noted, or all where they are too many."""
    return far[:n_far] if n_far <= len(far) else np.arange(n_rows)


def _check_features(X: Rows, parameters: Parameters) -> None:
    if X.shape[1] != parameters.n_features:
        raise ValueError(f"X has {X.shape[1]} features, the mixture has {parameters.n_features}")


def _blocks(X: Rows) -> Iterator[slice]:
    """All rows at once, or few at a time where they have to be copied."""
    n = X.shape[0]
    size = max(1, n) if X.flags.c_contiguous and X.dtype in (np.float32, np.float64) else BLOCK_ROWS
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _rows(X: Rows) -> Rows:
    """Rows as the core takes them; they are copied only where they lie otherwise."""
    return _side_by_side(X, np.float32 if X.dtype == np.float32 else np.float64)


def _side_by_side(values: npt.NDArray[Any], kind: type) -> npt.NDArray[Any]:
    return np.require(values, kind, ("C", "A"))


def _is_narrow(X: Rows) -> bool:
    return X.dtype == np.float32
