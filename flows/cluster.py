"""The flow that fits a mixture and labels every row: plan, fit, label, publish."""

from __future__ import annotations

import sys
from typing import Any

from prefect import State, flow
from prefect.utilities.annotations import opaque

from flows import tasks
from flows.artifacts import show_fit
from gmm_dask.stage.settings import Settings


@flow(
    name="cluster",
    flow_run_name="{settings.data.in_short}, n_components {settings.fit.n_components}, "
    "{settings.fit.covariance_type}",
    persist_result=False,
)
def cluster(settings: Settings) -> State[Any]:
    """Fit a Gaussian mixture to Parquet data, label every row and publish both as one version.

    Called directly it returns the Published record, or raises the error the run failed with.
    """
    try:
        # Prefect would otherwise look for futures in every field of a plan of many files.
        job = tasks.plan(settings)
        if job.published is not None:
            published = tasks.make_latest(opaque(job))
            show_fit(published)
        else:
            fitted = tasks.fit(opaque(job))
            labelled = tasks.label(opaque(job), opaque(fitted))
            published = tasks.publish(opaque(job), opaque(fitted), opaque(labelled))
            show_fit(published, (job, fitted))
    except tasks.EXPECTED as error:
        return tasks.failed(error)
    return tasks.completed(published)


if __name__ == "__main__":
    from flows.script import main

    sys.exit(main(cluster, Settings))
