"""Prefect flows: decorators, names, artifacts, events and states around gmm_dask.stage."""

import os

# Prefect reads these when it is imported: nothing is sent anywhere unless somebody asks for it.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
