"""The report's pictures, drawn beside the labels: both need no more than the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from gmm_dask.stage.fit import Fitted
from gmm_dask.stage.job import Job
from gmm_dask.stage.publish import draw_pictures
from gmm_dask.stage.report import Pictures

WORTH = 1 << 20  # rows, which take a second to label, as the pictures do to draw


@contextmanager
def drawing(job: Job[Any], fitted: Fitted) -> Iterator[Callable[[], Pictures | None]]:
    """Have the pictures drawn meanwhile, and give what waits for them.

    For few rows it gives None: the report draws them then, which takes no longer.
    """
    if job.plan.n_rows < WORTH:
        yield lambda: None
        return
    with ThreadPoolExecutor(1, "pictures") as thread:
        yield thread.submit(draw_pictures, job, fitted).result
