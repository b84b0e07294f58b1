"""The engine: chunks of a Dask array mapped and reduced, on threads or a cluster."""

from gmm_dask.engine.cache.disk import check_folder
from gmm_dask.engine.cache.hold import Held, hold, rows_here
from gmm_dask.engine.cache.scratch import release
from gmm_dask.engine.cluster.backends import Backend, ClusterBackend, LocalBackend
from gmm_dask.engine.cluster.link import Limits, Listener
from gmm_dask.engine.cluster.opening import open_backend
from gmm_dask.engine.cluster.recovery import Given
from gmm_dask.engine.passes.chunks import (
    RowChunks,
    Stream,
    array_from_sources,
    row_chunks,
    rows_from_sources,
)
from gmm_dask.engine.passes.expectation import (
    WeightedSum,
    completed_log_likelihood,
    expectation,
    expectations,
    log_likelihood,
    map_items,
)
from gmm_dask.engine.passes.survey import Survey, survey
from gmm_dask.engine.passes.tree_sum import tree_sum
from gmm_dask.sections import ClusterSpec

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
