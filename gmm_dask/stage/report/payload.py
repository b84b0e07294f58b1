"""What the moving pictures are drawn from: numbers in base64, within a budget.

The budget. A frame holds, for each component, its weight, its mean and packed covariance in the
features that can be chosen, and the same in the best view, as float32; and for each row drawn the
three components it most belongs to, with shares in steps of 1/255. Frames may take FRAME_BYTES
before base64. Features are offered for choosing in the order in which they separate the
components, as many as let two frames fit and MAX_FEATURES at most; then as many frames are taken
as fit and as the work for their rows allows, MAX_FRAMES at most, the first and the last among them
and early ones denser, where EM moves most. The best view is always exact: it is projected here,
not from what is packed.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.mixture import Parameters
from gmm_dask.pictures.telling import most_telling, spreads
from gmm_dask.pictures.view import CERTAIN, View, axis_limits, hex_colours
from gmm_dask.stage.report.data import ReportData, State
from gmm_dask.stage.text import short

Array = npt.NDArray[np.float64]

FRAME_BYTES = 900_000
MAX_FRAMES = 60
MAX_FEATURES = 30
MAX_CURVE = 2000  # points of the log-likelihood curve
TOP = 3  # components kept of a row's responsibilities


def payload(data: ReportData) -> dict[str, Any]:
    """Everything the script of the report draws, ready for JSON."""
    n_rows, k = data.rows.shape[0], data.parameters.n_components
    features = offered_features(data.parameters, n_rows)
    room = min(FRAME_BYTES // frame_bytes(k, len(features), n_rows), data.frames_to_score)
    states = data.states
    chosen = [states[i] for i in spread_out(len(states), min(max(room, 2), MAX_FRAMES))]
    final = data.parameters
    centre, scale = _centre_and_scale(data.rows, final)
    view, alive = data.view, final.weights > 0
    deviations = np.sqrt(final.family.variances[alive][:, features])
    limits = axis_limits(data.rows[:, features], final.means[alive][:, features], deviations)
    return {
        "k": k,
        "names": [short(data.feature_names[j]) for j in features],
        "centre": centre[features].tolist(),
        "scale": scale[features].tolist(),
        "limits": limits.tolist(),
        "pair": _first_pair(final, features),
        "rows": _f4(((data.rows - centre) / scale)[:, features]),
        "nRows": n_rows,
        "view": _view(view, data),
        "frames": [{"pass": s.number, "bound": _finite(s.lower_bound)} for s in chosen],
        "nPasses": data.n_passes,
        "nSample": data.n_sample_passes,
        "objective": data.objective,
        "weight": _finite(data.total_weight),
        "curve": _curve((*data.sample_bounds, *data.lower_bounds)),
        "palette": hex_colours(k),
        "certain": CERTAIN,
        **_frames(chosen, data, features, centre, scale),
    }


def safe_json(document: Any) -> str:
    """JSON that may stand between script tags: it holds no `<`, `>` or `&`."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def frame_bytes(k: int, n_features: int, n_rows: int) -> int:
    """Size of one frame before base64."""
    per_component = 1 + n_features + n_features * (n_features + 1) // 2 + 5
    return 4 * k * per_component + n_rows * min(TOP, k) * (1 + _index_type(k).itemsize)


def offered_features(parameters: Parameters, n_rows: int) -> npt.NDArray[np.intp]:
    """Indices of the features that can be chosen, in their own order."""
    k, d = parameters.means.shape
    n = min(d, MAX_FEATURES)
    while n > min(d, 2) and 2 * frame_bytes(k, n, n_rows) > FRAME_BYTES:
        n -= 1
    return most_telling(parameters, n)


def spread_out(n: int, at_most: int) -> list[int]:
    """Positions among n, first and last included, denser at the beginning."""
    if n <= at_most:
        return list(range(n))
    positions = (n - 1) * np.linspace(0.0, 1.0, at_most) ** 1.5
    return [int(i) for i in np.maximum(np.arange(at_most), np.rint(positions))]


@dataclass(frozen=True, eq=False)
class TopShares:
    """The components that rows belong to most, each (m, TOP), largest share first."""

    components: npt.NDArray[np.unsignedinteger[Any]]
    shares: npt.NDArray[np.uint8]


def top_shares(resp: Array) -> TopShares:
    """The largest responsibilities of each row, in steps of 1/255."""
    k = resp.shape[1]
    order = np.argsort(-resp, axis=1, kind="stable")[:, : min(TOP, k)]
    shares = np.rint(255 * np.take_along_axis(resp, order, axis=1))
    return TopShares(order.astype(_index_type(k)), shares.astype(np.uint8))


def _index_type(k: int) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype("u1") if k <= 256 else np.dtype("<u2") if k <= 65536 else np.dtype("<u4")


def _centre_and_scale(rows: Array, parameters: Parameters) -> tuple[Array, Array]:
    # float32 keeps seven digits: of the deviation, not of a large offset.
    centre = parameters.weights @ parameters.means
    widest = np.abs(parameters.means - centre).max(axis=0)
    scale = np.maximum(widest, np.sqrt(parameters.family.variances).max(axis=0))
    return centre, np.where((scale > 0) & np.isfinite(scale), scale, 1.0)


def _first_pair(parameters: Parameters, features: npt.NDArray[np.intp]) -> list[int]:
    """Positions among the offered features of the two that separate most."""
    order = np.argsort(-spreads(parameters).separation[features], kind="stable")
    return [int(i) for i in (np.sort(order[:2]) if len(order) > 1 else (0, 0))]


def _view(view: View, data: ReportData) -> dict[str, Any] | None:
    if not view.names_of:
        return None
    return {
        "titles": list(view.titles),
        "limits": view.limits(data.rows, data.parameters).tolist(),
        "rows": _f4(view.rows(data.rows)),
    }


def _frames(
    states: list[State],
    data: ReportData,
    features: npt.NDArray[np.intp],
    centre: Array,
    scale: Array,
) -> dict[str, Any]:
    upper = np.triu_indices(len(features))
    units, view = scale[features], data.view
    means, packed, view_means, view_packed, tops = [], [], [], [], []
    for state in states:
        parameters = state.parameters
        covariances = parameters.family.marginal(features).dense()
        covariances = covariances / units[:, None] / units  # the product may be beyond float64
        means.append(((parameters.means - centre) / scale)[:, features])
        packed.append(covariances[:, upper[0], upper[1]])
        if view.names_of:
            view_means.append(view.rows(parameters.means))
            view_packed.append(view.covariances(parameters)[:, (0, 0, 1), (0, 1, 1)])
        tops.append(top_shares(data.responsibilities(parameters)))
    components = np.stack([top.components for top in tops])
    return {
        "weights": _f4(np.stack([state.parameters.weights for state in states])),
        "means": _f4(np.stack(means)),
        "covariances": _f4(np.stack(packed)),
        "viewMeans": _f4(np.array(view_means)),
        "viewCovariances": _f4(np.array(view_packed)),
        "top": components.shape[2],
        "indexBytes": components.dtype.itemsize,
        "components": _base64(components),
        "shares": _base64(np.stack([top.shares for top in tops])),
    }


def _curve(lower_bounds: tuple[float, ...]) -> list[list[float | None]]:
    chosen = spread_out(len(lower_bounds), MAX_CURVE)
    return [[i + 1, _finite(lower_bounds[i])] for i in chosen]


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _f4(values: Array) -> str:
    with np.errstate(over="ignore", under="ignore"):
        return _base64(values.astype("<f4"))


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
