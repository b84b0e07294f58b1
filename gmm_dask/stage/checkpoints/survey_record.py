"""The survey of a run as a checkpoint, so that a later attempt need not look at every row again."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmm_dask.engine import Survey
from gmm_dask.engine.passes.survey import ChunkSurvey
from gmm_dask.sampling import ColumnSpread
from gmm_dask.storage import COUNT, FLAG, SIZE, At, Kind, count_from, optional, packed, shape

SHARE = 8  # a sample of more than this part of all bytes is read again as quickly

_COUNTS = ("n_rows", "n_usable", "n_counted", "n_eligible")
_SPREAD = ("weight", "mean", "scatter", "least", "greatest")
_OF_SURVEY: dict[str, Kind[Any]] = {
    "unit": SIZE,
    "n_reads": count_from(1),
    "is_drawn": FLAG,
    "is_all": FLAG,
    "copies": SIZE,
}


def is_worth_keeping(surveyed: Survey) -> bool:
    """Whether its sample is small beside the rows, and all in it can be written."""
    bytes_of_rows = surveyed.n_rows * surveyed.sample[:1].nbytes
    spread = surveyed.spread
    finite = all(np.isfinite(getattr(spread, name)).all() for name in _SPREAD)
    return finite and surveyed.sample.nbytes * SHARE <= bytes_of_rows


def kind_of_survey(n_features: int) -> Kind[Survey]:
    """How a survey is written, and read as if all rows were one sound chunk."""

    def kinds(n: int, dtype: str) -> Kind[dict[str, Any]]:
        moments = {name: packed(n_features) for name in _SPREAD}
        return shape(
            {
                **dict.fromkeys(_COUNTS, COUNT),
                "sum_weight": SIZE,
                "spread": shape(moments),
                "spread_unit": SIZE,
                "is_single": FLAG,
                "n_sampled": COUNT,
                "sample": packed(n, n_features, dtype=dtype, nan=True),
                "sample_weight": optional(packed(n)),
                **_OF_SURVEY,
            }
        )

    def dump(surveyed: Survey) -> dict[str, Any]:
        sample, spread = surveyed.sample, surveyed.spread
        known = {
            **{name: sum(getattr(each, name) for each in surveyed.chunks) for name in _COUNTS},
            **{name: getattr(surveyed, name) for name in (*_OF_SURVEY, "sum_weight", "sample")},
            "sample_weight": surveyed.sample_weight,
            "spread": {name: getattr(spread, name) for name in _SPREAD},
            "spread_unit": spread.unit,
            "is_single": sample.dtype == np.float32,
            "n_sampled": len(sample),
        }
        document: dict[str, Any] = kinds(len(sample), str(sample.dtype)).dump(known)
        return document

    def load(value: Any, at: At) -> Survey:
        dtype = "float32" if FLAG.of(value, "is_single", at) else "float64"
        found = kinds(COUNT.of(value, "n_sampled", at), dtype).load(value, at)
        return Survey(
            (_chunk(found, n_features),),
            found["sample"],
            found["sample_weight"],
            **{name: found[name] for name in _OF_SURVEY},
        )

    return Kind(load, dump)


def _chunk(found: dict[str, Any], n_features: int) -> ChunkSurvey:
    none, never = np.zeros(n_features, np.int64), np.full(n_features, -1)
    return ChunkSurvey(
        **{name: found[name] for name in (*_COUNTS, "sum_weight")},
        n_missing=none,
        n_infinite=none,
        has_missing=np.zeros(n_features, bool),
        has_infinite=np.zeros(n_features, bool),
        first_missing=never,
        first_infinite=never,
        n_bad_weights=0,
        first_bad_weight=-1,
        spread=ColumnSpread(**found["spread"], unit=found["spread_unit"]),
    )
