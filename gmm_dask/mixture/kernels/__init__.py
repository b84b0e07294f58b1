"""The E-step compiled: the contract of `steps`, many times faster, without a matrix of n x k.

Numba compiles it when it is first asked for and keeps it on disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, reduce
from math import prod
from operator import add
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError
from gmm_dask.mixture import steps
from gmm_dask.mixture.look import Keys
from gmm_dask.mixture.look import spread_and_keys as in_numpy
from gmm_dask.mixture.parameters import Parameters
from gmm_dask.mixture.spread import ColumnSpread
from gmm_dask.mixture.statistics import SufficientStatistics
from gmm_dask.mixture.steps import RowScores

if TYPE_CHECKING:
    from gmm_dask.mixture.kernels.arguments import Arguments

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = npt.NDArray[Any]

Kernel = Literal["numpy", "compiled"]
Arithmetic = Literal["double", "single"]
WORTH = 1 << 25  # rows x components x features from which a fit gains more than compiling takes
APART = 16  # values: two cache lines, which are fetched together
BLOCK_ROWS = 1 << 14  # copied at once where rows are not contiguous
FAR_ROWS = 1 << 12  # beyond so many in a block, it is left to NumPy
NO_DENSITY = np.empty(0)
FAR_PART = 16  # and beyond this part of it, to float64 instead of float32


def choose(n_rows: int, n_components: int, n_features: int) -> Kernel:
    """Which kernel a fit or a scoring of so many rows in all goes through, on whatever machine.

    The environment variable GMM_DASK_KERNEL, "numpy" or "compiled", overrules it.
    """
    forced = os.environ.get("GMM_DASK_KERNEL")
    if forced:
        if forced not in get_args(Kernel):
            raise SettingsError(
                f"GMM_DASK_KERNEL is {forced!r}; it must be one of {', '.join(get_args(Kernel))}"
            )
        return "compiled" if forced == "compiled" else "numpy"
    return "compiled" if n_rows * n_components * n_features >= WORTH else "numpy"


def e_step(
    X: Rows,
    parameters: Parameters,
    sample_weight: Rows | None = None,
    arithmetic: Arithmetic = "double",
) -> SufficientStatistics:
    """As `steps.e_step`, to 1e-12; rows that no component reaches are left to it.

    Parameters
    ----------
    arithmetic : {"double", "single"}
        single: in float32 where the mixture and the weights allow it, whatever the rows are
        stored in; log-likelihood per row and what is summed are right to about 1e-6, as
        `docs/decisions.md` has it, and sums over many rows are still float64.
    """
    _check_features(X, parameters)
    steps.check_weights(X, sample_weight)
    weights = _input(np.empty(0) if sample_weight is None else sample_weight, np.float64)
    steps.positive(weights)
    total = SufficientStatistics.zero(parameters)
    arguments = _arguments(parameters, weights, arithmetic)
    whole = X.flags.c_contiguous
    for block in _blocks(X, max(1, X.shape[0]) if whole else BLOCK_ROWS):
        part = weights[block] if len(weights) else weights
        total += _block_statistics(_rows(X[block]), parameters, arguments, part)
    return total


def score_rows(X: Rows, parameters: Parameters) -> RowScores:
    """As `steps.score_rows`, to 1e-12; a row's scores do not depend on the rows beside it."""
    return _scored(X, parameters, None)


def responsibilities(X: Rows, parameters: Parameters) -> Array:
    """As `steps.responsibilities`, to 1e-12."""
    shares = np.empty((X.shape[0], parameters.n_components))
    _scored(X, parameters, shares)
    return shares


