"""What is told of components: how surely their rows are labelled, their clusters and profiles.

It is told in metrics.json, and to people in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from gmm_dask.mixture import Parameters
from gmm_dask.mixture.matching import neighbours
from gmm_dask.pictures.telling import away, distinctions
from gmm_dask.stage import text
from gmm_dask.storage import (
    COUNT,
    NUMBER,
    PLACE,
    TEXT,
    Kind,
    LabelSums,
    Model,
    ValueCounts,
    by_name,
    list_of,
    optional,
    part,
)

MAX_NAMED = 12  # clusters whose components are named
MAX_COLUMNS = 3  # kept columns that a line tells of
MAX_PROFILES = 64  # of components, the heaviest
MAX_PROFILED = 5  # columns of a profile
_NEAREST = part(component=COUNT, overlap=NUMBER, columns=list_of(PLACE))
PROFILES = list_of(part(component=COUNT, nearest=optional(_NEAREST)))  # as people are told of them
MAX_TOLD = 2  # columns that tell a component from its nearest neighbour, in words


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
        "cross_tables": _cross_tables(sums),
    }


def _cross_tables(sums: LabelSums) -> dict[str, Any]:
    """Labels by the values of each kept column that has few, two rows of each at least."""
    return {
        name: [{"value": each.value, "counts": list(each.counts)} for each in _by_size(values)]
        for name, values in sums.cross_tables.columns.items()
        if values is not None and 2 <= len(values) <= sums.n_rows / 2
    }


def _by_size(values: Sequence[ValueCounts]) -> Sequence[ValueCounts]:
    """In the order of numbers, where all values are."""
    try:
        return sorted(values, key=lambda each: (each.value is None, int(each.value or 0)))
    except ValueError:
        return values


def agreement(table: Sequence[Mapping[str, Any]]) -> float | None:
    """Adjusted Rand index of labels and values, of rows that have both; None where either is one.

    Hubert and Arabie, Journal of Classification 2, 1985.
    """
    counts = [each["counts"][:-1] for each in table if each["value"] is not None]
    rows, columns = map(sum, counts), map(sum, zip(*counts, strict=True))
    same_value, same_label = (sum(comb(n, 2) for n in sums) for sums in (rows, columns))
    same = sum(comb(n, 2) for row in counts for n in row)
    pairs = comb(sum(map(sum, counts)), 2)
    if not pairs or pairs in (same_value, same_label):
        return None
    by_chance, most = same_value * same_label / pairs, (same_value + same_label) / 2
    return None if most == by_chance else (same - by_chance) / (most - by_chance)


def agreements(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The agreement of each kept column that was counted, the largest first."""
    tables = metrics.get("cross_tables") or {}
    found = {name: agreement(table) for name, table in tables.items()}
    return dict(sorted(found.items(), key=lambda each: (each[1] is None, -(each[1] or 0))))


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
        "cross_tables": by_name(list_of(part(value=optional(TEXT), counts=list_of(COUNT, k + 1)))),
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
    named = ", ".join(
        f"{text.short(name)} {text.signed(index, 3)}"
        for name, index in list(agreements(metrics).items())[:MAX_COLUMNS]
        if index is not None
    )
    if named:
        found["agreement"] = f"{named} (adjusted Rand index: 1 where labels say the same)"
    return found


def _grouped(clusters: list[int]) -> str:
    """The components of each cluster, such as `0 + 3, 1, 2 + 4`."""
    groups = [[j for j, of_j in enumerate(clusters) if of_j == c] for c in sorted(set(clusters))]
    named = ", ".join(" + ".join(map(str, group)) for group in groups[:MAX_NAMED])
    return f"{named}, ..." if len(groups) > MAX_NAMED else named


def profile_records(parameters: Parameters, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each of the heaviest components the columns that are most unusual, and its neighbour.

    `differences` has the mean of a column in the component and in the whole, in the units of the
    data, and how many standard deviations of the whole lie between; the largest first. `nearest` is
    the component that overlaps most, with the columns that tell the two apart, or null.
    """
    weights, means = parameters.weights, parameters.means
    overall, unusual, nearest = weights @ means, away(parameters), neighbours(parameters)
    found = []
    for j in np.sort(np.argsort(-weights, kind="stable")[:MAX_PROFILES]):
        columns = np.argsort(-np.abs(unusual[j]), kind="stable")[:MAX_PROFILED]
        differences = [
            {
                "column": names[c],
                "deviations": float(unusual[j, c]),
                "mean": float(means[j, c]),
                "whole": float(overall[c]),
            }
            for c in columns
        ]
        record = {"component": int(j), "differences": differences, "nearest": None}
        if nearest:
            other = nearest[j]
            told = np.argsort(-other.shares, kind="stable")[:MAX_PROFILED]
            record["nearest"] = {
                "component": other.component,
                "overlap": other.overlap,
                "columns": [names[c] for c in told if other.shares[c] > 0],
            }
        found.append(record)
    return found


def profile_lines(
    parameters: Parameters, names: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> dict[int, str]:
    """Each profile in a line: what a component is known by, and what tells it from the nearest."""
    if parameters.n_components == 1:
        return {}
    words = dict(enumerate(distinctions(parameters, names)))
    known = [each for each in records if each["component"] in words]
    return {each["component"]: words[each["component"]] + _apart(each) for each in known}


def _apart(record: Mapping[str, Any]) -> str:
    nearest = record["nearest"]
    if nearest is None:
        return ""
    told = ", ".join(text.short(name) for name in nearest["columns"][:MAX_TOLD])
    by = f", told from it by {told}" if told else ""
    overlap = text.percent(nearest["overlap"])
    return f"; nearest is component {nearest['component']}, overlap {overlap}{by}"
