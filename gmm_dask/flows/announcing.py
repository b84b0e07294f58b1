"""What a run came to as Prefect events, which automations of any server can match."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from gmm_dask.errors import DriftError
from gmm_dask.redaction import redacted
from gmm_dask.stage.lineage.changes import Kind as Change
from gmm_dask.stage.outputs import Published
from gmm_dask.storage import open_store

PUBLISHED = "gmm_dask.version.published"
BORN = "gmm_dask.component.born"
DRIFTED = "gmm_dask.drift.exceeded"
ASSETS = "GMM_DASK_ASSETS"  # 1 where output folders shall be assets of Prefect
RESOURCE = "gmm_dask.output.{}"  # the resource of all events of an output folder, by its URL


def announce(published: Published) -> None:
    """Emit the events of a run that has just made its version the latest; of any other, none.

    The run is published already, so an event that cannot be emitted is a warning.
    """
    if published.new:
        _emit(published.folder.store.url, events_of(published))
        if os.environ.get(ASSETS) == "1":
            _materialize(published)


def announce_drift(output: str, error: DriftError) -> None:
    """Emit the event of a refresh that failed because of drift."""
    url = open_store(output).url
    _emit(url, [_drifted({"output": redacted(url), "version": None}, error.exceeded)])


def events_of(published: Published) -> list[tuple[str, dict[str, Any]]]:
    """Name and payload of each event; a payload has plain numbers and text alone."""
    metrics = published.metrics
    version = {
        "output": redacted(published.folder.store.url),
        "version": published.version.number,
        "run_id": published.run_id,
    }
    about = {
        "folder": redacted(published.path("folder")),
        "model_sha256": published.model.sha256,
        "n_components": published.model.parameters.n_components,
        "n_rows": metrics["n_rows"],
        "n_used": metrics["n_used"],
        "log_likelihood_per_row": metrics["log_likelihood_per_row"],
        "outcome": metrics["outcome"],
    }
    born = [each for each in metrics["events"] if each["kind"] == Change.BORN]
    exceeded = (metrics.get("refresh") or {}).get("exceeded")
    return [
        (PUBLISHED, version | about),
        *((BORN, version | {k: each[k] for k in ("components", "message")}) for each in born),
        *([_drifted(version, exceeded)] if exceeded else []),
    ]


def _drifted(
    version: dict[str, Any], exceeded: Sequence[dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    return DRIFTED, version | {"exceeded": list(exceeded)}


def _emit(url: str, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
    name = redacted(url)
    resource = {"prefect.resource.id": RESOURCE.format(name), "prefect.resource.name": name}
    try:
        for event, payload in events:
            emit_event(event, resource=resource, payload=payload)
    except Exception as error:
        get_run_logger().warning("An event could not be emitted: %s", error)


def _materialize(published: Published) -> None:
    """Tell Prefect of a new version of the output as an asset that depends on the data."""
    (_, facts), *_ = events_of(published)
    try:
        root = published.folder.get_json("run.json")["plan"]["root"]
        out, data = map(_uri, (published.folder.store.url, root))

        @materialize(
            out,
            by="gmm_dask",
            asset_deps=[data],
            task_run_name=f"asset {out}",
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        def version() -> None:
            add_asset_metadata(out, facts)

        version()
    except Exception as error:
        get_run_logger().warning("The asset could not be told of: %s", error)


def _uri(place: str) -> str:
    """The key of an asset, which is a URI."""
    return redacted(place) if "://" in place else Path(place).as_uri()
