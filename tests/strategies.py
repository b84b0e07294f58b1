"""Hypothesis strategies: mixtures, rows, ways to cut rows into chunks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters

covariance_types = st.sampled_from(sorted(COVARIANCE_FAMILIES))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def mixtures(draw: st.DrawFn, max_components: int = 4, max_features: int = 4) -> Parameters:
    """Well-conditioned parameters of any family."""
    k = draw(st.integers(1, max_components))
    d = draw(st.integers(1, max_features))
    return random_mixture(draw(covariance_types), k, d, draw(seeds))


@st.composite
def cuts(draw: st.DrawFn, n: int) -> list[int]:
    """Chunk lengths that add up to n; empty and one-row chunks occur."""
    edges = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    return np.diff([0, *edges, n]).tolist()


def random_mixture(covariance_type: str, k: int, d: int, seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(k, d, d)) * 0.3 + np.eye(d)
    full = root @ root.swapaxes(1, 2)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.einsum("kdd->kd", full),
        "spherical": full[:, 0, 0],
    }[covariance_type]
    weights = rng.dirichlet(np.full(k, 5.0))
    return Parameters.from_covariances(
        weights, rng.normal(scale=2.0, size=(k, d)), covariances, covariance_type
    )
