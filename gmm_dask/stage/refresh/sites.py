"""The step of EM over the rows of several sites, of which only the sums are brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gmm_dask import fitting
from gmm_dask.errors import SettingsError
from gmm_dask.mixture import merge_tree
from gmm_dask.roads.fitting_run import maximisation
from gmm_dask.sections import FitSettings
from gmm_dask.stage.given_model import publish_model
from gmm_dask.stage.identity import software_versions
from gmm_dask.stage.outputs import Published, open_output
from gmm_dask.stage.refresh.partition_sums import total_of
from gmm_dask.storage import KeptStatistics, canonical_json, load_statistics, sha256_hex


def merge(refs: Sequence[str], out: str) -> str:
    """Publish the mixture that a refresh over the rows of all sites would come to; OUT@version.

    Each site refreshes its own output, with `output.follows` naming one and the same version; what
    leaves a site is its `statistics.json`, which holds no row.

    Parameters
    ----------
    refs : sequence of str
        OUT or OUT@7 of each site, all fitted with the same settings of data and fit.
    out : str
        Folder of the versions, or s3://bucket/prefix.

    Raises
    ------
    SettingsError
        A version kept no sums, or sums of another mixture, features or settings than the first, or
        the same partitions as another.
    OutputError
        A version is not there or damaged, or the folder cannot be written.
    """
    sites = [open_output(ref) for ref in refs]
    kept = [_sums_of(ref, site) for ref, site in zip(refs, sites, strict=True)]
    first = kept[0], sites[0].model.settings_hash
    for ref, each, site in zip(refs, kept, sites, strict=True):
        _check(ref, refs[0], (each, site.model.settings_hash), first)
    _check_once(refs, kept)
    settings = sites[0].folder.get_json("run.json")["settings"]
    fit = FitSettings.model_validate(settings["fit"])
    step = _step(kept, fit)
    tree, versions = merge_tree(step.parameters), software_versions()
    model = replace(
        sites[0].model,
        parameters=step.parameters,
        converged=False,
        outcome=str(fitting.Outcome.REFRESHED),
        n_passes=len(step.lower_bounds),
        lower_bounds=step.lower_bounds,
        n_rows=step.n_rows,
        sum_weight=step.sum_weight,
        data_fingerprint=sha256_hex(canonical_json([s.model.data_fingerprint for s in sites])),
        created_by={name: versions[name] for name in ("gmm-dask", "numpy")},
        clusters=tuple(tree.clusters(fit.n_clusters).tolist()),
        merge_tree=tree,
    )
    origin = f"merged from the sums of {len(refs)} sites"
    return publish_model(model, out, fit, settings["data"]["missing"], origin)


def _check_once(refs: Sequence[str], kept: Sequence[KeptStatistics]) -> None:
    """Raise SettingsError where the rows of two sites are the same, and would count twice."""
    seen: dict[frozenset[str], str] = {}
    for ref, each in zip(refs, kept, strict=True):
        contents = frozenset(file.sha256 for file in each.files)
        if contents in seen:
            raise SettingsError(
                f"{ref} has the sums of the same partitions as {seen[contents]}: their rows would "
                "count twice. Name each site once."
            )
        seen[contents] = ref


def _sums_of(ref: str, site: Published) -> KeptStatistics:
    found = load_statistics(site.folder)
    if found is None:
        raise SettingsError(f"{ref} kept no sums of its partitions: publish it by a refresh.")
    return found


def _check(
    ref: str, other: str, found: tuple[KeptStatistics, str], first: tuple[KeptStatistics, str]
) -> None:
    """Raise SettingsError unless both have sums of the same things."""
    (mine, settings_hash), (theirs, other_hash) = found, first
    if (mine.of_model, mine.cut.features) != (theirs.of_model, theirs.cut.features):
        raise SettingsError(
            f"{ref} has sums of another mixture than {other}. Let all sites refresh with "
            "output.follows naming the same version, without refresh.polish."
        )
    if settings_hash != other_hash:
        raise SettingsError(
            f"{ref} was fitted with other settings of data or fit than {other}: give all sites the "
            "same."
        )


def _step(kept: Sequence[KeptStatistics], fit: FitSettings) -> fitting.FitResult:
    first, total = kept[0], total_of([sums for each in kept for sums in each.sums])
    features = first.cut.features
    guard = maximisation(fit, total.spread, np.empty((0, len(features))), features)
    statistics = total.in_unit(guard.unit).statistics
    step = fitting.fit(lambda _: statistics, first.parameters, guard, tol=fit.tol, max_iter=1)
    return replace(step, outcome=fitting.Outcome.REFRESHED)
