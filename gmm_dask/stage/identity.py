"""What decides the identity of a run, and its folder, which is never the folder of other data."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import version as installed_version
from typing import Any

from gmm_dask.errors import InputChangedError, OutputError
from gmm_dask.mixture import core
from gmm_dask.pace import Count
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.storage import (
    CONTENTS,
    Clock,
    FileContent,
    Model,
    Plan,
    RunFolder,
    Store,
    canonical_json,
    dump_contents,
    is_time,
    load_contents,
    read_contents_of,
    run_id,
    sha256_hex,
    states_of,
    utc_now,
)

ATTEMPT = "attempt.json"  # of a run that is under way: when its last attempt began

AGAIN = "Run again: a new plan takes the data as they are now."


def run_folder(
    store: Store,
    matters: Mapping[str, Any],
    plan: Plan,
    columns: Sequence[str],
    gone: Collection[str] = (),
    tell: Count | None = None,
) -> RunFolder:
    """The folder of the run of these settings on these data.

    Where the folder of that fingerprint was begun for other data, they get one of their own. Data
    are read only where a file is no longer in the state that was noted.

    Parameters
    ----------
    store : Store
    matters : mapping
        The settings that decide the output.
    plan : Plan
    columns : sequence of str
        Columns that the run reads from the files.
    gone : collection of str
        Identities of runs that were removed; done again, such a run has another.
    tell : callable, optional
        Called with the number of chunks that are read, of how many, where data are read.
    """
    folder, n = _folder(store, matters, plan, columns, tell), 0
    while folder.run_id in gone:
        n += 1
        folder = _folder(store, {**matters, "again": n}, plan, columns, tell)
    return folder


def _folder(
    store: Store,
    matters: Mapping[str, Any],
    plan: Plan,
    columns: Sequence[str],
    tell: Count | None,
) -> RunFolder:
    folder = RunFolder(store, run_id(matters, plan.fingerprint))
    if _is_of(folder, plan, columns, tell):
        return folder
    now = read_contents_of(plan, columns, tell=tell)
    contents = [[each.name, each.sha256] for each in now]
    return RunFolder(store, run_id(matters, plan.fingerprint, sha256_hex(canonical_json(contents))))


def begin(
    store: Store,
    matters: Mapping[str, Any],
    plan: Plan,
    columns: Sequence[str],
    about: bytes,
    gone: Collection[str] = (),
) -> RunFolder:
    """The run's folder with its run.json, which is `about` unless an earlier attempt wrote it.

    Raises
    ------
    InputChangedError
        A run on other data of the same fingerprint began at the same moment.
    """
    folder = run_folder(store, matters, plan, columns, gone)
    note_attempt(folder, utc_now)
    if not folder.put_if_absent("run.json", about) and folder != run_folder(
        store, matters, plan, columns, gone
    ):
        raise InputChangedError(f"{plan.root}: changed while the run began. {AGAIN}")
    return folder


def note_attempt(folder: RunFolder, now: Clock) -> None:
    """Note that an attempt of the run begins now, so that `gc` leaves it alone."""
    folder.put(ATTEMPT, canonical_json({"began": now()}))


def attempt(folder: RunFolder) -> str | None:
    """When the last attempt of a run began; None where nobody noted it."""
    began = folder.get_json(ATTEMPT).get("began") if folder.exists(ATTEMPT) else None
    return began if is_time(began) else None


def note_contents(folder: RunFolder, contents: Sequence[FileContent]) -> None:
    """Store what the files held, unless an earlier attempt of this run did.

    Raises
    ------
    InputChangedError
        The earlier attempt read other data, which looked the same.
    """
    if folder.put_if_absent(CONTENTS, dump_contents(contents)):
        return
    noted = {each.name: each.sha256 for each in load_contents(folder) or ()}
    others = [each.name for each in contents if noted.get(each.name) != each.sha256]
    if others:
        lines = [
            f"{name}: an attempt of this run read other data of the same size, time and footer. "
            f"Move {folder.path()} away and run again."
            for name in others
        ]
        raise InputChangedError(lines)


def _is_of(folder: RunFolder, plan: Plan, columns: Sequence[str], tell: Count | None) -> bool:
    """Whether the folder is empty, or what is in it was computed from the data of the plan."""
    contents = load_contents(folder)
    noted = contents if contents is not None else _states(folder)
    if noted is None:
        return True
    by_name = {each.name: each for each in noted}
    if by_name.keys() != {each.name for each in plan.partitions}:
        raise OutputError(
            f"{folder.path()}: what was noted there of the input names other files than the input "
            "has. Something wrote into the folder: move it away and run again."
        )
    same = {each.name for each in plan.partitions if by_name[each.name].is_state_of(each)}
    if len(same) == len(plan.partitions):
        return True
    if contents is None:
        return False  # an unfinished run of which nobody knows what it read
    known = {name: by_name[name].sha256 for name in same}
    now = read_contents_of(plan, columns, known, tell)
    return all(each.sha256 == by_name[each.name].sha256 for each in now)


def _states(folder: RunFolder) -> tuple[FileContent, ...] | None:
    if not folder.exists("run.json"):
        return None
    return states_of(folder.get_json("run.json"), folder.path("run.json"))


def what_matters(
    settings: Settings | ScoreSettings,
    dataset: Plan,
    model: Model | None,
    severities: Severities | None,
) -> dict[str, Any]:
    """All settings that change a byte of the output: not where the run computes or writes."""
    matters: dict[str, Any] = {
        "data": _data_that_matters(settings) | {"features": list(dataset.features)},
        "labels": settings.labels.model_dump(mode="json", exclude={"delta_table"}),
        "chunk_bytes": settings.memory.chunk_bytes,
    }
    if isinstance(settings, Settings):
        return matters | _fit_that_matters(settings) | {"follows": settings.output.follows}
    assert model is not None
    if severities is not None and "severity" in settings.labels.further:
        matters["severity"] = sha256_hex(canonical_json(severities.to_dict()))
    return matters | {"model": model.sha256}


def settings_hash(settings: Settings) -> str:
    """SHA-256 of those settings that decide which model a fit comes to."""
    document = _fit_that_matters(settings) | {"data": _data_that_matters(settings)}
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _fit_that_matters(settings: Settings) -> dict[str, Any]:
    """How to fit, and what the model is chosen among where it is."""
    sections = ("fit", "select") if settings.select.is_asked else ("fit",)
    return {name: getattr(settings, name).model_dump(mode="json") for name in sections}


def _data_that_matters(settings: Settings | ScoreSettings) -> dict[str, Any]:
    return settings.data.model_dump(mode="json", exclude={"path", "version", "between"})


def software_versions() -> dict[str, str]:
    """Versions of all software that the numbers of a run may depend on."""
    names = ("gmm-dask", "numpy", "scipy", "scikit-learn", "dask", "distributed", "pyarrow")
    return {"python": platform.python_version()} | {name: _installed(name) for name in names}


def show_versions() -> None:
    """Print the versions of software that numbers depend on, and the level of the compiled core."""
    for name, version in (software_versions() | {"compiled core": core.level_name()}).items():
        sys.stdout.write(f"{name}: {version}\n")


@cache
def _installed(name: str) -> str:
    """The installed version of a package, cached: each look-up reads the package's metadata."""
    return installed_version(name)
