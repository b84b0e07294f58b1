"""The log of versions as people read it: when, which run, on which data, and how well it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gmm_dask.errors import GmmDaskError, OutputError
from gmm_dask.sections import Section
from gmm_dask.stage import text
from gmm_dask.stage.settings import DataSettings, FitSettings, LabelSettings
from gmm_dask.storage import (
    RunFolder,
    Store,
    Version,
    open_store,
    read_manifest,
    read_version,
    version_numbers,
)

AT_ONCE = 16  # versions: on an object store each is four requests
MAX_SETTING = 20  # characters of one setting

_SECTIONS: dict[str, type[Section]] = {
    "fit": FitSettings,
    "data": DataSettings,
    "labels": LabelSettings,
}
_SAID_ELSEWHERE = ("path", "n_components", "covariance_type")


@dataclass(frozen=True)
class Listed:
    """What is known of a version without reading its labels; None where it is damaged.

    Parameters
    ----------
    number : int
    version : Version or None
    n_components : int or None
    log_likelihood : float or None
        Of all rows together; None also where no row counts.
    settings : str or None
        Those that are not as by default.
    data : str or None
        Path of the input, or paths.
    problem : str or None
        What is damaged, and the remedy.
    """

    number: int
    version: Version | None = None
    n_components: int | None = None
    log_likelihood: float | None = None
    settings: str | None = None
    data: str | None = None
    problem: str | None = None


def history(url: str) -> list[Listed]:
    """All versions of an output, the oldest first; one that is damaged hides no other.

    Raises
    ------
    OutputError
        Nothing was published there, or the folder cannot be read.
    """
    store = open_store(url)
    numbers = version_numbers(store)
    if not numbers:
        raise OutputError(f"{url} holds no published version.")
    with ThreadPoolExecutor(min(AT_ONCE, len(numbers))) as pool:
        return list(pool.map(partial(_listed, store), numbers))


def in_short(settings: Mapping[str, Any]) -> str:
    """What decides the result and is not as by default, as `name=value`.

    Parameters
    ----------
    settings : mapping
        Those of a run, as in its run.json.
    """
    return " ".join(_words(settings))


def _listed(store: Store, number: int) -> Listed:
    listed = Listed(number)
    try:
        listed = replace(listed, version=read_version(store, number))
        return _with_its_run(store, listed)
    except GmmDaskError as error:
        return replace(listed, problem=str(error))


def _with_its_run(store: Store, listed: Listed) -> Listed:
    assert listed.version is not None
    folder = RunFolder(store, listed.version.run_id)
    manifest = read_manifest(store, listed.version)
    metrics = folder.get_verified_json("metrics.json", manifest)
    about = folder.get_verified_json("run.json", manifest)
    try:
        paths = about["settings"]["data"]["path"]
        return replace(
            listed,
            n_components=len(metrics["n_labelled"]),
            log_likelihood=_log_likelihood(metrics),
            settings=in_short(about["settings"]),
            data=paths if isinstance(paths, str) else ", ".join(paths),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"{folder.path()} was written by other software: its metrics.json or run.json has "
            f"other fields ({type(error).__name__}: {error})."
        ) from error


def _log_likelihood(metrics: Mapping[str, Any]) -> float | None:
    """Log-likelihood of all rows; None where no row counts."""
    if metrics["log_likelihood_per_row"] is None:
        return None
    return float(metrics["log_likelihood"])


def _words(settings: Mapping[str, Any]) -> Iterator[str]:
    if "fit" in settings:
        yield settings["fit"]["covariance_type"]
    else:
        yield f"model={text.short(settings['model'], MAX_SETTING)}"
    for section, schema in _SECTIONS.items():
        for name, value in settings.get(section, {}).items():
            field = schema.model_fields.get(name)
            default = None if field is None else field.default
            default = list(default) if isinstance(default, tuple) else default
            if name not in _SAID_ELSEWHERE and value != default:
                value = ",".join(map(str, value)) if isinstance(value, list) else value
                yield f"{name}={text.short(text.readable(value), MAX_SETTING)}"
