"""Read what was published: models, labels, paths. Only whole versions are ever seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gmm_dask.errors import ModelFileError, OutputError
from gmm_dask.fitting import Event, Outcome
from gmm_dask.mixture import Cause
from gmm_dask.stage.labels.certainty import PROFILES, kinds
from gmm_dask.stage.lineage.changes import CHANGES, CHANGES_FILE, Changes, first_descents
from gmm_dask.storage import (
    COUNT,
    FLAG,
    MAX_MODEL_BYTES,
    MODEL_KEY,
    NUMBER,
    PLACE,
    TEXT,
    TIME,
    At,
    Kind,
    Model,
    RunFolder,
    Version,
    by_name,
    content_problem,
    damage_of,
    find_entry,
    frame_of,
    list_of,
    literal,
    load_model_file,
    open_store,
    optional,
    parse_ref,
    part,
    read_manifest,
    read_regular,
    registry_of,
    shape,
    text_of,
)

# What a version is asked the path of, and its name within the folder of the run.
FILES = {"model": "model.json", "labels": "labels", "report": "report.html", "folder": ""}
_OF_ROWS_THAT_COUNT = ("log_likelihood_per_row", "bic", "aic", "icl")
CAUSES = frozenset(map(str, Cause))
LONGEST = 1 << 24  # characters of what is said of an event: it names columns
_SELECTION = part(
    heading=TEXT,
    criterion=TEXT,
    reason=list_of(text_of(LONGEST)),
    elbow=optional(COUNT),
    table=part(
        n_components=list_of(COUNT),
        covariance_type=list_of(TEXT),
        **{name: list_of(optional(NUMBER)) for name in ("difference", "log_likelihood", "gain")},
    ),
)
_COUNTS = (
    "n_rows",
    "n_used",
    "n_incomplete",
    "n_ignored",
    "n_starts",
    "n_reads",
    "n_passes",
    "n_taken_back",
)


@dataclass(frozen=True)
class Published:
    """A published version and where its parts lie.

    Parameters
    ----------
    folder : RunFolder
    version : Version
    new : bool
        Whether a command has just made it the latest version, which it was not before.
    model : Model
    metrics : dict
        The content of metrics.json.
    earlier : Version or None
        The version that the same run had before, where a command found one.
    changes : Changes or None
        Where the components come from, with their newest names.
    """

    folder: RunFolder
    version: Version
    new: bool
    model: Model
    metrics: dict[str, Any]
    earlier: Version | None = None
    changes: Changes | None = None

    @property
    def names(self) -> tuple[str | None, ...]:
        """Names of the components; None for one that has none."""
        return () if self.changes is None else self.changes.names

    @property
    def run_id(self) -> str:
        """Identity of the run, 16 hex digits."""
        return self.folder.run_id

    @property
    def news(self) -> str:
        """What the command did that ends with this version, in a sentence."""
        number = self.version.number
        if not self.new:
            return f"This run is the latest version already, version {number}; nothing was written."
        if self.earlier is None:
            return f"Version {number} is published."
        return (
            f"This run was published before as version {self.earlier.number}; version {number} now "
            "points to it, and none of its files was written again."
        )

    @property
    def places(self) -> dict[str, str]:
        """Where model, labels and report lie; there may be no labels."""
        store, version = self.folder.store, self.version
        gone = version.run_id in registry_of(store, version).unlabelled
        labels = () if gone else read_manifest(store, version)["labels"]
        shown = ("model", "labels", "report") if labels else ("model", "report")
        return {what: self.path(what) for what in shown}

    def path(self, what: str) -> str:
        """Path of "model", "labels", "report" or "folder"."""
        if what not in FILES:
            raise OutputError(f"{what!r} is not one of {', '.join(FILES)}")
        return self.folder.path(FILES[what])


def open_output(ref: str) -> Published:
    """The version named by OUT (the latest), OUT@7 or OUT@champion.

    Raises
    ------
    OutputError
        There is no such version, or its manifest is damaged.
    """
    folder, version = resolve(ref)
    return load_published(folder, version, new=False)


def load_published(
    folder: RunFolder, version: Version, *, new: bool, earlier: Version | None = None
) -> Published:
    """Model and metrics of a version, checked against its manifest."""
    manifest = read_manifest(folder.store, version)
    model = _model(folder.get_verified("model.json", manifest), folder.path("model.json"))
    metrics = folder.get_verified_json("metrics.json", manifest)
    _check_metrics(metrics, model, At(folder.path("metrics.json")))
    changes = _changes(folder, version, manifest, model)
    return Published(folder, version, new, model, metrics, earlier, changes)


def _model(data: bytes, name: str) -> Model:
    model = load_model_file(data, name)
    if model.outcome not in tuple(Outcome):
        raise ModelFileError(f"{name}: outcome is {literal(model.outcome)}, none that a fit has.")
    return model


def _check_metrics(metrics: Any, model: Model, at: At) -> None:
    """Raise OutputError unless all that is shown of a version is there, as what it is."""
    k, n_passes = model.parameters.n_components, model.n_passes
    known: dict[str, Kind[Any]] = {
        **dict.fromkeys(_COUNTS, COUNT),
        "n_labelled": optional(list_of(COUNT, k)),
        "lower_bounds": list_of(NUMBER, n_passes),
        "log_likelihood": optional(NUMBER),
        **dict.fromkeys(_OF_ROWS_THAT_COUNT, optional(NUMBER)),
        "model_from": optional(PLACE),
        "objective": optional(PLACE),
        "n_dropped": by_name(COUNT),
        "cast": by_name(TEXT),
        "events": list_of(part(message=text_of(LONGEST), kind=TEXT)),
    }
    later: dict[str, Kind[Any]] = {
        "published": optional(TIME),
        "features_named": optional(FLAG),
        "n_noise": optional(COUNT),
        "tables": by_name(COUNT),
        **kinds(k),
        "selection": optional(_SELECTION),
        "profiles": PROFILES,
        "search": optional(part(message=TEXT, n_passes=COUNT, budget=COUNT)),
    }
    found = shape(known, later, strict=False).load(metrics, at)
    if len({found[name] is None for name in _OF_ROWS_THAT_COUNT}) > 1:
        at.refuse("is null, and other criteria are not", _OF_ROWS_THAT_COUNT[0])
    if metrics.get("outcome") != model.outcome or found["n_passes"] != n_passes:
        at.refuse("or n_passes is not that of the model", "outcome")
    for i, event in enumerate(metrics["events"]):
        if event["kind"] in CAUSES:
            try:
                Event.of_dict(event)
            except (KeyError, TypeError, ValueError) as error:
                at.inside("events").inside(i).refuse(f"is no event of a component ({error!r})")


def load_model_bytes(ref: str) -> bytes:
    """Content of a model.json given by path, or of the one that OUT or OUT@7 was published with."""
    if ref.endswith(".json"):
        if "://" in ref:
            folder_url, _, name = ref.rpartition("/")
            return open_store(folder_url).get(name, MAX_MODEL_BYTES)
        try:
            return read_regular(Path(ref).expanduser(), MAX_MODEL_BYTES)
        except OutputError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelFileError(
                f"The model file {ref} cannot be read: {reason}. Give the path of a model.json, or "
                "the output folder of a run."
            ) from error
    folder, version = resolve(ref)
    return folder.get_verified("model.json", read_manifest(folder.store, version))


def read_model(ref: str) -> Model:
    """The record of the model of OUT (latest version), OUT@7, OUT@champion, or of a model.json.

    Raises
    ------
    OutputError, ModelFileError
        There is no such model, or it is damaged.
    """
    return _model(load_model_bytes(ref), ref)


def label_parts(ref: str) -> list[str]:
    """Paths of exactly the label parts of a version, in row order."""
    folder, version = resolve(ref)
    return [folder.path(name) for name in _with_labels(folder, version)["labels"]]


def read_labels(ref: str) -> Any:
    """The labels of OUT or OUT@7 as a Dask DataFrame, one partition per part, in row order.

    Each part is compared with the manifest as it is read: one whose bytes, rows or model are not
    those of the version raises OutputError. Values are exact: integers and booleans of which some
    are null have the nullable types of pandas, moments that Python has no object for that of Arrow.
    """
    import dask
    import dask.dataframe as dd

    folder, version = resolve(ref)
    manifest = _with_labels(folder, version)
    if not manifest["labels"]:
        raise OutputError(f"{ref} was published without labels (labels.enabled: false).")
    parts = [_LabelPart.of(folder, name, manifest) for name in manifest["labels"]]
    # The first part says what types there are. Dask would turn lists of responsibilities into text.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(_read_part, parts, meta=_read_part(parts[0]).iloc[:0])


def _with_labels(folder: RunFolder, version: Version) -> dict[str, Any]:
    """The manifest of a version; raises OutputError where its labels were removed."""
    if version.run_id in registry_of(folder.store, version).unlabelled:
        raise OutputError(
            f"{folder.store.url}: the labels of version {version.number} were removed, as "
            "`gmm-dask gc` was told to; its model is there. Run its settings again to have labels."
        )
    return read_manifest(folder.store, version)


@dataclass(frozen=True)
class _LabelPart:
    """A label part and what its bytes must be."""

    folder: RunFolder
    name: str
    bytes: int
    sha256: str
    first_row: int
    rows: int
    model_sha256: str | None

    @classmethod
    def of(cls, folder: RunFolder, name: str, manifest: dict[str, Any]) -> _LabelPart:
        return cls(folder, name, **manifest["files"][name], model_sha256=manifest[MODEL_KEY])


def _read_part(part: _LabelPart, columns: list[str] | None = None) -> Any:
    """The rows of a part; Dask asks for fewer `columns` where no more are needed."""
    # SHA-256 takes a quarter of the time that decoding does.
    data = part.folder.get(part.name, part.bytes)
    path, of_version = part.folder.path(part.name), part.model_sha256
    damage = damage_of(data, part.bytes, part.sha256) or content_problem(
        data, path, first_row=part.first_row, rows=part.rows, model_sha256=of_version
    )
    if damage is not None:
        raise OutputError(f"{path} is damaged: {damage}. Restore it from a copy.")
    return frame_of(data, columns)


def resolve(ref: str) -> tuple[RunFolder, Version]:
    """The folder of a run and the version of it that OUT, OUT@7 or OUT@champion names.

    Raises
    ------
    OutputError
        There is no such version, or it was removed.
    """
    url, which = parse_ref(ref)
    store = open_store(url)
    version = find_entry(store, which)
    return RunFolder(store, version.run_id), version


def open_model(folder: RunFolder, version: Version) -> tuple[Model, Changes]:
    """The model of a version, and where its components come from; names are the newest.

    Raises
    ------
    OutputError, ModelFileError
        A file is damaged.
    """
    manifest = read_manifest(folder.store, version)
    model = _model(folder.get_verified("model.json", manifest), folder.path("model.json"))
    return model, _changes(folder, version, manifest, model)


def _changes(
    folder: RunFolder, version: Version, manifest: dict[str, Any], model: Model
) -> Changes:
    if CHANGES not in manifest["files"]:  # of an older format
        return Changes(model.sha256, None, first_descents(model))
    path = folder.path(CHANGES)
    found = CHANGES_FILE.load(folder.get_verified(CHANGES, manifest), path)
    if len(found.components) != model.parameters.n_components:
        At(path).refuse("are not as many as the model has", "components")
    names = registry_of(folder.store, version).names
    return replace(
        found,
        components=tuple(
            replace(each, name=names.get(each.identity, each.name) or None)
            for each in found.components
        ),
    )
