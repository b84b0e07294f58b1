"""Parquet in, model and labels out: plan, reader, store, versions."""

from gmm_dask.storage.input.plan import Partition, Plan, plan_dataset
from gmm_dask.storage.input.shards import Chunk
from gmm_dask.storage.records.documents import canonical_json
from gmm_dask.storage.store.protocol import Store, check_writable, open_store
from gmm_dask.storage.store.versions import (
    RunFolder,
    Version,
    find_version,
    latest,
    list_versions,
    parse_ref,
    publish_version,
    read_manifest,
    run_id,
    verify,
    write_manifest,
)

__all__ = [
    "Chunk",
    "Partition",
    "Plan",
    "RunFolder",
    "Store",
    "Version",
    "canonical_json",
    "check_writable",
    "find_version",
    "latest",
    "list_versions",
    "open_store",
    "parse_ref",
    "plan_dataset",
    "publish_version",
    "read_manifest",
    "run_id",
    "verify",
    "write_manifest",
]
