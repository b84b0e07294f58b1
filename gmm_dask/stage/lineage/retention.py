"""What `gc` removes: runs that nobody needs any more, old labels, and checkpoints.

First an entry of the log says which runs are to go, then their files go. Whoever publishes a run
or points an alias to it appends to the same log, and so sees that entry, or is seen by it. The
identity of a run that went is never used again, so that a `gc` that was stopped, or is slow, can
be done again at any time and removes nothing of anybody's.

A run under way is one that no version points to, and whose last attempt began less than
`abandoned_days` ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gmm_dask.errors import OutputError
from gmm_dask.stage.identity import attempt, note_attempt
from gmm_dask.stage.lineage.following import noted
from gmm_dask.storage import (
    Clock,
    Garbage,
    Registry,
    RunFolder,
    Store,
    Version,
    append,
    find_garbage,
    is_run_id,
    latest,
    list_versions,
    remove_garbage,
    utc_now,
)

DAYS = 7.0  # after which a run that was not published is given up


@dataclass(frozen=True)
class Policy:
    """What is kept.

    Parameters
    ----------
    runs : int or None
        The latest so many runs; None keeps all.
    labels : int or None
        Number of the latest kept versions whose labels are kept; None keeps the labels of all.
    abandoned_days : float or None
        Runs whose last attempt began longer ago, and that were never published, go; None keeps all.
    """

    runs: int | None = None
    labels: int | None = None
    abandoned_days: float | None = None


@dataclass(frozen=True)
class Collected:
    """What `gc` removed, or would remove.

    Parameters
    ----------
    runs, labels : tuple of str
        Runs that went, and runs whose labels went.
    garbage : Garbage
        Names and size of all files.
    """

    runs: tuple[str, ...]
    labels: tuple[str, ...]
    garbage: Garbage


def collect(
    store: Store, policy: Policy, *, dry_run: bool = False, now: Clock = utc_now
) -> Collected:
    """Remove what the policy does not keep and nobody needs; doing it again is safe.

    Kept are, whatever the policy says, the latest version, those that aliases point to, runs under
    way, and the versions that these follow.

    Raises
    ------
    OutputError
        There is no output, or a version is damaged: whether its run is to be made again is not
        known.
    """
    checkpoints = find_garbage(store)
    before = latest(store)
    if before is None and not any(store.list("runs/")):
        raise OutputError(f"{store.url} holds no run and no version. Give the folder of an output.")
    if before is None:
        return Collected((), (), checkpoints)
    if dry_run:
        registry = _registry(store, policy, before, now, note=False)
    else:
        registry = append(store, _entry(store, policy, now)).registry
    files = [*_files(store, registry), *checkpoints.names]
    garbage = Garbage(tuple(dict.fromkeys(files)), sum(map(store.size, dict.fromkeys(files))))
    if not dry_run:
        remove_garbage(store, garbage)
    known = before.registry
    return Collected(
        tuple(each for each in registry.retired if each not in known.retired),
        tuple(each for each in registry.unlabelled if each not in known.unlabelled),
        garbage,
    )


def _entry(
    store: Store, policy: Policy, now: Clock
) -> Callable[[Version | None, int], Version | None]:
    def entry(newest: Version | None, number: int) -> Version | None:
        if newest is None:
            raise OutputError(f"{store.url} holds no published version any more.")
        registry = _registry(store, policy, newest, now, note=True)
        if registry == newest.registry:
            return None
        return replace(newest, number=number, published=now(), registry=registry)

    return entry


def _registry(store: Store, policy: Policy, newest: Version, now: Clock, *, note: bool) -> Registry:
    """The registry of the newest entry, with what is to go."""
    known, versions = newest.registry, list_versions(store)
    run_of = {version.number: version.run_id for version in versions}
    names = _by_run(store)
    published = [
        each
        for each in dict.fromkeys(run_of[n] for n in sorted(run_of, reverse=True))
        if each not in known.retired
    ]
    unfinished = [each for each in names if each not in {*published, *known.retired}]
    given_up = _given_up(store, unfinished, policy, now, note=note)
    needed = {newest.run_id, *(run_of[number] for number in known.aliases.values())}
    needed |= _followed(store, [each for each in unfinished if each not in given_up])
    runs = _foremost(published, policy.runs) | needed
    labelled = _foremost(published, policy.labels) | needed
    unlabelled = (
        each
        for each in published
        if each in runs and each not in (*labelled, *known.unlabelled)
        if any(name.startswith("labels/") for name in names.get(each, ()))
    )
    return replace(
        known,
        retired=(*known.retired, *(each for each in published if each not in runs), *given_up),
        unlabelled=(*known.unlabelled, *unlabelled),
    )


def _foremost(runs: Sequence[str], at_most: int | None) -> set[str]:
    return set(runs if at_most is None else runs[:at_most])


def _by_run(store: Store) -> dict[str, list[str]]:
    """The names in the folder of each run."""
    found: dict[str, list[str]] = {}
    for name in store.list("runs/"):
        _, run_id, rest = name.split("/", 2) if name.count("/") > 1 else ("", "", "")
        if is_run_id(run_id):
            found.setdefault(run_id, []).append(rest)
    return found


def _given_up(
    store: Store, unfinished: Sequence[str], policy: Policy, now: Clock, *, note: bool
) -> list[str]:
    """The runs that are not under way any more.

    Runs of older software do not say when they were begun: it is noted that they were seen now.
    """
    if policy.abandoned_days is None:
        return []
    limit, found = 86400 * policy.abandoned_days, []
    for run_id in unfinished:
        folder = RunFolder(store, run_id)
        began = attempt(folder)
        if began is None:
            if note:
                note_attempt(folder, now)
        elif _seconds(began, now()) > limit:
            found.append(run_id)
    return found


def _seconds(began: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(began)).total_seconds()


def _followed(store: Store, under_way: Sequence[str]) -> set[str]:
    """The runs of this output that runs under way follow."""
    folders = (RunFolder(store, run_id) for run_id in under_way)
    found = (noted(folder) for folder in folders if folder.exists("run.json"))
    return {each.run_id for each in found if each is not None and each.output is None}


def _files(store: Store, registry: Registry) -> Iterator[str]:
    """The files of runs that went, and those of labels that did."""
    retired, unlabelled = set(registry.retired), set(registry.unlabelled)
    for run_id, names in _by_run(store).items():
        for name in names:
            is_of_labels = name.startswith(("labels/", "receipts/"))
            if run_id in retired or (run_id in unlabelled and is_of_labels):
                yield f"runs/{run_id}/{name}"
