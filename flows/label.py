"""The flow that labels other data with a published model, where a checkout runs it."""

import sys

from gmm_dask.flows.deployable import label
from gmm_dask.flows.script import main
from gmm_dask.stage.settings import ScoreSettings

__all__ = ["label"]

if __name__ == "__main__":
    sys.exit(main(label, ScoreSettings))
