"""Publish a mixture that was fitted elsewhere: a version with a model, and without labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmm_dask.fitting import Outcome
from gmm_dask.redaction import redacted_document
from gmm_dask.stage import text
from gmm_dask.stage.identity import note_contents, software_versions
from gmm_dask.stage.labels.certainty import profile_records
from gmm_dask.stage.lineage.changes import CHANGES, CHANGES_FILE, Changes, first_descents
from gmm_dask.stage.publish import make_latest
from gmm_dask.stage.report import ReportData, render_report
from gmm_dask.stage.settings import FitSettings, Settings, settings_from
from gmm_dask.storage import (
    MODEL_KEY,
    Clock,
    Model,
    RunFolder,
    Store,
    canonical_json,
    dump_model,
    find_version,
    html_of_model,
    latest,
    open_store,
    parameters_bytes,
    publish_version,
    run_id,
    utc_now,
    write_manifest,
)

GIVEN = "a mixture that was given"  # in place of the path of data
IN_PYTHON = "fitted in Python"


def publish_model(
    model: Model,
    out: str,
    fit: FitSettings,
    missing: str,
    origin: str = IN_PYTHON,
    now: Clock = utc_now,
) -> str:
    """Publish a model as the latest version of an output folder; returns OUT@version.

    The version has what every version has, but no labels; its metrics say of rows what the model
    says, and no criteria.

    Parameters
    ----------
    model : Model
    out : str
        Folder of the versions, or s3://bucket/prefix.
    fit : FitSettings
        How the mixture was fitted.
    missing : {"error", "drop", "em"}
    origin : str
        How it came about, for people.
    now : Clock
        Tells the times that the files and the version carry.

    Raises
    ------
    SettingsError
        The folder has a name that no output can have.
    OutputError
        The folder cannot be written.
    """
    settings = _settings(model, out, fit, missing)
    store = open_store(out)
    matters = {"model": model.sha256, "fit": fit.model_dump(mode="json"), "missing": missing}
    folder = _folder(store, matters, model)
    found = find_version(store, folder.run_id)
    if found is not None:
        return f"{out}@{make_latest(folder, found, now=now).version.number}"
    folder.put_if_absent("run.json", canonical_json(_about(settings, model, folder.run_id, origin)))
    note_contents(folder, ())
    folder.put_if_absent("model.json", dump_model(model))
    folder.put_of_model("parameters.parquet", parameters_bytes(model), model.sha256)
    metrics = _metrics(model, fit, folder.run_id) | {"published": now()}
    folder.put_of_model("metrics.json", canonical_json(metrics), model.sha256)
    changes = CHANGES_FILE.dump(Changes(model.sha256, None, first_descents(model)))
    folder.put_of_model(CHANGES, changes, model.sha256)
    published = folder.get_json("metrics.json")["published"]
    report = html_of_model(render_report(_report(model, settings, metrics, origin)), model.sha256)
    folder.put_of_model("report.html", report, model.sha256)
    manifest_sha256 = write_manifest(
        folder, (), n_rows=model.n_rows, published=published, model_sha256=model.sha256
    )
    version = publish_version(store, folder.run_id, manifest_sha256, model.n_rows, now)
    return f"{out}@{version.number}"


def _settings(model: Model, out: str, fit: FitSettings, missing: str) -> Settings:
    """What the settings of a run that came to the model would be; raises SettingsError."""
    document = {
        "data": {"path": GIVEN, "features": list(model.feature_names), "missing": missing},
        "fit": fit.model_dump(),
        "labels": {"enabled": False},
        "output": {"path": out},
    }
    return settings_from(document)  # type: ignore[no-any-return]


def _folder(store: Store, matters: dict[str, Any], model: Model) -> RunFolder:
    """The folder of the run; one that was removed is not taken again."""
    newest, n = latest(store), 0
    folder = RunFolder(store, run_id(matters, model.data_fingerprint))
    while newest is not None and folder.run_id in newest.registry.gone:
        n += 1
        folder = RunFolder(store, run_id({**matters, "again": n}, model.data_fingerprint))
    return folder


def _no_record(origin: str) -> str:
    return f"This mixture was {origin} and published as it is; no rows were labelled."


def _about(settings: Settings, model: Model, identity: str, origin: str) -> dict[str, Any]:
    return {
        "format": "gmm_dask.run",
        "format_version": 1,
        "run_id": identity,
        "about": _no_record(origin),
        "settings": redacted_document(settings.model_dump(mode="json")),
        "plan": {"root": GIVEN, "partitions": [], "chunks": [], "n_rows": model.n_rows},
        "software": software_versions(),
    }


def _metrics(model: Model, fit: FitSettings, identity: str) -> dict[str, Any]:
    """The entries that every metrics.json has; what nobody measured is null."""
    unknown = ("log_likelihood", "log_likelihood_per_row", "bic", "aic", "icl", "n_labelled")
    nothing = ("n_incomplete", "n_ignored", "n_hidden", "n_taken_back", "n_reads")
    return {
        "run_id": identity,
        MODEL_KEY: model.sha256,
        "given": True,
        "n_components": model.parameters.n_components,
        "model_from": None,
        "objective": fit.objective,
        "lower_bounds": list(model.lower_bounds),
        "converged": model.converged,
        "outcome": model.outcome,
        "n_passes": model.n_passes,
        "n_starts": fit.n_init,
        "n_rows": model.n_rows,
        "n_used": model.n_rows,
        "n_dropped": {},
        "cast": {},
        "tables": {},
        **dict.fromkeys(nothing, 0),
        **dict.fromkeys(unknown),
        "profiles": profile_records(model.parameters, model.feature_names),
        "features": list(model.feature_names),
        "features_named": None,
        "events": [],
    }


def _report(model: Model, settings: Settings, metrics: dict[str, Any], origin: str) -> ReportData:
    components = text.numbered(model.parameters.n_components, "component")
    return ReportData(
        title=f"{components}, {origin}",
        run_id=metrics["run_id"],
        feature_names=model.feature_names,
        parameters=model.parameters,
        trajectory=(model.parameters,),
        lower_bounds=model.lower_bounds,
        outcome=model.outcome,
        advice=Outcome(model.outcome).advice,
        sample=np.empty((0, model.parameters.n_features)),
        metrics=metrics,
        settings=settings.model_dump(mode="json"),
        plan={"caution": _no_record(origin)},
        versions=software_versions(),
        events=(),
    )