def spread_and_keys(
    X: Rows, sample_weight: Array | None = None, salt: int | None = None
) -> tuple[ColumnSpread, Keys]:
    """As `look.spread_and_keys`: the same keys, moments to 1e-12.

    What has weights or is not finite is left to it.
    """
    if sample_weight is not None or not len(X):
        return in_numpy(X, sample_weight, salt)
    from gmm_dask.mixture.kernels.look import write_look

    n, d = X.shape
    keys = np.empty(0 if salt is None else n, np.uint64)
    parts = []
    for block in _blocks(X, n if X.flags.c_contiguous else BLOCK_ROWS):
        moments = np.empty((4, d))
        write_look(_rows(X[block]), np.uint64(salt or 0), moments, keys[block])
        parts.append(ColumnSpread(np.full(d, float(block.stop - block.start)), *moments))
    spread = reduce(add, parts)
    if not np.isfinite(spread.mean).all():
        return in_numpy(X, sample_weight, salt)
    return spread, keys


def warm_up(dtype: str, arithmetic: Arithmetic = "double") -> float:
    """Seconds that compiling the kernel for such rows, or reading it from the disk, took here.

    It serves mixtures of every covariance type. For single precision it is compiled beside that
    for double, which the last passes go through.
    """
    key = (arithmetic, dtype)
    if key not in _warm:
        begun = time.perf_counter()
        X = np.zeros((1, 1), dtype=dtype)
        one = Parameters.from_covariances([1.0], [[0.0]], [[[1.0]]], "full")
        e_step(X, one)
        score_rows(X, one)
        if arithmetic == "single":
            e_step(X, one, arithmetic=arithmetic)
        _warm[key] = time.perf_counter() - begun
    return _warm[key]


def warm_up_look(dtype: str) -> float:
    """As `warm_up`, for the first look at rows."""
    key = ("look", dtype)
    if key not in _warm:
        begun = time.perf_counter()
        spread_and_keys(np.zeros((1, 1), dtype=dtype))
        _warm[key] = time.perf_counter() - begun
    return _warm[key]


_warm: dict[tuple[str, ...], float] = {}


def _scored(X: Rows, parameters: Parameters, shares: Array | None) -> RowScores:
    _check_features(X, parameters)
    n = X.shape[0]
    mixture, screen, frame = _arguments(parameters, np.empty(0), "double")
    scores = RowScores(np.empty(n, np.int32), np.empty(n), np.empty(n))
    for block in _blocks(X, BLOCK_ROWS):
        rows = _rows(X[block])
        part = np.empty((0, 0)) if shares is None else shares[block]
        result = (*(each[block] for each in scores), part)
        far = np.empty(FAR_ROWS, np.int64)
        n_far = _dense().write_scores(rows, mixture, screen, frame[0], result, far)
        if n_far:
            chosen = _far_rows(n_far, far, len(rows))
            _score_far(rows[chosen], chosen, parameters, result)
    return scores


def _score_far(X: Rows, chosen: Indices, parameters: Parameters, result: Any) -> None:
    found = steps.score_rows(X, parameters)
    for target, values in zip(result, found, strict=False):
        target[chosen] = values
    if len(result[3]):
        result[3][chosen] = steps.responsibilities(X, parameters)


