"""Colours of components and of rows that belong to several."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

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
