"""The profile of each component, as metrics.json has it and as people are told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmm_dask.mixture import Parameters
from gmm_dask.mixture.matching import neighbours
from gmm_dask.pictures.telling import away, distinctions
from gmm_dask.stage import text
from gmm_dask.storage import COUNT, NUMBER, PLACE, list_of, optional, part

MAX_COMPONENTS = 64  # that have a profile, the heaviest
MAX_COLUMNS = 5  # of a profile
_NEAREST = part(component=COUNT, overlap=NUMBER, columns=list_of(PLACE))
PROFILES = list_of(part(component=COUNT, nearest=optional(_NEAREST)))  # as people are told of them
MAX_TOLD = 2  # columns that tell a component from its nearest neighbour, in words


def profile_records(parameters: Parameters, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each of the heaviest components the columns that are most unusual, and its neighbour.

    `differences` has the mean of a column in the component and in the whole, in the units of the
    data, and how many standard deviations of the whole lie between; the largest first. `nearest` is
    the component that overlaps most, with the columns that tell the two apart, or null.
    """
    weights, means = parameters.weights, parameters.means
    overall, unusual, nearest = weights @ means, away(parameters), neighbours(parameters)
    found = []
    for j in np.sort(np.argsort(-weights, kind="stable")[:MAX_COMPONENTS]):
        columns = np.argsort(-np.abs(unusual[j]), kind="stable")[:MAX_COLUMNS]
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
            told = np.argsort(-other.shares, kind="stable")[:MAX_COLUMNS]
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
