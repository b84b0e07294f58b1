"""The model to label with, and what its version tells beside it."""

from __future__ import annotations

from typing import NamedTuple

from gmm_dask.stage.labels.severity import Severities, needed
from gmm_dask.stage.lineage.changes import Descent, first_descents
from gmm_dask.stage.outputs import open_model, read_model, resolve
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.storage import Model, read_manifest


class Scorer(NamedTuple):
    """A model, all of one version; of a run that fits one nothing is known yet.

    Parameters
    ----------
    model : Model or None
    descents : tuple of Descent
        Where its components come from.
    severities : Severities or None
        Of its training data; None where its version does not tell them.
    """

    model: Model | None = None
    descents: tuple[Descent, ...] = ()
    severities: Severities | None = None


def scorer_of(settings: Settings | ScoreSettings) -> Scorer:
    """The model that the settings name.

    Raises
    ------
    OutputError, ModelFileError
        There is no such model, or it is damaged.
    SettingsError
        Severity is asked for, and nobody knows how dense the training data are.
    """
    if isinstance(settings, Settings):
        return Scorer()
    if settings.model.endswith(".json"):
        model = read_model(settings.model)
        found = Scorer(model, first_descents(model))
    else:
        folder, version = resolve(settings.model)
        model, changes = open_model(folder, version)
        manifest = read_manifest(folder.store, version)
        metrics = folder.get_verified_json("metrics.json", manifest)
        severities = Severities.noted(metrics, folder.path("metrics.json"))
        found = Scorer(model, changes.components, severities)
    if settings.labels.enabled and "severity" in settings.labels.further:
        needed(found.severities, settings.model)
    return found
