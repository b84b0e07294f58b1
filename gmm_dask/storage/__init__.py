"""Parquet in, model and labels out: input, store, records. The one door to this package."""

from gmm_dask.storage.arrow import (
    Lengths,
    OddValuesError,
    frame_of,
    list_length,
    numbers,
    parquet_bytes,
    repeated_words,
    to_arrow,
    words_to_arrow,
)
from gmm_dask.storage.input.columns.selection import (
    is_list,
    is_number,
    kind_of,
    types_of,
    value_type,
)
from gmm_dask.storage.input.inputs import is_remote, open_input
from gmm_dask.storage.input.listing.places import lies_in, overlaps, would_list
from gmm_dask.storage.input.parquet.opened import file_changed
from gmm_dask.storage.input.parquet.reader import (
    OpenChunk,
    PlannedChunk,
    PlannedFiles,
    carried_schema,
    read_chunks,
)
from gmm_dask.storage.input.plan import Chunk, Plan
from gmm_dask.storage.input.planning import part_of, plan_dataset
from gmm_dask.storage.input.sources import ChunkSource, array_names, name_of, shard_sources
from gmm_dask.storage.records.checkpoint_file import (
    SURVEY,
    Origin,
    checkpoint_name,
    checkpoint_numbers,
    read_checkpoint,
    read_if_there,
    remedied,
    write_checkpoint,
)
from gmm_dask.storage.records.codec import (
    ANY,
    COUNT,
    FLAG,
    NUMBER,
    PLACE,
    SIZE,
    TEXT,
    TIME,
    At,
    Clock,
    Kind,
    Name,
    Place,
    Positive,
    RunId,
    Sha256,
    Size,
    by_name,
    count_from,
    is_run_id,
    is_time,
    list_of,
    literal,
    optional,
    packed,
    part,
    record,
    shape,
    text_of,
    utc_now,
)
from gmm_dask.storage.records.contents import (
    FileContent,
    content_of,
    dump_contents,
    file_contents,
    load_contents,
    read_contents_of,
    states_of,
)
from gmm_dask.storage.records.delta_output import (
    TableOrigin,
    check_target,
    delta_schema,
    write_table,
)
from gmm_dask.storage.records.documents import Document, canonical_json, sha256_hex
from gmm_dask.storage.records.labels import check_kept, label_schema, label_table
from gmm_dask.storage.records.manifest import read_manifest, verify, write_manifest
from gmm_dask.storage.records.model_file import (
    ARRAYS,
    MAX_MODEL_BYTES,
    MODEL_KEY,
    Model,
    array_shapes,
    check_mixture,
    dump_model,
    is_readable,
    kind_of_noise,
    load_model_file,
    parameters_bytes,
)
from gmm_dask.storage.records.receipts import (
    CrossTables,
    FileRows,
    LabelledPart,
    LabelSums,
    PartReceipt,
    ValueCounts,
    content_problem,
    labelled_before,
    write_part,
)
from gmm_dask.storage.records.statistics_file import (
    TENTHS,
    Cut,
    KeptStatistics,
    PartitionSums,
    dump_statistics,
    kind_of_sums,
    load_statistics,
)
from gmm_dask.storage.store.local_store import read_regular, write_file
from gmm_dask.storage.store.object_store import brief
from gmm_dask.storage.store.protocol import Store
from gmm_dask.storage.store.runs import (
    CONTENTS,
    DRIFT,
    MANIFEST,
    STATISTICS,
    RunFolder,
    damage_of,
    html_of_model,
    open_store,
    run_id,
)
from gmm_dask.storage.store.version_log import (
    EMPTY,
    NO_ALIAS,
    Registry,
    Version,
    find_entry,
    is_alias,
    latest,
    list_versions,
    parse_ref,
    read_version,
    registry_of,
    version_numbers,
)
from gmm_dask.storage.store.versions import (
    Garbage,
    append,
    find_garbage,
    find_version,
    publish_version,
    remove_garbage,
)

__all__ = [
    "ANY", "append", "array_names", "array_shapes", "ARRAYS", "At", "brief", "by_name",
    "canonical_json", "carried_schema", "check_kept", "check_mixture", "check_target",
    "checkpoint_name", "checkpoint_numbers", "Chunk", "ChunkSource", "Clock", "content_of",
    "content_problem", "CONTENTS", "COUNT", "count_from", "CrossTables", "Cut", "damage_of",
    "delta_schema", "Document", "DRIFT", "dump_contents", "dump_model", "dump_statistics", "EMPTY",
    "file_changed", "file_contents", "FileContent", "FileRows", "find_entry", "find_garbage",
    "find_version", "FLAG", "frame_of", "Garbage", "html_of_model", "is_alias", "is_list",
    "is_number", "is_readable", "is_remote", "is_run_id", "is_time", "KeptStatistics", "Kind",
    "kind_of", "kind_of_noise", "kind_of_sums", "label_schema", "label_table", "labelled_before",
    "LabelledPart", "LabelSums", "latest", "Lengths", "lies_in", "list_length", "list_of",
    "list_versions", "literal", "load_contents", "load_model_file", "load_statistics", "MANIFEST",
    "MAX_MODEL_BYTES", "Model", "MODEL_KEY", "Name", "name_of", "NO_ALIAS", "NUMBER", "numbers",
    "OddValuesError", "open_input", "open_store", "OpenChunk", "optional", "Origin", "overlaps",
    "packed", "parameters_bytes", "parquet_bytes", "parse_ref", "part", "part_of", "PartitionSums",
    "PartReceipt", "Place", "PLACE", "Plan", "plan_dataset", "PlannedChunk", "PlannedFiles",
    "Positive", "publish_version", "read_checkpoint", "read_if_there", "read_chunks",
    "read_contents_of", "read_manifest", "read_regular", "read_version", "record", "Registry",
    "registry_of", "remedied", "remove_garbage", "repeated_words", "run_id", "RunFolder", "RunId",
    "Sha256", "sha256_hex", "shape", "shard_sources", "Size", "SIZE", "states_of", "STATISTICS",
    "Store", "SURVEY", "TableOrigin", "TENTHS", "TEXT", "text_of", "TIME", "to_arrow", "types_of",
    "utc_now", "value_type", "ValueCounts", "verify", "Version", "version_numbers",
    "words_to_arrow", "would_list", "write_checkpoint", "write_file", "write_manifest",
    "write_part", "write_table",
]  # fmt: skip
