"""Names of components and aliases of versions: entries of the log that change nothing else.

An alias points to a version that is whole, always: it is set by an entry that is made of the newest
one, which says what was removed, and `gc` removes nothing that an alias points to.

A run moves the alias that its settings name if it meets their limits. A limit that is set and
cannot be measured is not met: nobody would know that it was not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from gmm_dask.errors import NotPromotedError, OutputError, SettingsError, shown
from gmm_dask.redaction import secret_problem
from gmm_dask.stage.outputs import Published, load_published, open_model, resolve
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.storage import (
    FLAG,
    NUMBER,
    At,
    Clock,
    Registry,
    RunFolder,
    Store,
    Version,
    append,
    is_alias,
    latest,
    open_store,
    optional,
    parse_ref,
    part,
    read_version,
    shape,
    utc_now,
    verify,
    version_numbers,
)

MAX_NAME = 100  # characters of a component's name
_OUTPUT = part(settings=part(output=part(private=FLAG)))  # of run.json
_LIMITS = shape(
    {},
    {
        "log_likelihood_loss": optional(NUMBER),
        "movers": optional(NUMBER),
        "drift": optional(NUMBER),
    },
    strict=False,
)
_PROMOTION = part(settings=shape({}, {"promotion": _LIMITS}, strict=False))  # of run.json
_WORDS = {
    "log_likelihood_loss": "the loss of log-likelihood per row",
    "movers": "the share of rows that have another component",
    "drift": "the drift of the shares of components (PSI)",
}
_FOLLOW = (
    "have the run follow that version (output.follows) and count (labels.compare), or promote "
    "with --unchecked."
)
_REMEDY = {
    "log_likelihood_loss": _FOLLOW,
    "movers": _FOLLOW,
    "drift": "it is of a refresh (`gmm-dask refresh`); or promote with --unchecked.",
}


def as_its_run(folder: RunFolder) -> Store:
    """The store of a run, in which new files are as private as those of the run."""
    about, path = folder.get_json("run.json"), folder.path("run.json")
    output = _OUTPUT.load(about, At(path))["settings"]["output"]
    return open_store(folder.store.url, private=output["private"])


def name_component(ref: str, component: int, name: str, now: Clock = utc_now) -> Version:
    """Name a component of a version; the name goes along to the versions that follow.

    Parameters
    ----------
    ref : str
        OUT, OUT@7 or OUT@champion.
    component : int
    name : str
        Empty to take a name away.

    Raises
    ------
    SettingsError
        There is no such component, another one of the version has that name, or it is a secret.
    OutputError
        There is no such version, or the entry cannot be written.
    """
    folder, version = resolve(ref)
    if len(name) > MAX_NAME or shown(name) != name or name != name.strip():
        raise SettingsError(
            f"A name is one line of at most {MAX_NAME} characters, without spaces around it."
        )
    if problem := secret_problem(name):
        raise SettingsError(f"That cannot be the name of a component: {problem}. Choose another.")
    _, changes = open_model(folder, version)
    if not 0 <= component < len(changes.components):
        raise SettingsError(
            f"{ref} has no component {component}: its components are 0 to "
            f"{len(changes.components) - 1}."
        )
    identities = [each.identity for each in changes.components]

    def named(registry: Registry) -> Registry:
        known = {
            one: registry.names.get(one, each.name or "")
            for one, each in zip(identities, changes.components, strict=True)
        }
        mine = identities[component]
        taken = [identities.index(one) for one in known if one != mine and known[one] == name]
        if name and taken:
            raise SettingsError(f"Component {taken[0]} of {ref} is called {name!r} already.")
        return replace(registry, names={**registry.names, mine: name})

    return _changed(as_its_run(folder), named, now)


def promote_as(
    folder: RunFolder,
    version: Version,
    alias: str,
    *,
    unchecked: bool = False,
    now: Clock = utc_now,
) -> tuple[str, ...]:
    """Have an alias point to a version, if it is whole and meets the criteria of its settings.

    Parameters
    ----------
    folder : RunFolder
    version : Version
    alias : str
        The alias, such as `champion`.
    unchecked : bool
        Whether the criteria are passed over; the version must be whole all the same.

    Returns
    -------
    What was measured of each criterion.

    Raises
    ------
    SettingsError
        The word can be no alias, or is a secret.
    NotPromotedError
        A criterion is not met; each is named.
    OutputError
        The version is damaged, or was removed.
    """
    _check_alias(alias)
    store, there = folder.store, f"Version {version.number} of {folder.store.url}"
    problems = verify(store, version)
    if problems:
        raise OutputError(f"{there} is damaged and not promoted: {problems[0]}", *problems[1:])
    champion = _pointed_to(store, alias)
    said: tuple[str, ...] = ()
    if champion is not None and champion.run_id != version.run_id and not unchecked:
        said, failed = judged(folder, version, champion)
        if failed:
            raise NotPromotedError(
                f"{there} is not promoted; {alias} stays version {champion.number}: {failed[0]}",
                *failed[1:],
            )
    before = None if champion is None else champion.number
    _changed(as_its_run(folder), lambda known: _pointed(known, there, version, alias, before), now)
    return said


def _pointed(
    registry: Registry, there: str, version: Version, alias: str, before: int | None
) -> Registry:
    """The registry with the alias at the version; raises OutputError where that may not be.

    That somebody moved the alias meanwhile is no failure of the run that was to have it.
    """
    if version.run_id in registry.gone:
        raise OutputError(
            f"{there}, or its labels, were removed, as `gmm-dask gc` was told to. Run its "
            "settings again, and promote that version."
        )
    if registry.aliases.get(alias) not in (before, version.number):
        raise NotPromotedError(
            f"{there} is not promoted: {alias} was moved meanwhile, to version "
            f"{registry.aliases.get(alias)}. Look at it, and promote again."
        )
    return replace(registry, aliases={**registry.aliases, alias: version.number})


def promote_if_asked(
    settings: Settings | ScoreSettings, published: Published, now: Clock = utc_now
) -> str | None:
    """Give the alias of the settings to what a run published, if it meets the criteria.

    Returns
    -------
    What came of it, in a sentence; None where no alias is asked for.
    """
    alias = settings.promotion.alias if isinstance(settings, Settings) else None
    if alias is None:
        return None
    try:
        said = promote_as(published.folder, published.version, alias, now=now)
    except NotPromotedError as error:
        return str(error)
    return " ".join((f"{alias} is version {published.version.number}.", *said))


def promote_back(url: str, alias: str, now: Clock = utc_now) -> Version:
    """Have an alias point again to the version that it had before, as the log tells.

    Returns
    -------
    That version.

    Raises
    ------
    OutputError
        The alias never pointed to another version that is still there and whole.
    """
    _check_alias(alias)
    store = open_store(parse_ref(url)[0])
    now_at, found = _pointed_to(store, alias), None
    if now_at is None:
        raise OutputError(f"{store.url} has no alias {alias!r}.")
    gone = (latest(store) or now_at).registry.gone
    for number in reversed(version_numbers(store)):
        before = read_version(store, number).registry.aliases.get(alias)
        if before in (None, now_at.number):
            continue
        version = read_version(store, before)
        if version.run_id not in gone and version.run_id != now_at.run_id:
            found = version
            break
    if found is None:
        raise OutputError(
            f"{store.url}: {alias} never pointed to another version that is still there."
        )
    promote_as(RunFolder(store, found.run_id), found, alias, unchecked=True, now=now)
    return found


def _check_alias(alias: str) -> None:
    if not is_alias(alias):
        raise SettingsError(
            f"{alias!r} can be no alias: a letter, then letters, digits, _ and -; not `latest` "
            "or `none`."
        )
    if problem := secret_problem(alias):
        raise SettingsError(f"That can be no alias: {problem}. Choose another.")


def _pointed_to(store: Store, alias: str) -> Version | None:
    newest = latest(store)
    number = None if newest is None else newest.registry.aliases.get(alias)
    return None if number is None else read_version(store, number)


def _changed(store: Store, change: Callable[[Registry], Registry], now: Clock) -> Version:
    """Append an entry whose registry is changed; its run is the latest, as before."""

    def entry(newest: Version | None, number: int) -> Version | None:
        if newest is None:
            raise OutputError(f"{store.url} holds no published version.")
        registry = change(newest.registry)
        if registry == newest.registry:
            return None
        return replace(newest, number=number, published=now(), registry=registry)

    return append(store, entry)


def judged(
    folder: RunFolder, version: Version, champion: Version
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was measured of each criterion, and which of them are not met, in sentences.

    Parameters
    ----------
    folder : RunFolder
        Folder of the version that is to be promoted; its run.json has the limits.
    version, champion : Version
        The one that is to be promoted, and the one that has the alias.

    Raises
    ------
    OutputError
        One of the versions is damaged.
    """
    about = _PROMOTION.load(folder.get_json("run.json"), At(folder.path("run.json")))
    limits: Mapping[str, float | None] = about["settings"].get("promotion") or {}
    candidate = load_published(folder, version, new=False)
    found = tuple(_judged(candidate, champion, limits))
    return tuple(said for said, _ in found), tuple(said for said, is_met in found if not is_met)


def _judged(
    candidate: Published, champion: Version, limits: Mapping[str, float | None]
) -> Iterator[tuple[str, bool]]:
    changes, metrics = candidate.changes, candidate.metrics
    followed = None if changes is None else changes.follows
    against = followed is not None and followed.run_id == champion.run_id
    before = metrics.get("before") or {}
    measured: dict[str, Any] = {}
    if against and before.get("log_likelihood_per_row") is not None:
        loss = before["log_likelihood_per_row"] - metrics["log_likelihood_per_row"]
        measured["log_likelihood_loss"] = loss
    if against and before.get("movers") is not None:
        measured["movers"] = before["movers"]
    measured["drift"] = ((metrics.get("refresh") or {}).get("drift") or {}).get("psi")
    for name, what in _WORDS.items():
        limit, value = limits.get(name), measured.get(name)
        if limit is None:
            continue
        if value is None:
            yield (
                f"promotion.{name} is {limit:g}, and {what} was not measured against version "
                f"{champion.number}: {_REMEDY[name]}",
                False,
            )
        else:
            is_met = value <= limit
            verdict = "within" if is_met else "beyond"
            yield f"{what} is {value:.4g}, {verdict} the limit of {limit:g}.", is_met
