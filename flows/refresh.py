"""The flow that goes on from the latest version, where a checkout runs it."""

import sys

from gmm_dask.flows.deployable import refresh
from gmm_dask.flows.script import main
from gmm_dask.stage.settings import Settings

__all__ = ["refresh"]

if __name__ == "__main__":
    sys.exit(main(refresh, Settings))
