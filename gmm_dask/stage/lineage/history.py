"""The versions of an output as their log lists them, and the settings that tell runs apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gmm_dask.errors import GmmDaskError, OutputError
from gmm_dask.sections import Section
from gmm_dask.stage import text
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.storage import (
    Registry,
    RunFolder,
    Store,
    Version,
    open_store,
    read_manifest,
    read_version,
    registry_of,
    version_numbers,
)

AT_ONCE = 16  # versions: on an object store each is four requests
MAX_SETTING = 20  # characters of one setting

DECISIVE = ("fit", "data", "labels")  # sections that change the result
SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in (ScoreSettings.model_fields | Settings.model_fields).items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
_SAID_ELSEWHERE = ("path", "between", "n_components", "covariance_type")


@dataclass(frozen=True)
class Listed:
    """A version as the log of versions lists it, without reading its labels.

    Fields that cannot be read, because something is damaged, are None.

    Parameters
    ----------
    number : int
    version : Version or None
    n_components : int or None
    log_likelihood : float or None
        Log-likelihood of all rows together; None also where no row counts.
    settings : str or None
        Settings that are not as by default, in short.
    data : str or None
        Path of the input, or paths.
    problem : str or None
        What is damaged, and the remedy.
    aliases : tuple of str
        Aliases that point to the version.
    removed : str or None
        What `gc` removed of it.
    """

    number: int
    version: Version | None = None
    n_components: int | None = None
    log_likelihood: float | None = None
    settings: str | None = None
    data: str | None = None
    problem: str | None = None
    aliases: tuple[str, ...] = ()
    removed: str | None = None


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
        raise OutputError(
            f"{url} holds no published version. Give the output folder of a run that has ended."
        )
    registry = registry_of(store, Version(0, "", "", 0))
    with ThreadPoolExecutor(min(AT_ONCE, len(numbers))) as pool:
        return list(pool.map(partial(_listed, store, registry), numbers))


def in_short(settings: Mapping[str, Any]) -> str:
    """The settings that decide the result and differ from their defaults, as `name=value`.

    Parameters
    ----------
    settings : mapping
        Settings of a run, as its run.json has them.
    """
    return " ".join(_words(settings))


def _listed(store: Store, registry: Registry, number: int) -> Listed:
    aliases = (alias for alias, of in registry.aliases.items() if of == number)
    listed = Listed(number, aliases=tuple(sorted(aliases)))
    try:
        version = read_version(store, number)
        listed = replace(listed, version=version)
        if version.run_id in registry.retired:
            return replace(listed, removed="removed")
        if version.run_id in registry.unlabelled:
            listed = replace(listed, removed="labels removed")
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
        read = about["settings"]["data"]
        return replace(
            listed,
            n_components=_n_components(metrics),
            log_likelihood=_log_likelihood(metrics),
            settings=in_short(about["settings"]),
            data=text.data(read["path"], read.get("between", {})),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"{folder.path()} was written by other software: its metrics.json or run.json has "
            f"other fields ({type(error).__name__}: {error})."
        ) from error


def _n_components(metrics: Mapping[str, Any]) -> int | None:
    """How many components the mixture has; None where nobody says it."""
    labelled = metrics["n_labelled"]  # null where a mixture was given without rows
    return metrics.get("n_components") if labelled is None else len(labelled)


def _log_likelihood(metrics: Mapping[str, Any]) -> float | None:
    """Log-likelihood of all rows; None where no row counts."""
    if metrics["log_likelihood_per_row"] is None:
        return None
    return float(metrics["log_likelihood"])


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not as by default, section by section, and those without a default.

    Parameters
    ----------
    settings : mapping
        Settings of a run, as its run.json has them.
    """
    found = {}
    for name, section in settings.items():
        if not isinstance(section, Mapping):
            found[name] = section
        elif chosen := {
            key: value
            for key, value in section.items()
            if not _is_default(SECTIONS.get(name), key, value)
        }:
            found[name] = chosen
    return found


def _is_default(schema: type[Section] | None, name: str, value: Any) -> bool:
    field = None if schema is None else schema.model_fields.get(name)
    if field is None:
        return False
    default = field.get_default(call_default_factory=True)
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def _words(settings: Mapping[str, Any]) -> Iterator[str]:
    if "fit" in settings:
        yield settings["fit"]["covariance_type"]
    else:
        yield f"model={text.short(settings['model'], MAX_SETTING)}"
    found = changed({name: settings.get(name, {}) for name in DECISIVE})
    for values in found.values():
        for name, value in values.items():
            if name not in _SAID_ELSEWHERE:
                value = ",".join(map(str, value)) if isinstance(value, list) else value
                yield f"{name}={text.short(text.readable(value), MAX_SETTING)}"
