"""Data that drift from night to night, and a chain of fits of which each follows the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gmm_dask import GaussianMixture
from gmm_dask.mixture import Parameters
from gmm_dask.stage.lineage.changes import (
    Changes,
    Followed,
    Predecessor,
    changes_of,
    order_of,
)
from gmm_dask.storage import Model
from tests.storage.stores import model_of

N_NIGHTS, N_ROWS = 30, 1500
BORN, DIED, SPLIT = 9, 16, 22  # nights
STEP = 0.2  # standard deviations that each mean moves in a night
HALF = 2.6  # by so much each half of what splits leaves the middle


@dataclass(frozen=True)
class Night:
    """What one night saw.

    Parameters
    ----------
    truth : dict of str to (2,)
        Means of the clusters, whose standard deviations are 1.
    model : Model
    changes : Changes
    """

    truth: dict[str, np.ndarray]
    model: Model
    changes: Changes


def truth_of(night: int, drifts: bool) -> dict[str, np.ndarray]:
    """Where the clusters are; from the night of the split one has two halves."""
    t = night * STEP if drifts else 0.0
    found = {
        "a": np.array([0.0, -t]),
        "b": np.array([0.0, 9.0 + t]),
        "c": np.array([12.0 + t, 8.0]),
    }
    if not drifts:
        return found
    if night >= BORN:
        found["d"] = np.array([-9.0, -2.0])
    if night >= DIED:
        del found["b"]
    if night >= SPLIT:
        apart = np.array([HALF + 0.3 * (night - SPLIT), 0.0])
        middle = found.pop("c")
        found |= {"c, left": middle - apart, "c, right": middle + apart}
    return found


def nights(seed: int, *, drifts: bool = True, choose: bool = False) -> Iterator[Night]:
    """A fit every night; the number of components is the true one, or the one of least BIC."""
    rng, before = np.random.default_rng(seed), None
    for night in range(1, N_NIGHTS + 1):
        truth = truth_of(night, drifts)
        which = rng.integers(len(truth), size=N_ROWS)
        X = np.stack(list(truth.values()))[which] + rng.normal(size=(N_ROWS, 2))
        k = len(truth)
        counts = (k - 1, k, k + 1) if choose else (k,)
        fits = [
            GaussianMixture(each, n_init=4 if choose else 1, random_state=seed).fit(X)
            for each in counts
        ]
        best = min(fits, key=lambda fit: fit.bic(X)) if choose else fits[0]
        found = Parameters.from_covariances(best.weights_, best.means_, best.covariances_, "full")
        found = found.take(order_of(found, None if before is None else before.parameters))
        model = model_of(found, n_rows=N_ROWS)
        changes = changes_of(model, before)
        yield Night(truth, model, changes)
        followed = Followed(None, night, f"{night:016x}", model.sha256)
        before = Predecessor(followed, found, N_ROWS, changes.components)
