"""Where pictures look from: two directions that tell components apart, and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.pictures.telling import RIDGE, most_telling, standardised_scatter
from gmm_dask.words import short

Array = npt.NDArray[np.float64]

USEFUL = 0.01  # a direction separates if between-variance is this share of within-variance
MAX_NAMED = 2  # features named on an axis
MAX_FEATURES = 100  # that a view looks at: its cost grows with their third power


@dataclass(frozen=True, eq=False)
class View:
    """A linear map from rows to one or two coordinates.

    Parameters
    ----------
    features : (f,)
        Indices of those that it looks at.
    origin : (f,)
    directions : (f, q), q 1 or 2
    titles : tuple of str
        Titles of the axes, with feature names as they came.
    separation : float or None
        Share of the components' separation that the view keeps; None where it keeps everything or
        there is none.
    names_of : tuple of tuple of (str, float)
        For each axis the features that go with it and their correlation; empty for plain features.
    """

    features: npt.NDArray[np.intp]
    origin: Array
    directions: Array
    titles: tuple[str, ...]
    separation: float | None = None
    names_of: tuple[tuple[tuple[str, float], ...], ...] = ()

    @property
    def n_axes(self) -> int:
        """Number of coordinates, 1 or 2."""
        return int(self.directions.shape[1])

    def rows(self, X: npt.NDArray[np.floating]) -> Array:
        """Coordinates of rows, (n, q)."""
        return np.asarray((X[:, self.features] - self.origin) @ self.directions)

    def covariances(self, parameters: Parameters) -> Array:
        """Covariances of the components as seen here, (k, q, q)."""
        V, family = self.directions, parameters.family.marginal(self.features)
        return np.asarray(V.T @ family.dense() @ V)

    def limits(self, rows: Array, parameters: Parameters) -> Array:
        """Lower and upper end of each axis, (q, 2)."""
        spreads = np.sqrt(np.einsum("kqq->kq", self.covariances(parameters)))
        alive = parameters.weights > 0
        return axis_limits(self.rows(rows), self.rows(parameters.means)[alive], spreads[alive])

    def n_outside(self, rows: Array, parameters: Parameters) -> int:
        """Rows so far away that the picture does not reach them."""
        low, high = self.limits(rows, parameters).T
        points = self.rows(rows)
        return int(((points < low) | (points > high)).any(axis=1).sum())


def feature_view(names: Sequence[str], features: Sequence[int]) -> View:
    """The view of one or two features as they are."""
    n, chosen = len(features), np.asarray(features, dtype=np.intp)
    return View(chosen, np.zeros(n), np.eye(n), tuple(short(names[j]) for j in features))


def best_view(parameters: Parameters, names: Sequence[str], *, shapes: bool = False) -> View:
    """The view in which the components are farthest apart, in pooled standard deviations.

    Linear discriminant directions of the mixture itself: eigenvectors of the covariance between
    the means against the pooled covariance within components (Fisher 1936; Hastie, Tibshirani,
    Friedman, Elements of Statistical Learning, 4.3.3). Where fewer than two separate anything
    (one or two components, common means), the widest remaining direction fills in. One or two
    features are shown as they are; of many the MAX_FEATURES that separate best alone are looked at.

    Parameters
    ----------
    shapes : bool
        Directions in which covariances differ count as well: those of GMMDR (Scrucca, Statistics
        and Computing 20, 2010, equation 8).
    """
    if parameters.n_features <= 2:
        return feature_view(names, range(parameters.n_features))
    features = most_telling(parameters, MAX_FEATURES)
    names = [names[j] for j in features]
    parameters = parameters.marginal(features)
    spreads, within, between = standardised_scatter(parameters)
    total = within + between
    values, vectors = _discriminants(between, within)
    if shapes:
        values, vectors = _discriminants(_kernel(parameters, spreads, within, between), total)
    chosen = vectors[:, : min(2, int((values > USEFUL).sum()))]
    n_discriminants = chosen.shape[1]
    while chosen.shape[1] < 2:
        chosen = np.column_stack([chosen, _widest(total, within, chosen)])
    loadings = _loadings(total, chosen)
    flip = np.sign(loadings[np.abs(loadings).argmax(axis=0), [0, 1]])
    chosen, loadings = chosen * flip, loadings * flip
    names_of = tuple(_named(names, loadings[:, axis]) for axis in range(2))
    return View(
        features,
        parameters.weights @ parameters.means,
        chosen / spreads[:, None],
        tuple(_title(axis, names_of[axis]) for axis in range(2)),
        float(values[:n_discriminants].sum() / values.sum()) if n_discriminants else None,
        names_of,
    )


def axis_limits(rows: Array, means: Array, spreads: Array) -> Array:
    """Ends of each axis, (q, 2): all rows and the 2-sigma ellipses, but not far outliers.

    Parameters
    ----------
    rows : (m, q), means : (k, q), spreads : (k, q)
    """
    low, high = (means - 2.2 * spreads).min(axis=0), (means + 2.2 * spreads).max(axis=0)
    if rows.shape[0]:
        # A row a picture's width away would squeeze all others into a corner.
        width = high - low
        low = np.minimum(low, np.maximum(rows.min(axis=0), low - width))
        high = np.maximum(high, np.minimum(rows.max(axis=0), high + width))
    margin = 0.03 * (high - low)
    margin = np.where(margin > 0, margin, np.maximum(np.abs(low), 1.0) * 1e-6)
    return np.column_stack([low - margin, high + margin])


def _kernel(parameters: Parameters, spreads: Array, within: Array, between: Array) -> Array:
    """How means and covariances differ between components, as GMMDR weighs both, (d, d)."""
    total = within + between + RIDGE * np.eye(len(within))
    apart = parameters.dense_covariances() / spreads[:, None] / spreads - within
    of_shapes = np.einsum("k,kde,kef->df", parameters.weights, apart, np.linalg.solve(total, apart))
    return np.asarray(between @ np.linalg.solve(total, between) + of_shapes)


def _discriminants(between: Array, within: Array) -> tuple[Array, Array]:
    """Generalised eigenvalues, largest first, and vectors v with v^T W v = 1."""
    root = np.linalg.cholesky(within + RIDGE * np.eye(within.shape[0]))
    half = np.linalg.solve(root, between)
    values, vectors = np.linalg.eigh(np.linalg.solve(root, half.T))
    return np.maximum(values[::-1], 0.0), np.linalg.solve(root.T, vectors)[:, ::-1]


def _widest(total: Array, within: Array, chosen: Array) -> Array:
    """The direction of largest variance among those uncorrelated with the chosen, within W."""
    d = total.shape[0]
    full, _ = np.linalg.qr(np.column_stack([within @ chosen, np.eye(d)]))
    rest = full[:, chosen.shape[1] : d]
    _, vectors = np.linalg.eigh(rest.T @ total @ rest)
    direction = rest @ vectors[:, -1]
    return np.asarray(direction / np.sqrt(direction @ within @ direction + RIDGE))


def _loadings(total: Array, chosen: Array) -> Array:
    """Correlation of each feature with each direction, (d, 2)."""
    along = total @ chosen
    spread = np.sqrt(np.einsum("dq,dq->q", chosen, along))
    return np.asarray(along / np.where(spread > 0, spread, 1.0))


def _named(names: Sequence[str], loadings: Array) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-np.abs(loadings), kind="stable")[:MAX_NAMED]
    strong = [j for j in order if abs(loadings[j]) >= 0.5 * abs(loadings[order[0]])]
    return tuple((names[j], float(loadings[j])) for j in strong)


def _title(axis: int, named: tuple[tuple[str, float], ...]) -> str:
    parts = [("" if loading >= 0 else "−") + short(name, 24) for name, loading in named]
    return f"Direction {axis + 1} (mainly {', '.join(parts)})"


# Okabe and Ito's colours, told apart with any kind of colour vision, on white and on black; yellow
# and black are replaced by Tol's olive and wine.
BASE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999933",
    "#a53f5c",
)  # fmt: skip
CERTAIN = 0.9  # below this largest responsibility a row is drawn with a ring


def palette(k: int) -> Array:
    """Colours of k components as (k, 3) in 0..1; further rounds are lighter, then darker."""
    base = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in BASE]) / 255
    rounds = [base, 1 - 0.55 * (1 - base), 0.6 * base]
    return np.concatenate([rounds[i // len(BASE) % 3] for i in range(0, k, len(BASE))])[:k]


def hex_colours(k: int) -> list[str]:
    """The palette as #rrggbb."""
    return ["#" + "".join(f"{round(255 * v):02x}" for v in rgb) for rgb in palette(k)]


def mixed(responsibilities: Array) -> Array:
    """Colour of each row: its components' colours mixed by responsibility, (n, 3)."""
    # Squares are nearly amounts of light: mixed so, two strong colours do not turn to mud.
    light = responsibilities @ palette(responsibilities.shape[1]) ** 2
    return np.sqrt(np.clip(light, 0.0, 1.0))
