"""The flow that labels a range of partitions, where a checkout deploys it."""

from gmm_dask.flows.deployable import backfill

__all__ = ["backfill"]
