"""Read all, fit, predict, write: `python -m benchmarks.programs.with_scikit_learn JOB`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.programs.job import Job, main


def fit_and_label(job: Job) -> None:
    """The shortest script that does it; all rows are in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.mixture import GaussianMixture

    X = pq.read_table(job.data).to_pandas().to_numpy()
    model = GaussianMixture(job.k, tol=job.tol, random_state=0).fit(X)
    labels = pa.table({"label": model.predict(X)})
    pq.write_table(labels, Path(job.out, "labels.parquet"))
    job.finish(model.weights_, model.means_, model.covariances_, model.n_iter_, {})


if __name__ == "__main__":
    main(fit_and_label)
