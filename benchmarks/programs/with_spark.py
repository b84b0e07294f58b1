"""Spark in local mode: `python -m benchmarks.programs.with_spark JOB`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.programs.job import Job, main


def fit_and_label(job: Job) -> None:
    """pyspark.ml; its tolerance is of the total log-likelihood, so it is multiplied by the rows."""
    import pyarrow.dataset
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import SparkSession

    rows = pyarrow.dataset.dataset(job.data)
    spark = (
        SparkSession.builder.master(f"local[{job.threads}]")
        .config("spark.driver.memory", job.spark_memory)
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    frame = spark.read.parquet(job.data)
    vectors = VectorAssembler(inputCols=rows.schema.names, outputCol="features")
    frame = vectors.transform(frame).select("features").persist()
    tol = job.tol * rows.count_rows()
    model = GaussianMixture(k=job.k, tol=tol, maxIter=100, seed=0).fit(frame)
    labels = model.transform(frame).select("prediction")
    labels.write.parquet(str(Path(job.out, "labels")))
    gaussians = model.gaussiansDF.collect()
    job.finish(
        np.array(model.weights),
        np.array([each["mean"].toArray() for each in gaussians]),
        np.array([each["cov"].toArray() for each in gaussians]),
        int(model.summary.numIter),
        {},
    )
    spark.stop()


if __name__ == "__main__":
    main(fit_and_label)
