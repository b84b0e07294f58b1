"""How surely rows are labelled, and which labels are one cluster, as metrics and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gmm_dask.stage import text
from gmm_dask.storage import COUNT, NUMBER, Kind, LabelSums, Model, list_of, optional, part

MAX_NAMED = 12  # clusters whose components are named


def certainty(sums: LabelSums, model: Model) -> dict[str, Any]:
    """The entries of metrics.json on clusters and on the certainty of labels."""
    surely, clusters = sums.classification, np.array(model.known_clusters)
    return {
        "clusters": clusters.tolist(),
        "n_in_clusters": np.bincount(clusters, sums.n_labelled).astype(int).tolist(),
        "classification": None
        if not surely.entropies
        else {
            "relative_entropy": surely.relative_entropy,
            "entropies": surely.mean_entropies.tolist(),
            "mean_posteriors": surely.mean_posteriors.tolist(),
            "overlaps": surely.overlaps.tolist(),
        },
    }


def kinds(k: int) -> dict[str, Kind[Any]]:
    """What these entries may be for k components."""
    return {
        "clusters": list_of(COUNT, k),
        "n_in_clusters": list_of(COUNT),
        "classification": optional(
            part(
                relative_entropy=optional(NUMBER),
                entropies=list_of(NUMBER, k),
                mean_posteriors=list_of(list_of(NUMBER, k), k),
                overlaps=list_of(list_of(NUMBER, k), k),
            )
        ),
    }


def in_words(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The clusters and the certainty of labels; nothing of versions made before they were known."""
    if "clusters" not in metrics:
        return {}
    found, clusters = {}, metrics["clusters"]
    k, n = len(clusters), len(set(clusters))
    if n < k:
        found["clusters"] = f"{n:,} of {text.numbered(k, 'component')}: {_grouped(clusters)}"
    elif k > 1:
        found["clusters"] = f"{n:,}, one of each component: no two overlap enough to be one"
    entropy = (metrics["classification"] or {}).get("relative_entropy")
    if entropy is not None:
        found["certainty"] = f"{entropy:.3f} of 1 (relative entropy): 1 where every label is sure"
    return found


def _grouped(clusters: list[int]) -> str:
    """The components of each cluster, such as `0 + 3, 1, 2 + 4`."""
    groups = [[j for j, of_j in enumerate(clusters) if of_j == c] for c in sorted(set(clusters))]
    named = ", ".join(" + ".join(map(str, group)) for group in groups[:MAX_NAMED])
    return f"{named}, ..." if len(groups) > MAX_NAMED else named
