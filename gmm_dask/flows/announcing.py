"""What a run came to as Prefect events, which automations of any server can match."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger
from prefect.events import emit_event

from gmm_dask.redaction import redacted
from gmm_dask.stage.outputs import Published

PUBLISHED = "gmm_dask.version.published"
RESOURCE = "gmm_dask.output.{}"  # the resource of all events of an output folder, by its URL


def announce(published: Published) -> None:
    """Emit the events of a run that has just made its version the latest; of any other, none.

    The run is published already, so an event that cannot be emitted is a warning.
    """
    if not published.new:
        return
    url = redacted(published.folder.store.url)
    resource = {"prefect.resource.id": RESOURCE.format(url), "prefect.resource.name": url}
    try:
        for name, payload in events_of(published):
            emit_event(name, resource=resource, payload=payload)
    except Exception as error:
        get_run_logger().warning("The run is published, but no event tells it: %s", error)


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
    return [(PUBLISHED, version | about)]
