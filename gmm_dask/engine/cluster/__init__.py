"""Where work is done: threads, or a Dask cluster that may lose its workers."""
