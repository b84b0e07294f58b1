"""A published mixture as a fitted estimator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmm_dask import fitting
from gmm_dask.estimator.gaussian_mixture import GaussianMixture
from gmm_dask.estimator.hand_over import UNNAMED
from gmm_dask.mixture import Cause, MergeTree, Parameters
from gmm_dask.storage import Model

WIDTH = 100  # characters of a line that is printed


class PublishedMixture(GaussianMixture):
    """A mixture as `load_model` gives it: fitted, with the facts of its version.

    The facts are gone once the mixture is fitted anew.

    Attributes
    ----------
    source : str
        What was loaded.
    version : int or None
        None for a model.json.
    run_id : str or None
    published : str or None
        When the version was made: UTC, ISO 8601.
    log_likelihood : float or None
        Log-likelihood of all rows of the run together; None where nobody measured it.
    metrics : dict
        The content of metrics.json; empty for a model.json.
    parameters : Parameters
        The mixture as one record of arrays.
    feature_names, feature_types : tuple of str
    converged : bool
    outcome : str
    n_passes, n_rows : int
        Passes of the fit, and rows that it used.
    lower_bounds : tuple of float
    sum_weight : float
    data_fingerprint, settings_hash : str
    created_by : dict of str
        Versions of the software.
    clusters : tuple of int or None
    merge_tree : MergeTree or None
    sha256 : str
        Checksum of the model file.
    """

    source: str
    version: int | None
    run_id: str | None
    published: str | None
    log_likelihood: float | None
    metrics: Mapping[str, Any]
    parameters: Parameters
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    converged: bool
    outcome: str
    n_passes: int
    n_rows: int
    lower_bounds: tuple[float, ...]
    sum_weight: float
    data_fingerprint: str
    settings_hash: str
    created_by: dict[str, str]
    clusters: tuple[int, ...] | None
    merge_tree: MergeTree | None
    sha256: str

    @classmethod
    def _of(cls, model: Model, facts: Mapping[str, Any], parameters: dict[str, Any]) -> Any:
        """The estimator of a model record, with the facts of its version."""
        found = cls(**parameters)
        outcome = fitting.Outcome(model.outcome)
        taken_back = int(facts["metrics"].get("n_taken_back", 0))
        result = fitting.FitResult(
            model.parameters, model.lower_bounds, outcome, (model.parameters,),
            model.n_rows, model.sum_weight, n_taken_back=taken_back,
            events_=_events(facts["metrics"]),
        )  # fmt: skip
        found._keep(result)
        found.n_features_in_ = model.parameters.n_features
        if UNNAMED not in model.feature_types:
            found.feature_names_in_ = np.array(model.feature_names, dtype=object)
        known = {k: v for k, v in vars(model).items() if k != "reg_covar"}
        found.__dict__.update(known | dict(facts), sha256=model.sha256, _record=model)
        return found

    def _keep(self, result: fitting.FitResult) -> None:
        for name in (*PublishedMixture.__annotations__, "_record"):
            self.__dict__.pop(name, None)
        super()._keep(result)

    def __str__(self) -> str:
        """Eight lines: which mixture it is, and what can be done with it."""
        if "_record" not in vars(self):
            return str(super().__str__())
        facts = _facts(self)
        width = max(map(len, facts))
        lines = [f"{name:<{width}}  {value}" for name, value in facts.items()]
        return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


class _Source(NamedTuple):
    """What is known beside the model: facts of the version, and the settings of its run."""

    facts: dict[str, Any]
    settings: Mapping[str, Any]


def load_model(ref: str) -> PublishedMixture:
    """The mixture of OUT (the latest version), OUT@7, or of a model.json, as a fitted estimator.

    The parameters of the estimator are those of the run; of a model.json alone, which does not
    tell them, they are those by default: give `set_params(missing="em")` to one that was fitted to
    rows with missing values.

    Raises
    ------
    OutputError, ModelFileError
        There is no such model, or it is damaged.
    """
    from gmm_dask.stage.outputs import open_output, read_model
    from gmm_dask.storage import read_manifest

    ref = str(ref)
    if ref.endswith(".json"):
        unknown = dict.fromkeys(("version", "run_id", "published", "log_likelihood"))
        model, source = read_model(ref), _Source({"source": ref, "metrics": {}} | unknown, {})
    else:
        published = open_output(ref)
        folder, version, model = published.folder, published.version, published.model
        manifest = read_manifest(folder.store, version)
        facts = {
            "source": folder.store.url,
            "version": version.number,
            "run_id": version.run_id,
            "published": version.published,
            "log_likelihood": published.metrics["log_likelihood"],
            "metrics": published.metrics,
        }
        about = folder.get_verified_json("run.json", manifest)
        source = _Source(facts, about.get("settings") or {})
    found: PublishedMixture = PublishedMixture._of(model, source.facts, _parameters(model, source))
    return found


def _events(metrics: Mapping[str, Any]) -> tuple[fitting.Event, ...]:
    """What metrics.json tells of components in trouble, among events of other kinds."""
    causes = {str(each) for each in Cause}
    found = [each for each in metrics.get("events", ()) if each["kind"] in causes]
    return tuple(map(fitting.Event.of_dict, found))


def _parameters(model: Model, source: _Source) -> dict[str, Any]:
    """The parameters of the class: settings of the run that it knows, and those of the model."""
    fit, data = source.settings.get("fit") or {}, source.settings.get("data") or {}
    known = GaussianMixture().get_params()
    found = {name: value for name, value in fit.items() if name in known}
    found |= {"missing": data["missing"]} if "missing" in data else {}
    if model.clusters is not None and "n_clusters" not in found:
        found["n_clusters"] = len(set(model.clusters))
    return found | {
        "n_components": model.parameters.n_components,
        "covariance_type": model.parameters.covariance_type,
        "reg_covar": model.reg_covar,
    }


def _facts(mixture: PublishedMixture) -> dict[str, str]:
    """The eight lines by their names."""
    from gmm_dask.stage import text
    from gmm_dask.stage.summary import Ending, measures

    record: Model = vars(mixture)["_record"]
    metrics, parameters = mixture.metrics, record.parameters
    where, published = mixture.source, "not published: a file alone"
    if mixture.version is not None:
        where = f"{where}, version {mixture.version}"
        published = f"{text.moment(mixture.published)}, run {mixture.run_id}"
    if metrics:
        (measure, value), *_ = measures(metrics).items()
    else:
        measure, bounds = "log-likelihood", record.lower_bounds
        value = f"{text.per_row(bounds[-1])} per row in the last pass" if bounds else "unknown"
    ending = Ending.of(record, metrics)
    shares = ", ".join(map(text.percent, parameters.weights[:12]))
    components = text.numbered(parameters.n_components, "component")
    return {
        "GaussianMixture": where,
        "published": published,
        "fitted to": f"{text.numbered(record.n_rows, 'row')}" if record.n_rows else "unknown rows",
        "features": text.features(record.feature_names, named=None),
        "components": f"{components}, {parameters.covariance_type}: {shares}",
        "fit": f"{ending.outcome.replace('_', ' ')} after {ending.passes}",
        measure: value,
        "methods": "predict, predict_proba, score_samples, reasons, impute, conditional, marginal, "
        "sample, save, publish",
    }


class MlflowScorer:
    """The object to which `mlflow.pyfunc.load_model` hands rows."""

    def __init__(self, mixture: Any) -> None:
        self._mixture = mixture

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> Any:
        """Label, log-density and the probability of each component of each row, a DataFrame.

        Parameters
        ----------
        rows : DataFrame
            With the features as columns, in any order.
        params : dict, optional
            MLflow's; there are none.
        """
        import pandas as pd

        shares = self._mixture.predict_proba(rows)
        columns = {"label": self._mixture.predict(rows)}
        columns |= {"log_density": self._mixture.score_samples(rows)}
        columns |= {f"p{j}": shares[:, j] for j in range(shares.shape[1])}
        return pd.DataFrame(columns, index=rows.index)


def _load_pyfunc(path: str) -> MlflowScorer:
    """Read a model that `to_mlflow` made; MLflow calls this function."""
    from gmm_dask.export.mlflow_model import MODEL, PARAMETERS

    mixture = load_model(str(Path(path, MODEL)))
    return MlflowScorer(mixture.set_params(**json.loads(Path(path, PARAMETERS).read_text())))
