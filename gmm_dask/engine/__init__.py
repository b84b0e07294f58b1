"""The engine: chunks of a Dask array mapped and reduced, on threads or a cluster."""

from gmm_dask.engine.cache.disk import check_folder
from gmm_dask.engine.cache.hold import Held, hold, release, rows_here
from gmm_dask.engine.cluster.backends import Backend, ClusterBackend
from gmm_dask.engine.cluster.link import Limits, Listener
from gmm_dask.engine.cluster.opening import available_cores, open_backend
from gmm_dask.engine.cluster.recovery import Given
from gmm_dask.engine.cluster.threads import LocalBackend
from gmm_dask.engine.passes.chunk_map import ChunkMap, Tell, counting
from gmm_dask.engine.passes.dask_arrays import row_chunks
from gmm_dask.engine.passes.evaluation import Compared, evaluated
from gmm_dask.engine.passes.expectation import (
    Asked,
    WeightedSum,
    completed_log_likelihood,
    expectation,
    expectations,
    log_likelihood,
    map_items,
)
from gmm_dask.engine.passes.survey import Survey, survey
from gmm_dask.engine.passes.tree_sum import tree_sum
from gmm_dask.engine.passes.units import RowChunks, Unit
from gmm_dask.sections import ClusterSpec

__all__ = [
    "Asked",
    "Compared",
    "Backend",
    "ChunkMap",
    "ClusterBackend",
    "ClusterSpec",
    "Given",
    "Held",
    "Limits",
    "Listener",
    "LocalBackend",
    "RowChunks",
    "Survey",
    "Tell",
    "Unit",
    "WeightedSum",
    "available_cores",
    "completed_log_likelihood",
    "check_folder",
    "counting",
    "evaluated",
    "expectation",
    "expectations",
    "log_likelihood",
    "hold",
    "map_items",
    "open_backend",
    "release",
    "row_chunks",
    "rows_here",
    "survey",
    "tree_sum",
]
