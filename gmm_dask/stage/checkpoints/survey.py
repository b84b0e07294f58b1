"""The survey of a run as a checkpoint, so that a later attempt need not look at every row again."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmm_dask.engine import Survey
from gmm_dask.engine.passes.survey import ChunkSurvey
from gmm_dask.sampling import ColumnSpread
from gmm_dask.storage.records.fields import Fields, packed

SHARE = 8  # a sample of more than this part of all bytes is read again as quickly

_COUNTS = ("n_rows", "n_usable", "n_counted", "n_eligible")
_SPREAD = ("weight", "mean", "scatter", "least", "greatest")
_NOTED = ("chunk", "sha256")
BODY = (
    *_COUNTS,
    "sum_weight",
    "spread",
    "spread_unit",
    "dtype",
    "n_sampled",
    "sample",
    "sample_weight",
    "unit",
    "n_reads",
    "is_drawn",
    "is_all",
    "contents",
    "copies",
)


def is_worth_keeping(surveyed: Survey) -> bool:
    """Whether its sample is small beside the rows, and all in it can be written."""
    bytes_of_rows = surveyed.n_rows * surveyed.sample[:1].nbytes
    spread = surveyed.spread
    finite = all(np.isfinite(getattr(spread, name)).all() for name in _SPREAD)
    return finite and surveyed.sample.nbytes * SHARE <= bytes_of_rows


def dump_survey(surveyed: Survey) -> dict[str, Any]:
    """The body of the document; of the chunks what is needed once they were found sound."""
    spread, weight = surveyed.spread, surveyed.sample_weight
    return {
        **{name: sum(getattr(chunk, name) for chunk in surveyed.chunks) for name in _COUNTS},
        "sum_weight": float(surveyed.sum_weight),
        "spread": {name: packed(getattr(spread, name)) for name in _SPREAD},
        "spread_unit": float(spread.unit),
        "dtype": str(surveyed.sample.dtype),
        "n_sampled": len(surveyed.sample),
        "sample": packed(surveyed.sample),
        "sample_weight": None if weight is None else packed(weight),
        "unit": float(surveyed.unit),
        "n_reads": surveyed.n_reads,
        "is_drawn": surveyed.is_drawn,
        "is_all": surveyed.is_all,
        "contents": [{"chunk": i, "sha256": sha256} for i, sha256 in surveyed.contents.items()],
        "copies": float(surveyed.copies),
    }


def load_survey(reader: Fields, n_features: int) -> Survey:
    """The survey, as if all rows were one sound chunk.

    Raises
    ------
    CheckpointError
        A field is not as promised; it is named.
    """
    dtype, n = reader.word("dtype"), reader.count("n_sampled")
    if dtype not in ("float32", "float64"):
        reader.refuse("dtype", f"is {dtype!r}, neither float32 nor float64")
    weight = None
    if reader.document["sample_weight"] is not None:
        weight = reader.packed("sample_weight", (n,))
    return Survey(
        (_chunk(reader, n_features),),
        reader.packed("sample", (n, n_features), dtype, nan=True),
        weight,
        reader.size("unit"),
        reader.count("n_reads", least=1),
        reader.flag("is_drawn"),
        reader.flag("is_all"),
        {each.count("chunk"): each.sha256("sha256") for each in reader.inners("contents", _NOTED)},
        reader.size("copies"),
    )


def _chunk(reader: Fields, n_features: int) -> ChunkSurvey:
    inner = reader.inner("spread", _SPREAD)
    moments = {name: inner.packed(name, (n_features,)) for name in _SPREAD}
    none, never = np.zeros(n_features, np.int64), np.full(n_features, -1)
    n_rows, n_usable, n_counted, n_eligible = (reader.count(name) for name in _COUNTS)
    return ChunkSurvey(
        n_rows=n_rows,
        n_usable=n_usable,
        n_missing=none,
        n_infinite=none,
        has_missing=np.zeros(n_features, bool),
        has_infinite=np.zeros(n_features, bool),
        first_missing=never,
        first_infinite=never,
        n_bad_weights=0,
        first_bad_weight=-1,
        sum_weight=reader.size("sum_weight"),
        n_counted=n_counted,
        n_eligible=n_eligible,
        spread=ColumnSpread(**moments, unit=reader.size("spread_unit")),
    )
