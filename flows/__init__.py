"""Entry files of a checkout, for `prefect.yaml` and `python -m`; gmm_dask.flows has the flows."""

import gmm_dask.flows  # noqa: F401  (it switches Prefect's usage data off)
