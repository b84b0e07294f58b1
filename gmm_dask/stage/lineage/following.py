"""Which version a fit follows, so that its components keep their numbers and names.

It is decided once, when a run begins, and noted in its run.json: whoever goes on with the run, or
finds it published, finds the same. It is no part of the run's identity, or a run that is repeated
after its own publication would follow itself and be another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gmm_dask.errors import OutputError, SettingsError
from gmm_dask.stage.lineage.changes import Followed, Predecessor
from gmm_dask.stage.outputs import open_model, resolve
from gmm_dask.storage import (
    MANIFEST,
    At,
    RunFolder,
    Store,
    Version,
    latest,
    open_store,
    optional,
    read_version,
    record,
    shape,
    version_numbers,
)

LATEST, NONE = "latest", "none"

FOLLOWED = record(Followed)
_NOTED = shape({}, {"follows": optional(FOLLOWED)}, strict=False)  # of run.json


def followed(
    store: Store, rule: str, features: Sequence[str], run_id: str
) -> tuple[Followed | None, str | None]:
    """The version that a run is to follow, and why it follows none where that may surprise.

    Parameters
    ----------
    store : Store
        Store of the output.
    rule : str
        `latest`, `none`, an alias of the output, or a version such as OUT@7.
    features : sequence of str
        Features of the run; a version of other features is not followed.
    run_id : str
        Id of the run itself, whose own versions it does not follow.

    Raises
    ------
    SettingsError
        The version that is named has other features.
    OutputError
        It is damaged, or there is none.
    """
    if rule == NONE:
        return None, None
    other = None
    if "@" in rule:
        folder, version = resolve(rule)
        other = None if folder.store.url == store.url else folder.store.url
    else:
        found = _newest(store, run_id) if rule == LATEST else of_alias(store, rule)
        if found is None:
            return None, _not_yet(store, rule)
        folder, version = RunFolder(store, found.run_id), found
    model, _ = open_model(folder, version)
    if set(model.feature_names) == set(features):
        return Followed(other, version.number, version.run_id, model.sha256), None
    said = (
        f"Version {version.number} has other features ({', '.join(model.feature_names)}): its "
        "components are not followed, and numbers begin anew."
    )
    if "@" in rule:
        raise SettingsError(f"output.follows: {said} Name another version, or none.")
    return None, said


def _not_yet(store: Store, rule: str) -> str | None:
    """A word where an output has versions, but not the alias that is to be followed."""
    if rule == LATEST or (newest := latest(store)) is None:
        return None
    known = ", ".join(sorted(newest.registry.aliases)) or "none"
    return (
        f"output.follows: {store.url} has no alias {rule!r} yet; its aliases: {known}. No version "
        "is followed, and numbers of components begin anew."
    )


def noted(folder: RunFolder) -> Followed | None:
    """The version that the run follows, as its run.json says; None also in older ones."""
    about = _NOTED.load(folder.get_json("run.json"), At(folder.path("run.json")))
    found: Followed | None = about.get("follows")
    return found


def predecessor(
    store: Store, followed: Followed | None, features: Sequence[str]
) -> Predecessor | None:
    """The mixture of the version that is followed, with its features in this order.

    Raises
    ------
    OutputError
        The version is gone, damaged, or another one than was noted.
    """
    if followed is None:
        return None
    place = store if followed.output is None else open_store(followed.output)
    version = read_version(place, followed.version)
    folder = RunFolder(place, version.run_id)
    model, changes = open_model(folder, version)
    if model.sha256 != followed.model_sha256:
        raise OutputError(
            f"{folder.path('model.json')}: is not the model that this run follows, which begins "
            f"{followed.model_sha256[:16]}. Restore it from a copy, or move this run's folder away."
        )
    order = np.array([model.feature_names.index(name) for name in features])
    same = model.feature_names == tuple(features)
    parameters = model.parameters if same else model.parameters.marginal(order)
    return Predecessor(followed, parameters, model.n_rows, changes.components)


def of_alias(store: Store, alias: str) -> Version | None:
    """The version of an alias; None where nothing has it yet."""
    newest = latest(store)
    number = None if newest is None else newest.registry.aliases.get(alias)
    return None if number is None else read_version(store, number)


def _newest(store: Store, run_id: str) -> Version | None:
    """The newest version of another run whose folder was not moved away."""
    for number in reversed(version_numbers(store)):
        version = read_version(store, number)
        folder = RunFolder(store, version.run_id)
        if version.run_id != run_id and folder.exists(MANIFEST):
            return version
    return None
