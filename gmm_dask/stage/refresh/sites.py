"""The step of EM over the rows of several sites, of which only the sums are brought together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gmm_dask import fitting
from gmm_dask.errors import SettingsError
from gmm_dask.mixture import Parameters
from gmm_dask.roads.fitting_run import maximisation
from gmm_dask.sections import FitSettings
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.refresh.partition_sums import total_of
from gmm_dask.storage import load_statistics


def merged(refs: Sequence[str], fit: FitSettings) -> Parameters:
    """The mixture that a refresh over the rows of all sites would come to, from their sums.

    Each site refreshes its own output, with `output.follows` naming one and the same version; what
    leaves a site is its `statistics.json`, which holds no row.

    Parameters
    ----------
    refs : sequence of str
        OUT or OUT@7 of each site.
    fit : FitSettings
        Those of the fit.

    Raises
    ------
    SettingsError
        A version kept no sums, or sums of another mixture or of other features than the first.
    """
    kept = []
    for ref in refs:
        found = load_statistics(open_output(ref).folder)
        if found is None:
            raise SettingsError(f"{ref} kept no sums of its partitions: publish it by a refresh.")
        kept.append(found)
        first = kept[0]
        if (found.of_model, found.cut.features) != (first.of_model, first.cut.features):
            raise SettingsError(
                f"{ref} has sums of another mixture than {refs[0]}. Let all sites refresh with "
                "output.follows naming the same version, without refresh.polish."
            )
    first, total = kept[0], total_of([sums for each in kept for sums in each.sums])
    features = first.cut.features
    guard = maximisation(fit, total.spread, np.empty((0, len(features))), features)
    statistics = total.in_unit(guard.unit).statistics
    step = fitting.fit(lambda _: statistics, first.parameters, guard, tol=fit.tol, max_iter=1)
    return step.parameters
