"""The manifest of a run: every file with size and SHA-256, written after reading them all back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from gmm_dask.errors import ModelFileError, OutputError
from gmm_dask.pace import Count, counted
from gmm_dask.storage.arrow import read_parquet_bytes
from gmm_dask.storage.records.codec import (
    COUNT,
    PLACE,
    RUN_ID,
    SHA256,
    TIME,
    At,
    by_name,
    list_of,
    optional,
    shape,
)
from gmm_dask.storage.records.documents import Document, parse_json, sha256_hex
from gmm_dask.storage.records.model_file import MODEL_KEY, load_model_file
from gmm_dask.storage.records.receipts import PartReceipt, content_problem
from gmm_dask.storage.store.protocol import Store, create_once
from gmm_dask.storage.store.runs import (
    MADE_WITH_MODEL,
    MANIFEST,
    MANIFEST_FORMAT,
    MORE_FILES,
    RUN_FILES,
    RunFolder,
    damage_of,
    wrong_model,
)
from gmm_dask.storage.store.version_log import Version, registry_of

_ROWS = {"first_row": COUNT, "rows": COUNT}  # of label parts alone
MANIFEST_FILE = Document(
    shape(
        {
            "run_id": RUN_ID,
            "published": optional(TIME),
            "rows": COUNT,
            MODEL_KEY: optional(SHA256),
            "labels": list_of(PLACE),
            "files": by_name(shape({"bytes": COUNT, "sha256": SHA256}, _ROWS)),
        }
    ),
    "gmm_dask.manifest",
    MANIFEST_FORMAT,
    seal=None,  # the version entry has its hash
    since={"published": 2, MODEL_KEY: 2},
)
_REMEDY = "Run again; if that does not help, move the run's folder away first."


def write_manifest(
    folder: RunFolder,
    receipts: Iterable[PartReceipt],
    *,
    n_rows: int,
    published: str,
    model_sha256: str,
    tell: Count | None = None,
) -> str:
    """Read every file of the run back, then create MANIFEST.json; returns its SHA-256.

    Where an earlier attempt of this run wrote a manifest, that one stands, if it is whole.

    Parameters
    ----------
    folder : RunFolder
    receipts : iterable of PartReceipt
        One per chunk; none where no labels were asked for.
    n_rows : int
        Rows of the plan, which the parts must cover: each row once, in order.
    published : str
        When publishing of the run began: UTC, ISO 8601.
    model_sha256 : str
        Checksum of the model, which is to be that of model.json and of all that is made with it.
    tell : callable, optional
        Called with the number of parts that were read back, of how many.

    Raises
    ------
    OutputError
        A file is absent, damaged or of another model, or rows are lost or double; each is named.
    """
    parts = sorted(receipts, key=lambda receipt: receipt.index)
    document: dict[str, Any] = {
        "run_id": folder.run_id,
        "published": published,
        "rows": n_rows,
        MODEL_KEY: model_sha256,
        "labels": [part.name for part in parts],
        "files": {part.name: _part_entry(part) for part in parts},
    }
    problems = _uncovered_rows(document["files"], document["labels"], n_rows)
    found = (part.damage(folder) for part in parts)
    problems += [each for each in counted(found, len(parts), tell) if each is not None]
    for name in (*RUN_FILES, *filter(folder.exists, MORE_FILES)):
        try:
            data = folder.get(name)
            problems += _content_problems(folder, name, data, document)
            document["files"][name] = {"bytes": len(data), "sha256": sha256_hex(data)}
        except (OutputError, ModelFileError) as error:
            problems.append(_damage(error))
    _refuse(folder, problems)
    data = MANIFEST_FILE.dump(document)
    held = create_once(folder.store, f"runs/{folder.run_id}/{MANIFEST}", data)
    if held != data:
        _check_earlier(folder, held, n_rows, model_sha256)
    return sha256_hex(held)


def read_manifest(store: Store, version: Version) -> dict[str, Any]:
    """The manifest of a version, as it was published.

    `manifest["files"]` has for each name `bytes`, `sha256` and, for label parts, `first_row` and
    `rows`; `manifest["labels"]` are the names of the label parts in row order. In those of older
    formats `manifest["published"]`, when publishing of the run began, and
    `manifest["model_sha256"]`, the checksum of the model that gave the labels, are None.

    Raises
    ------
    OutputError
        It is absent, or not the one that the version names.
    """
    folder = RunFolder(store, version.run_id)
    data, path = folder.get(MANIFEST), folder.path(MANIFEST)
    found = sha256_hex(data)
    if found != version.manifest_sha256:
        raise OutputError(
            f"{path} is not the manifest that the version names: its SHA-256 begins "
            f"{found[:16]}, not {version.manifest_sha256[:16]}. Restore it from a copy."
        )
    manifest = _parse_manifest(folder, data)
    if manifest["rows"] != version.rows:
        raise OutputError(
            f"{store.path(version.name)} says {version.rows} rows, its manifest "
            f"{manifest['rows']}; the entry is damaged. Restore it from a copy."
        )
    return manifest


def verify(store: Store, version: Version, tell: Count | None = None) -> list[str]:
    """Read a version's files and compare them with its manifest: one line per problem.

    An empty list means that the version is whole: every file has its bytes, every label part has
    the rows that the manifest promises, and all that is made with a model is of this model. Labels
    that were removed on purpose are not looked for.

    Raises
    ------
    OutputError
        The storage fails, or refuses to give a file.
    """
    try:
        manifest = read_manifest(store, version)
    except OutputError as error:
        return [_damage(error)]
    if version.run_id in registry_of(store, version).unlabelled:
        labels = frozenset(manifest["labels"])
        kept = {name: each for name, each in manifest["files"].items() if name not in labels}
        manifest = manifest | {"files": kept}
    return _damaged_files(RunFolder(store, version.run_id), manifest, tell)


def _part_entry(part: PartReceipt) -> dict[str, Any]:
    return {
        "bytes": part.bytes,
        "sha256": part.sha256,
        "rows": part.rows,
        "first_row": part.first_row,
    }


def _content_problems(
    folder: RunFolder, name: str, data: bytes, manifest: Mapping[str, Any]
) -> list[str]:
    """What is wrong within a file whose bytes are as they were written."""
    path, model_sha256 = folder.path(name), manifest[MODEL_KEY]
    wrong = None
    if name in manifest["labels"]:
        entry = manifest["files"][name]
        where = {"first_row": entry["first_row"], "rows": entry["rows"]}
        wrong = content_problem(data, path, **where, model_sha256=model_sha256)
    elif name == "model.json":
        found = load_model_file(data, path).sha256
        if found != (model_sha256 or found):
            wrong = f"it is the model {found[:16]}, that of the run is {model_sha256[:16]}"
    elif name in (*MADE_WITH_MODEL, *MORE_FILES):
        _check_decodes(data, path)
        wrong = wrong_model(data, path, model_sha256)
    elif name.endswith(".json"):
        parse_json(data, path)
    return [] if wrong is None else [f"{path} is damaged: {wrong}."]


def _check_decodes(data: bytes, path: str) -> None:
    if path.endswith(".parquet"):
        try:
            read_parquet_bytes(data)
        except (pa.ArrowException, OSError) as error:
            raise OutputError(f"{path} is damaged: {error}.") from error


def _uncovered_rows(
    files: Mapping[str, Mapping[str, Any]], labels: Sequence[str], n_rows: int
) -> list[str]:
    """Where the parts, in order, do not continue each other from row 0 to the last."""
    problems, expected = [], 0
    for name in labels:
        entry = files[name]
        if entry["first_row"] != expected:
            problems.append(f"{name} begins with row {entry['first_row']}, expected {expected}.")
        expected = entry["first_row"] + entry["rows"]
    if labels and expected != n_rows:
        problems.append(f"The label parts end at row {expected}, the input has {n_rows} rows.")
    if len(set(labels)) != len(labels):
        problems.append("A label part is listed twice.")
    return problems


def _check_earlier(folder: RunFolder, held: bytes, n_rows: int, model_sha256: str) -> None:
    manifest = _parse_manifest(folder, held)
    problems = _damaged_files(folder, manifest, None)
    if manifest["rows"] != n_rows:
        problems.append(
            f"{folder.path(MANIFEST)} of an earlier attempt says {manifest['rows']} rows, "
            f"the input has {n_rows}."
        )
    if manifest[MODEL_KEY] != model_sha256:
        problems.append(
            f"{folder.path(MANIFEST)} of an earlier attempt is of another model than this one's."
        )
    _refuse(folder, problems)


def _parse_manifest(folder: RunFolder, data: bytes) -> dict[str, Any]:
    path = folder.path(MANIFEST)
    manifest = MANIFEST_FILE.load(data, path)
    if manifest["run_id"] != folder.run_id:
        raise OutputError(f"{path}: run_id is {manifest['run_id']}; it is another run's.")
    files, labels = manifest["files"], manifest["labels"]
    if not all(files.get(name, {}).keys() >= _ROWS.keys() for name in labels):
        At(path).refuse("do not name files with rows", "labels")
    _refuse(folder, _uncovered_rows(files, labels, manifest["rows"]))
    return manifest


def _damaged_files(folder: RunFolder, manifest: Mapping[str, Any], tell: Count | None) -> list[str]:
    problems, files = [], manifest["files"]
    for name, entry in counted(files.items(), len(files), tell):
        try:
            data = folder.get(name, entry["bytes"])
            damage = damage_of(data, entry["bytes"], entry["sha256"])
            if damage is not None:
                problems.append(f"{folder.path(name)} is damaged: {damage}.")
            else:
                problems += _content_problems(folder, name, data, manifest)
        except (OutputError, ModelFileError) as error:
            problems.append(_damage(error))
    return problems


def _damage(error: OutputError | ModelFileError) -> str:
    """What an error says of a file; raises it where the storage failed, not the file."""
    if isinstance(error, OutputError) and error.is_of_storage:
        raise error
    return str(error)


def _refuse(folder: RunFolder, problems: Sequence[str]) -> None:
    if problems:
        first, *others = problems
        raise OutputError(f"Run {folder.run_id} is not whole: {first}", *others, _REMEDY)
