"""The whole stage: `python -m benchmarks.programs.with_gmm_dask JOB`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.programs.job import Job, main

KEPT = (
    "seconds",
    "n_reads",
    "n_starts",
    "chunks_held",
    "bytes_held",
    "bytes_in_scratch",
    "bytes_decoded_per_pass",
)


def fit_and_label(job: Job) -> None:
    """Publish a model and labels."""
    from gmm_dask.command.process import settle

    settle()  # as the command line does
    from gmm_dask.stage.run import run
    from gmm_dask.stage.settings import settings_from

    settings = {
        "data": {"path": job.data},
        "fit": {"n_components": job.k, "tol": job.tol} | job.fit,
        "cluster": {"workers": job.threads},
        "memory": job.memory,
        "output": {"path": str(Path(job.out, "published"))},
    }
    published = run(settings_from(settings))
    parameters, metrics = published.model.parameters, published.metrics
    job.finish(
        parameters.weights,
        parameters.means,
        parameters.covariances,
        metrics["n_passes"],
        {key: metrics[key] for key in KEPT},
    )


if __name__ == "__main__":
    main(fit_and_label)
