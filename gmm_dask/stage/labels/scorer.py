"""The model to label with, and what its version tells beside it."""

from __future__ import annotations

from typing import NamedTuple

from gmm_dask.stage.labels.severity import N_DRAWN, Severities
from gmm_dask.stage.lineage.changes import Descent, first_descents
from gmm_dask.stage.outputs import open_model, read_model, resolve
from gmm_dask.stage.settings import ScoreSettings, Settings
from gmm_dask.storage import Model, read_manifest

DRAWN = (
    "{} does not tell how dense its training data were: severity compares rows with "
    f"{N_DRAWN:,} that are drawn from the mixture."
)


class Scorer(NamedTuple):
    """A model, all of one version; of a run that fits one nothing is known yet.

    Parameters
    ----------
    model : Model or None
    descents : tuple of Descent
        Where its components come from.
    severities : Severities or None
        Severities of the model's training data; where nobody tells them and they are asked for, of
        rows drawn from the mixture.
    caution : str or None
        Caution that the severities are those of rows drawn from the mixture.
    """

    model: Model | None = None
    descents: tuple[Descent, ...] = ()
    severities: Severities | None = None
    caution: str | None = None


def scorer_of(settings: Settings | ScoreSettings) -> Scorer:
    """The model that the settings name.

    Raises
    ------
    OutputError, ModelFileError
        There is no such model, or it is damaged.
    """
    if isinstance(settings, Settings):
        return Scorer()
    severities = None
    if settings.model.endswith(".json"):
        model = read_model(settings.model)
        descents = first_descents(model)
    else:
        folder, version = resolve(settings.model)
        model, changes = open_model(folder, version)
        manifest = read_manifest(folder.store, version)
        metrics = folder.get_verified_json("metrics.json", manifest)
        severities = Severities.noted(metrics, folder.path("metrics.json"))
        descents = changes.components
    asked = settings.labels.enabled and "severity" in settings.labels.further
    if asked and severities is None:
        drawn = Severities.of_mixture(model.parameters)
        return Scorer(model, descents, drawn, DRAWN.format(settings.model))
    return Scorer(model, descents, severities)
