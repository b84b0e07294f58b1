"""What a fit keeps while it runs, so that a later attempt of the run goes on where it stopped."""

from gmm_dask.stage.checkpoints.keeper import Keeper
from gmm_dask.stage.checkpoints.standing import Seconds

__all__ = ["Keeper", "Seconds"]
