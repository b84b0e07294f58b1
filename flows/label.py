"""The flow that labels other data with a published model: plan, check, label, publish."""

from __future__ import annotations

import sys
from typing import Any

from prefect import State, flow
from prefect.utilities.annotations import opaque

from flows import tasks
from flows.artifacts import show_labels
from gmm_dask.stage.settings import ScoreSettings


@flow(
    name="label",
    flow_run_name="{settings.data.in_short} by the model of {settings.model}",
    persist_result=False,
)
def label(settings: ScoreSettings) -> State[Any]:
    """Label every row of Parquet data with a model that was published before.

    Called directly it returns the Published record, or raises the error the run failed with.
    """
    try:
        job = tasks.plan(settings)
        if job.published is not None:
            published = tasks.make_latest(opaque(job))
        else:
            checked = tasks.check(opaque(job))
            labelled = tasks.label(opaque(job), opaque(checked))
            published = tasks.publish(opaque(job), opaque(checked), opaque(labelled))
        show_labels(published)
    except tasks.EXPECTED as error:
        return tasks.failed(error)
    return tasks.completed(published)


if __name__ == "__main__":
    from flows.script import main

    sys.exit(main(label, ScoreSettings))
