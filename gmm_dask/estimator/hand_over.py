"""A fitted mixture as a model file and as a published version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmm_dask.errors import DataError
from gmm_dask.estimator.rows.forms import names_of
from gmm_dask.fitting import Outcome
from gmm_dask.redaction import redacted
from gmm_dask.sections import FitSettings

if TYPE_CHECKING:
    from gmm_dask.storage import Model

READER = "gmm_dask.estimator.published"  # the module whose _load_pyfunc MLflow calls
UNNAMED = "unnamed"  # in place of a type: the rows of the fit had no names of columns


class HandOver:
    """Ways to hand a fitted mixture to others: a file, a published version, a model of MLflow."""

    def save(self, path: str | Path) -> None:
        """Write the mixture as a model.json, which `load_model` and `gmm-dask label` take.

        The same mixture gives the same bytes. Features without names are called x0, x1 and so on.

        Raises
        ------
        DataError
            The path does not end with .json.
        ModelFileError
            The mixture is none that could be read again.
        OutputError
            The file cannot be written.
        """
        from gmm_dask.storage import dump_model, open_store

        folder, separator, name = str(path).rpartition("/")
        if not name.endswith(".json"):
            raise DataError(f"{path} is no name of a model file: it must end with .json.")
        open_store(folder or ("/" if separator else ".")).put(name, dump_model(record_of(self)))

    def publish(self, out: str) -> str:
        """Publish the mixture as the latest version of an output folder, without labels.

        Publishing the same mixture again writes nothing where it is the latest version.

        Parameters
        ----------
        out : str
            Folder of the versions, or s3://bucket/prefix.

        Returns
        -------
        The reference OUT@version, as `load_model` and `gmm-dask label --model` take it.

        Raises
        ------
        ModelFileError
            The mixture is none that could be read again.
        SettingsError
            The folder has a name that no output can have.
        OutputError
            The folder cannot be written.
        """
        from gmm_dask.stage.given_model import publish_model

        settings = _fit_settings(self)
        return publish_model(record_of(self), str(out), settings, getattr(self, "missing", "error"))

    def to_mlflow(self, name: str = "model") -> str:
        """Log the mixture as a model of MLflow; needs gmm-dask[mlflow].

        The run that is active gets it, or a run of its own, with parameters, measures, the
        log-likelihood pass by pass, and of a published version its report. What
        `mlflow.pyfunc.load_model` gives has `predict`, which makes a DataFrame of label,
        log_density and the probability of each component.

        Parameters
        ----------
        name : str
            Name of the model within the MLflow run.

        Returns
        -------
        The URI of the model, as `mlflow.pyfunc.load_model` takes it.

        Raises
        ------
        SettingsError
            MLflow is not installed.
        OutputError
            It does not answer, or takes no run.
        """
        from gmm_dask.export.mlflow_model import Logged, to_mlflow

        facts: dict[str, Any] = vars(self)
        about = {"metrics": facts.get("metrics", {})}
        if facts.get("version") is not None:
            about |= _of_version(f"{facts['source']}@{facts['version']}")
        mine: Any = self
        return to_mlflow(Logged(record_of(self), mine.get_params(), **about), name, READER)


def _of_version(ref: str) -> dict[str, Any]:
    """Which version a published mixture is, and what of it is logged beside the model."""
    from gmm_dask.stage.outputs import open_output
    from gmm_dask.storage import read_manifest

    published = open_output(ref)
    manifest = read_manifest(published.folder.store, published.version)
    names = ("model.json", "metrics.json", "report.html")
    files = {name: published.folder.get_verified(name, manifest) for name in names}
    output, number = published.folder.store.url, published.version.number
    tags = {"output": redacted(output), "version": number, "run_id": published.run_id}
    return {"files": files, "tags": tags}


def record_of(mixture: Any) -> Model:
    """The record of a fitted mixture; facts of the fit that are not known are 0 or empty."""
    from gmm_dask.stage.identity import software_versions
    from gmm_dask.storage import Model

    parameters = mixture._recorded()
    names = names_of(mixture)
    types: tuple[str, ...] = ("double",) * parameters.n_features
    if names is None:
        names = tuple(f"x{j}" for j in range(parameters.n_features))
        types = (UNNAMED,) * parameters.n_features
    ended = vars(mixture).get("_ended") or (None, 0, 0.0)
    lower_bounds = tuple(map(float, mixture._bounds_per_row()))
    outcome = Outcome.CONVERGED if mixture.converged_ else Outcome.OUT_OF_ITERATIONS
    versions = software_versions()
    facts: dict[str, Any] = {
        "feature_types": types,
        "data_fingerprint": "",
        "settings_hash": "",
        "created_by": {name: versions[name] for name in ("gmm-dask", "numpy")},
    }
    known: Model | None = vars(mixture).get("_record")
    if known is not None:
        facts |= {name: getattr(known, name) for name in facts}
    return Model(
        parameters=parameters,
        feature_names=names,
        reg_covar=float(mixture.reg_covar),
        converged=outcome is Outcome.CONVERGED,
        outcome=str(ended[0] or outcome),
        n_passes=len(lower_bounds),
        lower_bounds=lower_bounds,
        n_rows=int(ended[1]),
        sum_weight=float(ended[2]),
        clusters=tuple(mixture.clusters_.tolist()),
        merge_tree=mixture.merge_tree_,
        **facts,
    )


def _fit_settings(mixture: Any) -> FitSettings:
    """The parameters of the class as settings of a fit; a seed that is no integer is left out."""
    known = {name: getattr(mixture, name) for name in mixture._settings().model_fields_set}
    seed = mixture.random_state
    known["random_state"] = int(seed) if isinstance(seed, int) else 0
    known["max_iter"] = max(1, mixture.max_iter)
    return FitSettings(**known)
