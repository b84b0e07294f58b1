"""Factors U of precisions, U U^T = covariance^-1, found on unit variances; bounds of variances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SingularCovarianceError

Array = npt.NDArray[np.float64]

SYMMETRY_SLACK = 1e-8  # of a correlation
WHOLE = 16  # rows of a triangle that is inverted at once
REMEDY = "Try fewer components, a larger reg_covar, or leave out constant and duplicate columns."


def factor_covariances(covariances: Array) -> Array:
    """U with U U^T = covariance^-1 of each (k, d, d), upper triangular with a positive diagonal."""
    variances = np.einsum("kdd->kd", covariances)
    _check_scales(variances)
    # Scaled to unit variances first: Cholesky's failure then means collinear, not badly scaled.
    scale = np.sqrt(variances)
    correlations = covariances / scale[:, :, None] / scale[:, None, :]
    try:
        lower = np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        raise _singular(correlations) from None
    return np.asarray(inverse_triangular(lower.swapaxes(1, 2)) / scale[:, :, None])


def inverse_triangular(upper: Array) -> Array:
    """Inverses of upper triangular matrices (k, d, d), upper triangular themselves.

    By halves (Higham, Accuracy and Stability of Numerical Algorithms, 14.2), down to blocks in
    which LAPACK's general solver finds nothing to pivot or to eliminate. Importing SciPy, whose
    LAPACK has a routine for it, takes longer than many fits.
    """
    d = upper.shape[-1]
    if d <= WHOLE:
        return np.asarray(np.triu(np.linalg.inv(upper)))
    half = d // 2
    first = inverse_triangular(upper[:, :half, :half])
    last = inverse_triangular(upper[:, half:, half:])
    found = np.zeros(upper.shape)
    found[:, :half, :half], found[:, half:, half:] = first, last
    found[:, :half, half:] = -(first @ upper[:, :half, half:]) @ last
    return found


def _singular(correlations: Array) -> SingularCovarianceError:
    least = [float(np.linalg.eigvalsh(each)[0]) for each in correlations]
    j = int(np.argmin(least))
    return SingularCovarianceError(
        f"The covariance of component {j} is not positive definite: some of its columns are "
        f"linear combinations of others on the rows it holds. {REMEDY}",
        j,
        combined_features(correlations[j]),
    )


def not_completed() -> SingularCovarianceError:
    """The error of covariances that are too nearly singular to complete missing values."""
    return SingularCovarianceError(
        "Missing values cannot be completed: some columns are so nearly linear combinations of "
        f"others that float64 does not tell them apart. {REMEDY}"
    )


def factor_precision(precision: Array, j: int) -> Array:
    """U with U U^T = precision, upper triangular with a positive diagonal.

    Raises
    ------
    SingularCovarianceError
        The precision is not symmetric, or not positive definite.
    """
    _check_scale(np.diagonal(precision), j, "precision")
    scale = np.sqrt(np.diagonal(precision))
    scaled = precision / scale[:, None] / scale[None, :]
    try:
        if not np.allclose(scaled, scaled.T):
            raise np.linalg.LinAlgError
        # Reversing rows and columns turns the lower factor of one into the upper of the other.
        reversed_lower = np.linalg.cholesky(scaled[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise SingularCovarianceError(
            f"The given precision of component {j} is not positive definite. "
            "Precisions must be symmetric with positive eigenvalues.",
            j,
        ) from None
    return np.ascontiguousarray(reversed_lower[::-1, ::-1]) * scale[:, None]


def factor_variances(variances: Array) -> Array:
    """1 / standard deviation; every variance must be positive and finite."""
    _check_scales(np.atleast_1d(variances))
    return 1.0 / np.sqrt(variances)


def combined_features(correlation: Array) -> tuple[int, ...]:
    """Features of the linear combination that varies least, those that bear most of it."""
    _, vectors = np.linalg.eigh(correlation)
    share = np.abs(vectors[:, 0])
    return tuple(int(i) for i in np.flatnonzero(share >= 0.3 * share.max()))


def _check_scales(variances: Array) -> None:
    """Raise for the first of several components, or of one, whose variances cannot be used."""
    if not (np.isfinite(variances).all() and (variances > 0).all()):
        for j, row in enumerate(variances):
            _check_scale(np.atleast_1d(row), j, "variance")


def _check_scale(diagonal: Array, j: int, what: str) -> None:
    bad = ~((diagonal > 0) & np.isfinite(diagonal))
    if bad.any():
        feature = int(np.argmax(bad))
        raise SingularCovarianceError(
            f"Component {j} has the {what} {diagonal[feature]} in column {feature}: "
            f"it must be positive and finite. {REMEDY}",
            j,
            tuple(int(i) for i in np.flatnonzero(bad)),
        )


def asymmetric(matrices: Array) -> int | None:
    """The first matrix of (c, d, d) that is not symmetric, in units of its variances."""
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.einsum("kdd->kd", matrices))
        correlations = matrices / scale[:, :, None] / scale[:, None, :]
        apart = np.abs(correlations - correlations.swapaxes(1, 2)).max(axis=(1, 2))
    found = np.flatnonzero(~(apart <= SYMMETRY_SLACK))
    return int(found[0]) if len(found) else None


def units_of(variances: Array) -> Array:
    """Standard deviations (d,) to scale columns by; 1 for a constant column."""
    return np.sqrt(np.where(variances > 0, variances, 1.0))


def within_ratio(values: Array, rows: Array, ratio: float) -> Array:
    """The variances in [m, ratio m] of greatest likelihood, given those without the bounds.

    Clipping to the bounds is best for a given m (Fritz, Garcia-Escudero, Mayo-Iscar 2013, "A fast
    algorithm for robust constrained clustering", section 3). The loss, sum n (log e + v / e) over
    clipped variances e, is convex in log m, so m lies between the two places of its derivative's
    change of sign, among the v and the v / ratio, where it has a closed form.

    Parameters
    ----------
    values : (c, r)
        Variances along the axes of c covariances, non-negative up to rounding.
    rows : (c,)
        Rows behind each covariance.
    ratio : float
        At least 1.

    Returns
    -------
    values : (c, r)
        The very array that was given where it is within the ratio already, or no row is behind it.
    """
    counted = values[rows > 0]
    if not counted.size or not counted.max() > 0:
        return values
    least = counted.min()
    if least > 0 and counted.max() <= ratio * least:
        return values if len(counted) == len(values) else _clipped(values, least, ratio)
    v = np.maximum(counted, 0.0).ravel()
    n = np.repeat(rows[rows > 0], values.shape[1])
    order = np.argsort(v, kind="stable")
    v, n = v[order], n[order]
    places = np.unique(np.concatenate([v, v / ratio]))
    places = places[places > 0]
    counts, sums = (np.concatenate([[0.0], np.cumsum(each)]) for each in (n, n * v))
    # Up to `below` variances are raised to m, from `above` on they are lowered to ratio m.
    below = np.searchsorted(v, places, side="left")
    above = np.searchsorted(v, ratio * places, side="right")
    slope = counts[below] - sums[below] / places
    slope += counts[-1] - counts[above] - (sums[-1] - sums[above]) / (ratio * places)
    rising = np.flatnonzero(slope >= 0)
    after = places[rising[0] if len(rising) else -1]
    raised, lowered = v < after, v / ratio >= after
    both = n[raised].sum() + n[lowered].sum()
    m = (n[raised] @ v[raised] + n[lowered] @ v[lowered] / ratio) / both
    return _clipped(values, m, ratio)


def _clipped(values: Array, least: float, ratio: float) -> Array:
    return np.clip(values, least, ratio * least)