def _block_statistics(
    X: Rows, parameters: Parameters, arguments: Arguments, weights: Array
) -> SufficientStatistics:
    sums, single = _Sums.zero(parameters, arguments.itemsize), arguments.itemsize == 4
    n_noted = max(FAR_ROWS, len(X) // FAR_PART) if single else FAR_ROWS
    far = np.empty(n_noted, np.int64)
    log_likelihood, n_far = _dense().add_expectation(
        X, weights, *arguments, sums.arrays, far, NO_DENSITY
    )
    if n_far > len(far):
        return _far_statistics(X, parameters, weights, single=single)
    chosen = far[:n_far]
    near_weight = float(weights.sum() - weights[chosen].sum()) if len(weights) else None
    found = sums.statistics(parameters, len(X) - len(chosen), near_weight, log_likelihood)
    if n_far:
        far_weights = weights[chosen] if len(weights) else weights
        found += _far_statistics(X[chosen], parameters, far_weights, single=single)
    return found


def _far_statistics(
    X: Rows, parameters: Parameters, weights: Array, *, single: bool
) -> SufficientStatistics:
    """Of rows that are too far for float32, in float64; of those too far for that, by NumPy."""
    if single:
        double = _arguments(parameters, weights, "double")
        weights = _input(weights, np.float64)
        return _block_statistics(_rows(X), parameters, double, weights)
    return steps.e_step(X, parameters, weights if len(weights) else None)


def _apart(*shape: int) -> Array:
    """Zeros in cache lines that no other thread writes to."""
    n = prod(shape)
    return np.zeros(n + 2 * APART)[APART : APART + n].reshape(shape)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Where the kernel adds up: whole vectors at a time, so padded or in LANES parts."""

    arrays: tuple[Array, Array, Array, Array, Array]

    @classmethod
    def zero(cls, parameters: Parameters, itemsize: int) -> _Sums:
        from gmm_dask.mixture.kernels.lanes import LANES

        dense, (k, d), lanes = _dense(), parameters.means.shape, LANES * 8 // itemsize
        padded = -(-d // lanes) * lanes
        chosen = parameters.family
        listed = chosen.correlated and d > dense.FEW_COLUMNS
        n_matrices = (k if chosen.per_component else 1) if listed else 0
        n_parts = 0 if listed else k
        square = (d, d) if chosen.correlated else (1, d)
        return cls(
            (
                _apart(k, LANES),
                _apart(k, padded),
                _apart(n_matrices, padded, padded),
                _apart(n_parts, d, LANES),
                _apart(n_parts, *square, LANES),
            )
        )

    def statistics(
        self, parameters: Parameters, n: int, sum_weight: float | None, log_likelihood: float
    ) -> SufficientStatistics:
        d = parameters.n_features
        sum_resp, sum_x, sum_xx, part_x, part_xx = self.arrays
        sum_resp = sum_resp.sum(axis=1)
        if len(part_x):
            sum_x, sum_xx = part_x.sum(axis=-1), part_xx.sum(axis=-1)
        else:
            sum_x, sum_xx = sum_x[:, :d], sum_xx[:, :d, :d]
        if parameters.family.correlated:
            sum_xx = np.tril(sum_xx) + np.tril(sum_xx, -1).swapaxes(-1, -2)
            if not parameters.family.per_component:
                sum_xx = sum_xx.sum(axis=0)
        else:
            sum_xx = sum_xx[:, 0] if parameters.family.per_feature else sum_xx[:, 0].sum(axis=1)
        weight = float(n) if sum_weight is None else sum_weight
        return SufficientStatistics(n, weight, log_likelihood, sum_resp, sum_x, sum_xx)


def _arguments(parameters: Parameters, weights: Array, arithmetic: Arithmetic) -> Arguments:
    from gmm_dask.mixture.kernels.arguments import in_double, in_single, takes

    single = in_single(parameters) if arithmetic == "single" and takes(weights) else None
    return in_double(parameters) if single is None else single


def _far_rows(n_far: int, far: Indices, n_rows: int) -> Indices:
    """The rows that are left to NumPy: those that were noted, or all where they are too many."""
    return far[:n_far] if n_far <= len(far) else np.arange(n_rows)


def _check_features(X: Rows, parameters: Parameters) -> None:
    if X.shape[1] != parameters.n_features:
        raise ValueError(f"X has {X.shape[1]} features, the mixture has {parameters.n_features}")


def _blocks(X: Rows, size: int) -> Iterator[slice]:
    n = X.shape[0]
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _rows(X: Rows) -> Rows:
    """Rows as the compiled functions take them, copied only where they lie otherwise."""
    return _input(X, np.float32 if X.dtype == np.float32 else np.float64)


def _input(values: npt.NDArray[Any], kind: type) -> npt.NDArray[Any]:
    """Values side by side that are only read: numba would compile for every kind of array."""
    taken = np.require(values, kind, ("C", "A")).view()
    taken.flags.writeable = False
    return taken


@cache
def _dense() -> Any:
    """The compiled module; importing it, and numba, takes half a second."""
    from gmm_dask.mixture.kernels import dense

    return dense
