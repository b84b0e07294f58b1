"""The engine: chunks of a Dask array mapped and reduced, on threads or a cluster."""

from gmm_dask.engine.backends import Backend, ClusterBackend, LocalBackend
from gmm_dask.engine.chunks import (
    RowChunks,
    Stream,
    array_from_sources,
    row_chunks,
    rows_from_sources,
)
from gmm_dask.engine.cluster import ClusterSpec, open_backend
from gmm_dask.engine.disk import check_folder
from gmm_dask.engine.hold import Held, hold, rows_here
from gmm_dask.engine.link import Limits, Listener
from gmm_dask.engine.passes import (
    WeightedSum,
    completed_log_likelihood,
    expectation,
    expectations,
    log_likelihood,
    map_items,
)
from gmm_dask.engine.recovery import Given
from gmm_dask.engine.reduce import tree_sum
from gmm_dask.engine.scratch import release
from gmm_dask.engine.survey import Survey, survey

__all__ = [
    "Backend",
    "ClusterBackend",
    "ClusterSpec",
    "Given",
    "Held",
    "Limits",
    "Listener",
    "LocalBackend",
    "RowChunks",
    "Stream",
    "Survey",
    "WeightedSum",
    "array_from_sources",
    "completed_log_likelihood",
    "check_folder",
    "expectation",
    "expectations",
    "log_likelihood",
    "hold",
    "map_items",
    "open_backend",
    "release",
    "row_chunks",
    "rows_from_sources",
    "rows_here",
    "survey",
    "tree_sum",
]
