"""A mixture as a run and a model of MLflow; needs gmm-dask[mlflow]."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gmm_dask.errors import OutputError, SettingsError
from gmm_dask.redaction import redacted
from gmm_dask.storage import Model, dump_model

MEASURES = ("log_likelihood_per_row", "log_likelihood", "bic", "aic", "icl")
MODEL, PARAMETERS = "model.json", "parameters.json"


@dataclass(frozen=True, eq=False)
class Logged:
    """What a run of MLflow is made of.

    Parameters
    ----------
    model : Model
    parameters : mapping
        Parameters of the estimator that are logged; `missing` is stored with the model as well.
    metrics : mapping
        The content of metrics.json; empty where there is none.
    files : mapping of str to bytes
        Artifacts beside the model.
    tags : mapping
    """

    model: Model
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)


def to_mlflow(logged: Logged, name: str, loader: str) -> str:
    """Log a mixture in the active run, or in one of its own; the URI of the model.

    Parameters
    ----------
    logged : Logged
    name : str
        Name of the model within the MLflow run.
    loader : str
        The module whose `_load_pyfunc` reads the model again.

    Raises
    ------
    SettingsError
        The package mlflow is not installed.
    OutputError
        It does not answer, or takes no run.
    """
    mlflow, model = _mlflow(), logged.model
    found = {each: logged.metrics.get(each) for each in MEASURES}
    found |= {"n_rows": model.n_rows, "n_passes": model.n_passes}
    given = {name: str(each)[:500] for name, each in logged.parameters.items() if each is not None}
    with _run(mlflow), TemporaryDirectory() as folder:
        mlflow.log_params(given)
        mlflow.log_metrics({name: float(each) for name, each in found.items() if each is not None})
        mlflow.set_tags({f"gmm_dask.{name}": each for name, each in logged.tags.items()})
        for step, bound in enumerate(model.lower_bounds, 1):
            mlflow.log_metric("lower_bound", bound, step=step)
        for name_of_file, content in logged.files.items():
            path = Path(folder, name_of_file)
            path.write_bytes(content)
            mlflow.log_artifact(str(path))
        data = Path(folder, "mixture")
        data.mkdir()
        (data / MODEL).write_bytes(dump_model(model))
        missing = {"missing": logged.parameters.get("missing", "error")}
        (data / PARAMETERS).write_text(json.dumps(missing))
        with warnings.catch_warnings(action="ignore"):  # it would like an example of rows
            made = mlflow.pyfunc.log_model(
                name=name,
                loader_module=loader,
                data_path=str(data),
                signature=_signature(model),
                pip_requirements=[f"gmm-dask=={version('gmm-dask')}"],
            )
    return str(made.model_uri)


def _mlflow() -> Any:
    """The library, which sends no usage data unless somebody asks for it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        with warnings.catch_warnings(action="ignore"):  # of its own types, as it is imported
            import mlflow.pyfunc
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed: pip install 'gmm-dask[mlflow]'."
        ) from None
    return mlflow


@contextmanager
def _run(mlflow: Any) -> Iterator[None]:
    """The run that is active, or one of its own; OutputError where MLflow takes nothing."""
    try:
        if mlflow.active_run() is not None:
            yield
            return
        with mlflow.start_run():
            yield
    except mlflow.exceptions.MlflowException as error:
        where, said = redacted(mlflow.get_tracking_uri()), str(error).rstrip(".")
        raise OutputError(
            f"MLflow at {where} failed: {said}. See that it runs, and MLFLOW_TRACKING_URI."
        ) from error


def _signature(model: Model) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    shares = [ColSpec("double", f"p{j}") for j in range(model.parameters.n_components)]
    given: list[Any] = [ColSpec("double", each) for each in model.feature_names]
    found: list[Any] = [ColSpec("long", "label"), ColSpec("double", "log_density"), *shares]
    return ModelSignature(inputs=Schema(given), outputs=Schema(found))
