"""Clusters by a registered name: entry points of installed packages, no import strings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from threading import Thread
from typing import Any

from gmm_dask.errors import ClusterError, SettingsError

GROUP = "gmm_dask.clusters"
EXTRAS = "jobqueue, kubernetes, coiled"
CLOSE_SECONDS = 60

logger = logging.getLogger("gmm_dask")

Factory = Callable[[Mapping[str, Any]], AbstractContextManager[Any]]


def registered() -> dict[str, EntryPoint]:
    """The factories that installed packages register, by name; none is imported."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def factory_named(name: str) -> Factory:
    """options -> a cluster for the time of a `with` block, closed at its end.

    Raises
    ------
    SettingsError
        Nothing is registered under the name, or its package is not installed.
    ClusterError, in the block
        The factory failed, or what it made is no cluster.
    """
    points = registered()
    if name not in points:
        raise SettingsError(f"{name!r} is no cluster kind: {known_kinds()}")
    try:
        function = points[name].load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"cluster.kind: {name} needs what is not installed ({error}). "
            f"pip install 'gmm-dask[extra]'; the extras are {EXTRAS}."
        ) from error
    return partial(_made, name, function)


def known_kinds() -> str:
    """What cluster.kind can be, as part of a message."""
    names = ", ".join(registered()) or "none"
    return (
        "it can be threads, processes, address, or a factory that an installed package registers "
        f"under {GROUP} ({names})"
    )


@contextmanager
def _made(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> Iterator[Any]:
    try:
        cluster = function(**options)
    except Exception as error:  # of a package we do not know
        raise ClusterError(
            f"cluster.kind: {name} could not make a cluster ({type(error).__name__}: {error}). "
            "Correct cluster.options."
        ) from error
    if not (hasattr(cluster, "scheduler_address") and hasattr(cluster, "close")):
        raise ClusterError(
            f"cluster.kind: {name} made {type(cluster).__name__}, which is no Dask cluster: it "
            "needs scheduler_address and close()."
        )
    try:
        yield cluster
    finally:
        _close(name, cluster)


def _close(name: str, cluster: Any) -> None:
    """Close the cluster, and go on where it takes too long."""

    def close() -> None:
        try:
            cluster.close()
        except Exception as error:  # of a package we do not know
            logger.warning("The %s cluster could not be closed: %s", name, error)

    closing = Thread(target=close, daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
    if closing.is_alive():
        logger.warning("The %s cluster is not closed after %d s.", name, CLOSE_SECONDS)
