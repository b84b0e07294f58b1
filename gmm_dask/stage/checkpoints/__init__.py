"""What a fit keeps while it runs, so that a later attempt of the run goes on where it stopped."""

from gmm_dask.stage.checkpoints.fit_record import Seconds
from gmm_dask.stage.checkpoints.keeper import Keeper, origin_of

__all__ = ["Keeper", "Seconds", "origin_of"]
