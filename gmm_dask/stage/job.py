"""The plan of one run: settings, input, identity and where its output goes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from gmm_dask.engine import Backend, Listener, RowChunks, check_folder, open_backend
from gmm_dask.engine.cluster.address import check_certificates
from gmm_dask.errors import OutputError, SettingsError
from gmm_dask.fitting import Report
from gmm_dask.kinds import element_of
from gmm_dask.redaction import redacted, redacted_document
from gmm_dask.roads.dataset import planned_rows
from gmm_dask.stage import text
from gmm_dask.stage.identity import begin, run_folder, software_versions, what_matters
from gmm_dask.stage.labels.scorer import scorer_of
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.stage.lineage.changes import Descent, Followed
from gmm_dask.stage.lineage.following import FOLLOWED, followed, noted
from gmm_dask.stage.settings import DataSettings, ScoreSettings, Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    MAX_MODEL_BYTES,
    Model,
    Plan,
    RunFolder,
    Store,
    Version,
    canonical_json,
    carried_schema,
    check_kept,
    check_target,
    delta_schema,
    find_version,
    is_readable,
    is_remote,
    label_schema,
    latest,
    lies_in,
    open_store,
    overlaps,
    plan_dataset,
    would_list,
)

_NO_PATH = re.compile(r"[\x00-\x1f\x7f\[\]^|\\]")  # of a local table, to the library that makes it

SettingsT = TypeVar("SettingsT", Settings, ScoreSettings)


@dataclass(frozen=True, eq=False)
class Job(Generic[SettingsT]):
    """What one run will do: the same settings and the same data give the same `run_id` everywhere.

    There is one exception. If the output folder holds a run on other data that have the same
    fingerprint, the run on these data gets an identity of its own.

    Parameters
    ----------
    settings : Settings or ScoreSettings
    plan : Plan
        Files, rows and columns of the input.
    folder : RunFolder
        The folder that the run writes into.
    published : Version or None
        The newest version that points to this run; None if the run was not published yet.
    model : Model or None
        The model to label with; None where the run fits one.
    seconds : float
        Time the planning took.
    caution : str or None
        A warning about input or output: the files of a table were named one by one, the store
        cannot decide between two writers, or fits and labels of other data share the output.
    follows : Followed or None
        The version whose components those of the fit follow.
    descents : tuple of Descent
        Where the components of the model to label with come from; empty where one is fitted.
    severities : Severities or None
        Severities of the training data of the model to label with, where its version tells them.
    again : bool
        Whether an earlier attempt of the run was stopped.
    """

    settings: SettingsT
    plan: Plan
    folder: RunFolder
    published: Version | None
    model: Model | None
    seconds: float
    caution: str | None = None
    follows: Followed | None = None
    descents: tuple[Descent, ...] = ()
    severities: Severities | None = None
    again: bool = False

    @property
    def run_id(self) -> str:
        """Identity of the run, 16 hex digits."""
        return self.folder.run_id

    @property
    def features(self) -> str:
        """The names of the features in one line, and whether the settings name them."""
        named = self.settings.data.features is not None if self.model is None else None
        return text.features(self.plan.features, named=named)

    @property
    def read_columns(self) -> tuple[str, ...]:
        """Names of the columns that the run reads from the files."""
        return _read_columns(self.settings, self.plan)

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """Names of the input columns that the label files repeat."""
        return _kept_columns(self.settings, self.plan)

    def row_chunks(self) -> RowChunks:
        """The rows of the input as chunks; no row is read yet."""
        return planned_rows(self.plan)

    @contextmanager
    def backend(self, listener: Listener, given: Backend | None = None) -> Iterator[Backend]:
        """The given backend, or one opened from the settings for the time of the block.

        Parameters
        ----------
        listener : Listener
            It is told what becomes of the workers of a cluster that is opened here.
        given : Backend, optional
            A backend that is open already.
        """
        if given is not None:
            yield given
            return
        chunk_bytes = self.plan.array_bytes
        with open_backend(self.settings.cluster, listener, chunk_bytes) as backend:
            yield backend


def plan(
    settings: SettingsT, watcher: Watcher | None = None, more: Mapping[str, Any] | None = None
) -> Job[SettingsT]:
    """Read all footers, check the schema, and find out whether this run was published before.

    Parameters
    ----------
    settings : Settings or ScoreSettings
    watcher : Watcher, optional
    more : mapping, optional
        What else decides the output, beside settings and data.

    Raises
    ------
    DataError
        The input is not as promised; the error names all problems.
    SettingsError
        The model has other features or would be too large, a certificate is not there, or scratch
        cannot be written.
    OutputError
        The output folder cannot be written, or the latest version's entry is damaged.
    """
    begun, tell = time.perf_counter(), (watcher or Watcher()).progress
    tell("opening the output", 0)
    model, descents, severities, drawn = scorer_of(settings)
    store = open_store(settings.output.path, private=settings.output.private)
    _check_output_is_no_input(settings.data, store)
    dataset = _planned(settings, model, tell)
    kept, columns = _kept_columns(settings, dataset), _read_columns(settings, dataset)
    if settings.labels.enabled:
        check_kept(kept, settings.labels.further)
    check_delta_table(settings, dataset, kept)
    _check_model(settings, dataset)
    matters = what_matters(settings, dataset, model, severities) | dict(more or {})
    tell("looking at what was published", 0)
    newest = latest(store)  # if its entry is damaged, that is an error now, not when all is done
    gone = () if newest is None else newest.registry.gone
    folder = run_folder(store, matters, dataset, columns, gone, partial(tell, "hashing files"))
    published, caution, follows = find_version(store, folder.run_id), None, None
    again = published is None and folder.exists("run.json")
    if published is None:
        _check_places(settings)
        tell("trying whether the output can be written", 0)
        undecided, mixed = store.check_writable(), _mixed_output(store, newest, settings)
        about, unlike = _described(settings, dataset, folder)
        caution = " ".join(filter(None, (dataset.caution, undecided, mixed, unlike, drawn))) or None
        folder = begin(store, matters, dataset, columns, canonical_json(about), gone)
        follows = noted(folder)
    seconds = time.perf_counter() - begun
    job = Job(settings, dataset, folder, published, model, seconds, caution, follows)
    return replace(job, descents=descents, severities=severities, again=again)


def _planned(settings: Settings | ScoreSettings, model: Model | None, tell: Report) -> Plan:
    """The plan of the input, with the features of the model if there is one."""
    tell("listing the files", 0)
    data, features = settings.data, settings.data.features
    if model is not None:
        if features is not None and features not in (model.feature_names, _columns_of(model)):
            raise SettingsError(
                f"data.features are {', '.join(features)}; the model was fitted on "
                f"{', '.join(model.feature_names)}. Leave data.features out."
            )
        features = model.feature_names
    return plan_dataset(
        data.path,
        features=features,
        id_columns=data.id_columns,
        weight_column=data.weight_column,
        keep=settings.labels.keep,
        chunk_bytes=settings.memory.chunk_bytes,
        missing=data.missing,
        cast=data.cast,
        ignore=data.ignore,
        version=data.version,
        between=data.between,
        to_fit=model is None,
        tell=partial(tell, "reading footers"),
    )


def _columns_of(model: Model) -> tuple[str, ...]:
    """Names of the columns that hold the features of a model; a column of lists holds several."""
    elements = ((name, element_of(name)) for name in model.feature_names)
    return tuple(dict.fromkeys(found[0] if found else name for name, found in elements))


def _mixed_output(
    store: Store, newest: Version | None, settings: Settings | ScoreSettings
) -> str | None:
    """A warning if the latest version is a fit and this run labels with a model, or vice versa."""
    if newest is None:
        return None
    try:
        fitted = "fit" in RunFolder(store, newest.run_id).get_json("run.json")["settings"]
    except (OutputError, KeyError, TypeError):
        return None  # the run is of other software, or damaged: `gmm-dask verify` says which
    if fitted == isinstance(settings, Settings):
        return None
    is_, comes = ("a fit", "labels of other data") if fitted else ("labels alone", "a fit")
    return (
        f"The latest version of {store.url}, {newest.number}, is {is_}, and {comes} will be the "
        "latest. Give each an output of its own: readers take the latest for what they look for."
    )


def _check_model(settings: Settings | ScoreSettings, dataset: Plan) -> None:
    """Raise SettingsError if a fit could end in a model file that is too large to be read again."""
    if isinstance(settings, ScoreSettings):
        return
    names, types, passes = dataset.features, dataset.feature_types, settings.fit.max_iter
    for k, covariance_type in settings.candidates:
        if not is_readable(covariance_type, k, names, types, passes):
            raise SettingsError(
                f"fit.n_components: {k} components of covariance_type "
                f"{covariance_type} on {text.numbered(len(names), 'feature')} make a model file "
                f"of more than {text.size(MAX_MODEL_BYTES)}, which is not read again. Choose "
                "fit.covariance_type diag, or fewer components or features."
            )


def _check_places(settings: Settings | ScoreSettings) -> None:
    """Raise SettingsError if a certificate is not there, or scratch cannot be written here.

    Workers on other machines check their own scratch folder when the fit begins.
    """
    cluster, folder = settings.cluster, settings.memory.scratch
    check_certificates(cluster.tls_ca_file, cluster.tls_cert, cluster.tls_key)
    here = cluster.kind in ("threads", "processes")
    if here and folder is not None and isinstance(settings, Settings):
        check_folder(folder)


def _check_output_is_no_input(data: DataSettings, store: Store) -> None:
    if would_list(data.path, store.path("runs/0/labels/part.parquet")):
        raise SettingsError(
            f"output.path: {store.url} lies inside of data.path, {data.in_short}: the next run "
            "would take the labels for data. Choose a folder beside the data."
        )


def _kept_columns(settings: Settings | ScoreSettings, dataset: Plan) -> tuple[str, ...]:
    keep = settings.labels.keep
    if keep == "ids":
        return dataset.id_columns
    if keep == "all":
        return tuple(dict.fromkeys((*dict(dataset.columns), *dataset.key_columns)))
    return tuple(dict.fromkeys((*dataset.id_columns, *keep)))


def _read_columns(settings: Settings | ScoreSettings, dataset: Plan) -> tuple[str, ...]:
    weight = () if dataset.weight_column is None else (dataset.weight_column,)
    kept = (name for name in _kept_columns(settings, dataset) if name not in dataset.key_columns)
    return tuple(dict.fromkeys((*dataset.feature_columns, *weight, *kept)))


def _described(
    settings: Settings | ScoreSettings, dataset: Plan, folder: RunFolder
) -> tuple[dict[str, Any], str | None]:
    """What `run.json` says, with the version that a fit follows; a caution if it follows none."""
    about: dict[str, Any] = {
        "format": "gmm_dask.run",
        "format_version": 1,
        "run_id": folder.run_id,
        "about": "The attempt that began this run. One that went on with it had the same settings "
        "but for data.path, cluster and output.path, and files of the same content.",
        "settings": redacted_document(settings.model_dump(mode="json")),
        "plan": dataset.to_dict() | {"root": redacted(dataset.root)},
        "software": software_versions(),
    }
    if not isinstance(settings, Settings):
        return about, None
    rule = settings.output.follows
    found, unlike = followed(folder.store, rule, dataset.features, folder.run_id)
    return about | {"follows": None if found is None else FOLLOWED.dump(found)}, unlike


def check_delta_table(
    settings: Settings | ScoreSettings, dataset: Plan, kept: tuple[str, ...]
) -> None:
    """Refuse, before any work, a Delta table that could not hold the labels.

    Raises
    ------
    SettingsError
        It lies among the data or in the output, or around them, or the output is to be private.
    OutputError
        The place holds something else, or the library is missing.
    DataError
        Columns that no Delta table holds.
    """
    if settings.labels.delta_table is None:
        return
    url = delta_url(settings.labels.delta_table)
    data, output = settings.data, open_store(settings.output.path).url
    if would_list(data.path, f"{url}/part.parquet") or overlaps(data.path, url):
        raise SettingsError(
            f"labels.delta_table: {url} lies inside of data.path, {data.in_short}, or around it: "
            "the next run would take labels for data. Choose a folder beside the data."
        )
    if lies_in(url, output) or lies_in(output, url):
        raise SettingsError(
            f"labels.delta_table: {url} lies inside of output.path, {output}, or around it: each "
            "would take the other's files for its own. Choose a folder beside the output."
        )
    if settings.output.private:
        raise SettingsError(
            "labels.delta_table: its files would be readable as the umask says, and output.private "
            "asks for more. Leave out one of the two."
        )
    check_target(url)
    labels = settings.labels
    delta_schema(
        label_schema(carried_schema(dataset, kept), labels.responsibilities, labels.further)
    )


def delta_url(delta_table: str) -> str:
    """The place of the Delta table as an absolute path or a URL; raises OutputError."""
    url = open_store(delta_table).url
    if not is_remote(url) and (unquote(url) != url or _NO_PATH.search(url)):
        raise OutputError(
            f"labels.delta_table: the library that writes Delta tables takes %XX in {url} for "
            "another character, and has no place for control characters and any of [ ] ^ | \\. "
            "Choose a folder with another name."
        )
    return url
