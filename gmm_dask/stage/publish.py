"""Publish a run: metrics, report, manifest, and one put-if-absent of the version entry.

A run that is finished already is published again by such an entry alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gmm_dask.errors import OutputError, SettingsError
from gmm_dask.redaction import redacted
from gmm_dask.stage import text
from gmm_dask.stage.fit import Fitted
from gmm_dask.stage.identity import note_contents, software_versions
from gmm_dask.stage.job import Job, delta_url
from gmm_dask.stage.labels.certainty import certainty, profile_records
from gmm_dask.stage.labels.labelling import Labelled
from gmm_dask.stage.lineage.changes import CHANGES, CHANGES_FILE, before_of, with_movers
from gmm_dask.stage.lineage.registry import as_its_run
from gmm_dask.stage.outputs import Published, load_published, open_output
from gmm_dask.stage.report import ReportData, render_report
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.stage.summary import Ending
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    MODEL_KEY,
    Clock,
    LabelSums,
    Model,
    RunFolder,
    TableOrigin,
    Version,
    canonical_json,
    delta_schema,
    html_of_model,
    is_time,
    latest,
    parse_ref,
    publish_version,
    read_manifest,
    utc_now,
    verify,
    write_manifest,
    write_table,
)

READING_BACK = "reading back"
NEXT_VERSION = "making it the latest version"


def publish(
    job: Job[Any],
    fitted: Fitted,
    labelled: Labelled,
    watcher: Watcher | None = None,
    now: Clock = utc_now,
    more: Mapping[str, Any] | None = None,
) -> Published:
    """Write metrics and report, read every file back, and append the version.

    Parameters
    ----------
    more : mapping, optional
        What else the metrics say.
    now : Clock
        Tells the times that the files and the version carry.

    Raises
    ------
    OutputError
        A file is not what its receipt says; nothing was published.
    """
    watcher = watcher or Watcher()
    watcher.phase("publish", f"run {job.run_id}")
    watcher.progress("writing what was measured", 0)
    folder, n_rows = job.folder, labelled.sums.n_rows
    note_contents(folder, labelled.contents)
    model_sha256 = fitted.model.sha256
    metrics = _noted(
        folder, summarise(job, fitted, labelled) | dict(more or {}) | {"published": now()}
    )
    changes = CHANGES_FILE.dump(with_movers(fitted.changes, labelled.sums.migration))
    folder.put_of_model(CHANGES, changes, model_sha256)
    data = report_data(job, fitted, metrics)
    watcher.progress("drawing the report", 0)
    report = html_of_model(render_report(data), model_sha256)
    folder.put_of_model("report.html", report, model_sha256)
    watcher.progress(READING_BACK, 0)
    manifest_sha256 = write_manifest(
        folder,
        labelled.receipts,
        n_rows=n_rows,
        published=metrics["published"],
        model_sha256=model_sha256,
        tell=partial(watcher.progress, READING_BACK),
    )
    watcher.progress(NEXT_VERSION, 0)
    version = publish_version(folder.store, job.run_id, manifest_sha256, n_rows, now)
    return load_published(folder, version, new=True)


def make_latest(
    folder: RunFolder, found: Version, watcher: Watcher | None = None, now: Clock = utc_now
) -> Published:
    """Read all files of a published run back, and append a version that points to it.

    Where the latest version points to it already, nothing is written.

    Parameters
    ----------
    folder : RunFolder
        Folder of the run.
    found : Version
        Any version of the run.
    now : Clock
        Tells the time of the new version.

    Raises
    ------
    OutputError
        A file is damaged or absent; each is named, and nothing was published.
    """
    watcher, store = watcher or Watcher(), folder.store
    watcher.phase("verify", f"run {found.run_id}")
    watcher.progress(READING_BACK, 0)
    problems = verify(store, found, partial(watcher.progress, READING_BACK))
    if problems:
        first, *others = problems
        raise OutputError(
            f"This run was published before, as version {found.number}, and is damaged: {first}",
            *others,
            f"Restore the files from a copy, or move {folder.path()} away and run again.",
        )
    watcher.progress(NEXT_VERSION, 0)
    before = latest(store)
    if before is None or not before.points_to(found.run_id, found.manifest_sha256):
        caution = store.check_writable()
        if caution is not None:
            watcher.warn(caution)
    version = publish_version(store, found.run_id, found.manifest_sha256, found.rows, now)
    return load_published(folder, version, new=version != before, earlier=found)


def promote(ref: str, watcher: Watcher | None = None, now: Clock = utc_now) -> Published:
    """Make the run of OUT@7 the latest version again; that is one new version, and rolls back.

    Raises
    ------
    SettingsError
        The reference names no version.
    OutputError
        There is no such version, or a file of its run is damaged or absent.
    """
    url, which = parse_ref(ref)
    if which is None:
        raise SettingsError(
            f"{ref} names no earlier version: write {url}@7 for version 7. "
            f"`gmm-dask versions {ref}` lists all."
        )
    published = open_output(ref)
    folder = RunFolder(as_its_run(published.folder), published.run_id)
    return make_latest(folder, published.version, watcher, now)


def write_delta_table(settings: Settings | ScoreSettings, published: Published) -> str | None:
    """Make the labels of a published version the next version of the table, if that is asked for.

    Doing it again writes nothing; a table with labels of a later version is left.

    Returns
    -------
    What was done, in a sentence; None where no table is asked for.

    Raises
    ------
    OutputError
        The table cannot be written; the version stays published, and the same command tries again.
    """
    if settings.labels.delta_table is None:
        return None
    url, version = delta_url(settings.labels.delta_table), published.version
    store = published.folder.store
    parts = _parts(published, read_manifest(store, version))
    origin = TableOrigin(
        redacted(store.url), version.number, version.run_id, version.manifest_sha256
    )
    try:
        first = next(parts)
        number = write_table(url, _all(first, parts), delta_schema(first.schema), origin)
    except OutputError as error:
        raise OutputError(f"Version {version.number} is published. {error}") from error
    what = "holds labels of a later version" if number is None else f"version {number} holds them"
    return f"Labels as a Delta table, {redacted(url)}: {what}."


def _all(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others


def _parts(published: Published, manifest: dict[str, Any]) -> Iterator[pa.Table]:
    """The label parts, one after the other, each as the manifest lists it."""
    for name in manifest["labels"]:
        data = published.folder.get_verified(name, manifest)
        yield pq.read_table(io.BytesIO(data), use_threads=False)


def _noted(folder: RunFolder, metrics: dict[str, Any]) -> dict[str, Any]:
    """Store the metrics; publishing began when an earlier attempt of this run stored its own."""
    folder.put_of_model("metrics.json", canonical_json(metrics), metrics[MODEL_KEY])
    published = folder.get_json("metrics.json").get("published")
    if not is_time(published):
        raise OutputError(
            f"{folder.path('metrics.json')} is damaged: it does not say when publishing began. "
            "Move it away and run again."
        )
    return metrics | {"published": published}


def summarise(job: Job[Any], fitted: Fitted, labelled: Labelled) -> dict[str, Any]:
    """The content of metrics.json."""
    sums, before = labelled.sums, _before_labels(job, fitted)
    return before | {
        "log_likelihood": sums.log_likelihood,
        "n_rows": sums.n_rows,
        "n_used": sums.n_rows - sums.n_dropped,
        "n_dropped": {"missing": sums.n_dropped},
        "n_incomplete": sums.n_incomplete,
        "n_labelled": list(sums.n_labelled),
        "before": before_of(fitted.changes, sums),
        "n_noise": None if fitted.model.parameters.noise is None else sums.n_noise,
        "profiles": profile_records(fitted.model.parameters, fitted.model.feature_names),
        "n_anomalies": None if job.settings.labels.anomaly is None else sums.n_anomalies,
        "severity": None if fitted.severities is None else fitted.severities.to_dict(),
        **certainty(sums, fitted.model),
        **_per_row_and_criteria(sums, fitted.model.parameters.n_free_parameters),
        "bytes_decoded": fitted.held.bytes_once
        + fitted.n_reads * fitted.held.bytes_read
        + labelled.n_decoded * job.plan.row_bytes,
        "n_reads": fitted.n_reads + labelled.n_reads,
        "seconds": before["seconds"] | {"label": labelled.seconds},
    }


def _per_row_and_criteria(sums: LabelSums, n_free: int) -> dict[str, float | None]:
    """Log-likelihood per row and criteria; null if no row counts.

    The criteria are as Schwarz 1978, Akaike 1974, Biernacki et al. 2000.
    """
    if not sums.sum_weight:
        return dict.fromkeys(("log_likelihood_per_row", "bic", "aic", "icl"))
    bic = n_free * math.log(sums.sum_weight) - 2 * sums.log_likelihood
    return {
        "log_likelihood_per_row": sums.log_likelihood / sums.sum_weight,
        "bic": bic,
        "aic": 2 * n_free - 2 * sums.log_likelihood,
        "icl": bic - 2 * sums.sum_log_max,
    }


def _before_labels(job: Job[Any], fitted: Fitted) -> dict[str, Any]:
    """The entries of metrics.json about plan and fit: they are known before the labels."""
    model, settings = fitted.model, job.settings
    labels_alone = isinstance(settings, ScoreSettings)
    return {
        "run_id": job.run_id,
        MODEL_KEY: model.sha256,
        "model_from": redacted(settings.model) if labels_alone else None,
        "objective": None if labels_alone else settings.fit.objective,
        "lower_bounds": list(model.lower_bounds),
        "converged": model.converged,
        "outcome": model.outcome,
        "n_passes": model.n_passes,
        "n_starts": 0 if labels_alone else settings.fit.n_init,
        "cast": dict(job.plan.cast),
        "caution": job.caution,
        "tables": dict(job.plan.tables),
        "n_ignored": job.plan.n_ignored,
        "n_hidden": job.plan.n_hidden,
        "n_resumed": fitted.n_resumed,
        "kernel": fitted.kernel,
        "n_taken_back": fitted.result.n_taken_back,
        "selection": None if fitted.selection is None else fitted.selection.to_dict(),
        "search": None if fitted.result.search is None else fitted.result.search.to_dict(),
        "chunks_held": fitted.held.n_held,
        "bytes_held": fitted.held.bytes_held,
        "chunks_in_scratch": fitted.held.n_scratch,
        "bytes_in_scratch": fitted.held.bytes_scratch,
        "bytes_decoded_per_pass": fitted.held.bytes_read,
        "seconds": {
            "plan": job.seconds,
            "fit": fitted.seconds,
            "passes": list(fitted.pass_seconds),
        },
        "features": list(model.feature_names),
        "features_named": None if labels_alone else settings.data.features is not None,
        "events": [caution.to_dict() for caution in fitted.cautions]
        + [event.to_dict() for event in fitted.result.events_]
        + [change.to_event() for change in fitted.changes.changes],
    }


def report_data(job: Job[Any], fitted: Fitted, metrics: dict[str, Any]) -> ReportData:
    """Everything the report shows; of labels what the metrics tell."""
    model, plan = fitted.model, job.plan
    ending = Ending.of(model, metrics)
    of_model = f"{ending.passes[0].upper()}{ending.passes[1:]}."
    return ReportData(
        title=_title(job, model, metrics),
        run_id=job.run_id,
        feature_names=model.feature_names,
        parameters=model.parameters,
        # Components keep their numbers from where the last one was dropped.
        trajectory=tuple(
            each
            for each in fitted.result.trajectory
            if each.n_components == model.parameters.n_components
        ),
        lower_bounds=fitted.result.lower_bounds,
        prelude=fitted.result.prelude,
        outcome=ending.outcome,
        advice=ending.advice or of_model,
        sample=fitted.sample,
        metrics=metrics,
        settings=job.settings.model_dump(mode="json"),
        plan={
            "path": plan.root,
            "tables": text.table_versions(dict(plan.tables)) or None,
            "n_files": len(plan.partitions),
            "n_rows": plan.n_rows,
            "n_chunks": plan.n_arrays,
            "dropped": metrics.get("n_dropped"),
            "cast": ", ".join(f"{name} ({type_})" for name, type_ in plan.cast) or None,
            "n_ignored": plan.n_ignored or None,
            "n_hidden": plan.n_hidden or None,
            "caution": job.caution,
        },
        versions=software_versions(),
        events=metrics["events"],
        names=fitted.changes.names,
        merge_tree=model.merge_tree,
    )


def _title(job: Job[Any], model: Model, metrics: dict[str, Any]) -> str:
    components = text.numbered(model.parameters.n_components, "component")
    path = job.settings.data.in_short
    if metrics["model_from"] is None:
        return f"{components} in {path}"
    return f"{path}, labelled by {components}"
