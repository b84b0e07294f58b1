"""What a refresh goes on from, and which partitions it knows already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from gmm_dask.errors import DataError, SettingsError
from gmm_dask.mixture import Parameters
from gmm_dask.pace import Count
from gmm_dask.stage import text
from gmm_dask.stage.identity import settings_hash
from gmm_dask.stage.job import Job, plan
from gmm_dask.stage.labels.severity import Severities
from gmm_dask.stage.lineage.following import LATEST, NONE, of_alias
from gmm_dask.stage.outputs import load_published, open_output
from gmm_dask.stage.settings import Settings
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage import (
    Cut,
    FileContent,
    KeptStatistics,
    LabelSums,
    Model,
    PartitionSums,
    Plan,
    RunFolder,
    Store,
    Version,
    file_contents,
    latest,
    load_statistics,
    open_store,
    part_of,
    read_contents_of,
)


@dataclass(frozen=True, eq=False)
class Base:
    """A version to go on from, with the sums that it kept.

    Parameters
    ----------
    folder : RunFolder
    version : Version
    model : Model
    kept : KeptStatistics or None
        None where the version was published without: then all partitions are new.
    severities : Severities or None
        Severities of the data that the mixture was fitted to.
    """

    folder: RunFolder
    version: Version
    model: Model
    kept: KeptStatistics | None
    severities: Severities | None = None

    @property
    def parameters(self) -> Parameters:
        """The mixture that all sums are of."""
        return self.model.parameters if self.kept is None else self.kept.parameters

    @property
    def of_version(self) -> int:
        """The version whose mixture that is."""
        known = None if self.kept is None else self.kept.of_version
        return self.version.number if known is None else known

    @property
    def of_run(self) -> str:
        """The run that fitted that mixture."""
        return self.version.run_id if self.kept is None else self.kept.of_run

    @property
    def of_model(self) -> str:
        """The checksum of its model."""
        return self.model.sha256 if self.kept is None else self.kept.of_model


def base_of(store: Store, settings: Settings) -> Base | None:
    """The version that `output.follows` names, or the latest; None where nothing is published.

    Raises
    ------
    SettingsError
        It was fitted with other settings of data or fit, or holds labels alone; or the settings
        ask for variational inference.
    OutputError
        It is damaged.
    """
    if settings.fit.weight_concentration_prior_type is not None:
        raise SettingsError(
            "A refresh makes a step of EM; with fit.weight_concentration_prior_type the mixture is "
            "by variational inference. Fit anew (gmm-dask run)."
        )
    rule, newest = settings.output.follows, latest(store)
    if "@" in rule:
        published = open_output(rule)
    else:
        version = newest if rule in (LATEST, NONE) else of_alias(store, rule)
        if version is None:
            return None
        published = load_published(RunFolder(store, version.run_id), version, new=False)
    version, model, metrics = published.version, published.model, published.metrics
    is_ours = model.settings_hash == settings_hash(settings)
    if metrics["model_from"] is not None or not is_ours:
        raise SettingsError(
            f"Version {version.number} of {store.url} was not fitted with these settings of data "
            "and fit, so its sums say nothing of what they ask for. Fit anew (gmm-dask run), and "
            "refresh from then on; or give the refresh an output.path of its own."
        )
    severities = Severities.noted(metrics, published.folder.path("metrics.json"))
    return Base(published.folder, version, model, load_statistics(published.folder), severities)


@dataclass(frozen=True, eq=False)
class Matched:
    """The partitions of a plan: those that are known, and those to be read.

    Parameters
    ----------
    files : tuple of FileContent
        All, in the order of the plan; those without rows among them.
    known : tuple of PartitionSums or None
        For each of them that has rows the sums that are known.
    to_read : tuple of int
        Partitions of the plan that have none.
    n_gone : int
        Known partitions that are not there any more.
    n_changed : int
        Number of partitions to be read whose names were known before, with other contents.
    """

    files: tuple[FileContent, ...]
    known: tuple[PartitionSums | None, ...]
    to_read: tuple[int, ...]
    n_gone: int
    n_changed: int

    def joined(self, read: Sequence[PartitionSums]) -> tuple[PartitionSums, ...]:
        """The sums of all partitions in order: those that are known, and those that were read."""
        fresh = iter(read)
        return tuple(next(fresh) if each is None else each for each in self.known)


def matched(job: Job[Any], base: Base, tell: Count | None = None) -> Matched:
    """Tell known partitions by their state, and where that has changed by their content.

    A file in the state that was noted is not read. The pages of any other are hashed, and where
    sums of the same pages are known, under whatever name, they are taken.
    """
    plan, kept = job.plan, base.kept
    with_rows = [each.index for each in plan.partitions if each.n_rows]
    usable = kept is not None and kept.cut == cut_of(job)
    noted = dict(zip(kept.files, kept.sums, strict=True)) if kept is not None and usable else {}
    by_name = {each.name: each for each in noted}
    same = {
        i: by_name[plan.partitions[i].name]
        for i in with_rows
        if plan.partitions[i].name in by_name
        and by_name[plan.partitions[i].name].is_state_of(plan.partitions[i])
    }
    others = [i for i in with_rows if i not in same]
    hashed: tuple[FileContent, ...] = ()
    if others:
        hashed = read_contents_of(part_of(plan, others), job.read_columns, tell=tell)
    by_content = {each.sha256: sums for each, sums in noted.items()}
    content = {i: each.sha256 for i, each in same.items()} | {
        i: each.sha256 for i, each in zip(others, hashed, strict=True)
    }
    known = tuple(noted[same[i]] if i in same else by_content.get(content[i]) for i in with_rows)
    to_read = tuple(i for i, sums in zip(with_rows, known, strict=True) if sums is None)
    there, now = set(content.values()), {plan.partitions[i].name for i in to_read}
    bare = file_contents(plan, [""] * len(plan.chunks))
    return Matched(
        tuple(replace(each, sha256=content.get(i, each.sha256)) for i, each in enumerate(bare)),
        known,
        to_read,
        sum(each.sha256 not in there for each in noted),
        len(now & by_name.keys()),
    )


def check_enough(job: Job[Any], found: LabelSums, n_components: int) -> None:
    """Raise DataError where what is left is too little for the mixture, as a fit of it would."""
    n_used = found.n_rows - found.n_dropped
    if n_used >= n_components and found.sum_weight > 0:
        return
    raise DataError(
        f"{job.plan.root}: {text.numbered(n_used, 'usable row')} of weight "
        f"{found.sum_weight:g} in all are too few to go on with {n_components} components. Check "
        "whether partitions are lost, or fit anew with fewer components."
    )


def cut_of(job: Job[Any]) -> Cut:
    """How the rows of a job are read."""
    plan: Plan = job.plan
    missing = job.settings.data.missing
    return Cut(plan.features, plan.dtype, plan.chunk_rows, missing, plan.weight_column)


class Known(NamedTuple):
    """What a refresh goes on from.

    Parameters
    ----------
    base : Base
    matched : Matched
    """

    base: Base
    matched: Matched


class Refresh(NamedTuple):
    """A refresh before any row was read.

    Parameters
    ----------
    job : Job
        The run; `published` is the version that a refresh would only repeat, where there is one.
    known : Known or None
        None where nothing was published yet, or where nothing is to be done.
    """

    job: Job[Settings]
    known: Known | None


def begin(settings: Settings, watcher: Watcher | None = None) -> Refresh:
    """Plan a refresh: footers, the version to go on from, and what of the data it knows.

    Raises
    ------
    As `plan`, and SettingsError where the latest version was fitted with other settings.
    """
    tell = (watcher or Watcher()).progress
    tell("opening the latest version", 0)
    store = open_store(settings.output.path, private=settings.output.private)
    base = base_of(store, settings)
    if base is None:
        return Refresh(plan(settings, watcher), None)
    polish = settings.refresh.polish
    job = plan(settings, watcher, {"refresh": {"of": base.of_model, "polish": polish}})
    if job.published is not None:
        return Refresh(job, None)
    found = matched(job, base, partial(tell, "hashing files"))
    ours = base.folder.store.url == store.url
    if ours and _is_up_to_date(base, found) and _labels(base.folder) == _labels(job.folder):
        return Refresh(replace(job, published=base.version, folder=base.folder), None)
    return Refresh(job, Known(base, found))


def _is_up_to_date(base: Base, found: Matched) -> bool:
    kept = () if base.kept is None else base.kept.files
    return not found.to_read and not found.n_gone and len(found.known) == len(kept)


def _labels(folder: RunFolder) -> Any:
    return folder.get_json("run.json")["settings"]["labels"]
