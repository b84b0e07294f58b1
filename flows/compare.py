"""The flow that compares two versions, where a checkout deploys it."""

from gmm_dask.flows.deployable import compare

__all__ = ["compare"]
