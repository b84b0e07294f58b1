"""Read what was published: models, labels, paths. Only whole versions are ever seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmm_dask.errors import ModelFileError, OutputError
from gmm_dask.stage.parts import Part
from gmm_dask.storage import (
    RunFolder,
    Version,
    latest,
    list_versions,
    open_store,
    parse_ref,
    read_manifest,
)
from gmm_dask.storage.model_file import Model, load_model_file


@dataclass(frozen=True)
class Published:
    """A published version and where its parts lie.

    Parameters
    ----------
    folder : RunFolder
    version : Version
    new : bool
        False where the run had been published before and nothing was written.
    model : Model
    metrics : dict
        The content of metrics.json.
    """

    folder: RunFolder
    version: Version
    new: bool
    model: Model
    metrics: dict[str, Any]

    @property
    def run_id(self) -> str:
        """Identity of the run, 16 hex digits."""
        return self.folder.run_id

    def path(self, what: str) -> str:
        """Path of "model", "labels", "report" or "folder"."""
        try:
            part = Part(what)
        except ValueError:
            raise OutputError(f"{what!r} is not one of {', '.join(Part)}") from None
        return self.folder.path(part.file)


def open_output(ref: str) -> Published:
    """The version named by OUT (the latest) or OUT@7.

    Raises
    ------
    OutputError
        There is no such version, or its manifest is damaged.
    """
    folder, version = _resolve(ref)
    return load_published(folder, version, new=False)


def load_published(folder: RunFolder, version: Version, *, new: bool) -> Published:
    """Model and metrics of a version, checked against its manifest."""
    manifest = read_manifest(folder.store, version)
    model = load_model_file(folder.get_verified("model.json", manifest), folder.path("model.json"))
    metrics = folder.get_verified_json("metrics.json", manifest)
    return Published(folder, version, new, model, metrics)


def load_model_bytes(ref: str) -> bytes:
    """Content of a model.json given by path, or of the one that OUT or OUT@7 was published with."""
    if ref.endswith(".json"):
        try:
            return Path(ref).read_bytes()
        except OSError as error:
            raise ModelFileError(f"The model file {ref} cannot be read: {error}") from error
    folder, version = _resolve(ref)
    return folder.get_verified("model.json", read_manifest(folder.store, version))


def load_model(ref: str) -> Model:
    """The model of OUT (latest version), OUT@7, or of a model.json.

    Raises
    ------
    OutputError, ModelFileError
        There is no such model, or it is damaged.
    """
    return load_model_file(load_model_bytes(ref), ref)


def label_parts(ref: str) -> list[str]:
    """Paths of exactly the label parts of a version, in row order."""
    folder, version = _resolve(ref)
    manifest = read_manifest(folder.store, version)
    return [folder.path(name) for name in manifest["labels"]]


def read_labels(ref: str) -> Any:
    """The labels of OUT or OUT@7 as a Dask DataFrame, one partition per part, in row order."""
    import dask
    import dask.dataframe as dd
    import pandas as pd

    parts = label_parts(ref)
    if not parts:
        raise OutputError(f"{ref} was published without labels (labels.enabled: false).")
    # Dask would turn the lists of responsibilities into text.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(pd.read_parquet, parts)


def _resolve(ref: str) -> tuple[RunFolder, Version]:
    url, number = parse_ref(ref)
    store = open_store(url)
    if number is None:
        version = latest(store)
        if version is None:
            raise OutputError(
                f"{url} holds no published version. Run the stage with output.path: {url} first."
            )
        return RunFolder(store, version.run_id), version
    for version in list_versions(store):
        if version.number == number:
            return RunFolder(store, version.run_id), version
    known = ", ".join(str(version.number) for version in list_versions(store)) or "none"
    raise OutputError(f"{url} holds no version {number}; published: {known}.")
