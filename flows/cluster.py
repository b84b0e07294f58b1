"""The flow that fits a mixture and labels every row, where a checkout runs it."""

import sys

from gmm_dask.flows.deployable import cluster
from gmm_dask.flows.script import main
from gmm_dask.stage.settings import Settings

__all__ = ["cluster"]

if __name__ == "__main__":
    sys.exit(main(cluster, Settings))
