"""The model of record: canonical JSON with a checksum; no field can name code.

A plain reader needs no more than `json.load` and `numpy.array`: arrays are nested lists, and every
float is written so that it comes back bit for bit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from gmm_dask.errors import ModelFileError, OutputError
from gmm_dask.mixture import COVARIANCE_FAMILIES, Parameters
from gmm_dask.storage.input.columns.arrays import to_arrow, to_arrow_lists
from gmm_dask.storage.records.documents import (
    canonical_json,
    check_format,
    check_keys,
    parse_json,
    sha256_hex,
)
from gmm_dask.storage.records.fields import Fields
from gmm_dask.storage.records.parquet_tables import parquet_bytes

FORMAT = "gmm_dask.model"
FORMAT_VERSION = 1
MODEL_KEY = "model_sha256"  # what a file that is made with a model calls its checksum
MAX_BYTES = 256 << 20  # of a file; a larger one is refused unread, and planned by nobody
MAX_MARKS = 1 << 20  # brackets, colons, quotes: small in a file, large once they are objects
NUMBER_BYTES = 25  # of a float64 and its comma, at most
REST_BYTES, REST_MARKS = 1 << 14, 1 << 10  # of all fields but arrays, names and types, at most
WEIGHTS_SLACK = 1e-8  # of the sum of the weights about one

_ARRAYS = ("weights", "means", "covariances", "precisions_cholesky")


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted mixture with what is needed to score rows and to know where it came from.

    Parameters
    ----------
    parameters : Parameters
    feature_names, feature_types : tuple of str
        Columns in the order of the means, and their Arrow types.
    reg_covar : float
        Added to every variance in each M-step, in squared units of the data.
    converged : bool
    outcome : str
        How the fit ended.
    n_passes : int
    lower_bounds : tuple of float
        Mean log-likelihood per row, pass by pass.
    n_rows : int
        Rows the fit used.
    sum_weight : float
        Of those rows.
    data_fingerprint, settings_hash : str
        What it was fitted to, and how.
    created_by : dict of str
        Versions of the software.
    """

    parameters: Parameters
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    reg_covar: float
    converged: bool
    outcome: str
    n_passes: int
    lower_bounds: tuple[float, ...]
    n_rows: int
    sum_weight: float
    data_fingerprint: str
    settings_hash: str
    created_by: dict[str, str]

    @cached_property
    def sha256(self) -> str:
        """The checksum of its file: equal models, equal checksum."""
        return _checksum(_document(self), "model")


_KEYS = {
    *(field.name for field in fields(Model) if field.name != "parameters"),
    *_ARRAYS,
    *("format", "format_version", "n_components", "n_features", "covariance_type", "sha256"),
}


def dump_model(model: Model) -> bytes:
    """The model file; equal models give equal bytes, and what is written can be read.

    Raises
    ------
    ModelFileError
        The model is not one that could be read again.
    """
    document = _document(model)
    _model(Fields(document, "model"))
    data = canonical_json(document | {"sha256": _checksum(document, "model")})
    if _is_too_large(data):
        k, d = model.parameters.means.shape
        raise ModelFileError(
            f"A model of {k} components and {d} features takes {len(data)} bytes as a file; the "
            f"most that is read again is {MAX_BYTES}: choose covariance_type diag or tied."
        )
    return data


def is_readable(
    covariance_type: str, n_components: int, names: Sequence[str], types: Sequence[str], passes: int
) -> bool:
    """Whether every model of this shape and after so many passes is a file that can be read."""
    k, d = n_components, len(names)
    shape = COVARIANCE_FAMILIES[covariance_type].shape(k, d)
    n_numbers = k + k * d + 2 * math.prod(shape) + passes
    n_lists = 3 + k + 2 * (1 + sum(accumulate(shape[:-1], operator.mul)))
    text = canonical_json([*names, *types])
    n_bytes = REST_BYTES + len(text) + NUMBER_BYTES * n_numbers + 3 * n_lists
    n_marks = REST_MARKS + _n_marks(text) + n_lists
    return bool(n_bytes <= MAX_BYTES and n_marks <= MAX_MARKS)


def load_model_file(data: bytes, name: str = "model.json") -> Model:
    """The model in a file's content; strict, and nothing in the file can run code.

    Parameters
    ----------
    data : bytes
    name : str
        What messages call the file.

    Raises
    ------
    ModelFileError
        Damaged, foreign or newer; the message names the field.
    """
    if _is_too_large(data):
        raise ModelFileError(f"{name} is larger, with its {len(data)} bytes, than any model.")
    document = parse_json(data, name, ModelFileError)
    check_format(document, name, FORMAT, FORMAT_VERSION, ModelFileError)
    check_keys(document, name, _KEYS, ModelFileError)
    reader = Fields(document, name)
    body = {key: value for key, value in document.items() if key != "sha256"}
    if reader.sha256("sha256") != _checksum(body, name):
        reader.refuse("sha256", "does not fit the content: a field was changed after writing")
    return _model(reader)


def parameters_table(model: Model) -> pa.Table:
    """The parameters for SQL and data frames: one row per component, columns by feature name.

    `size` is the component's share of the rows; `sd_x` the standard deviation of x;
    `covariance_x` the covariances of x with every feature, in the order of the columns.
    """
    parameters, names = model.parameters, model.feature_names
    dense = parameters.dense_covariances()
    numbers = {"weight": parameters.weights, "size": parameters.weights * model.n_rows}
    numbers |= {f"mean_{name}": parameters.means[:, i] for i, name in enumerate(names)}
    numbers |= {f"sd_{name}": np.sqrt(dense[:, i, i]) for i, name in enumerate(names)}
    columns = {"component": to_arrow(np.arange(parameters.n_components), pa.int32())}
    columns |= {name: to_arrow(values, pa.float64()) for name, values in numbers.items()}
    columns |= {f"covariance_{name}": to_arrow_lists(dense[:, i]) for i, name in enumerate(names)}
    return pa.table(columns)


def parameters_bytes(model: Model) -> bytes:
    """The content of parameters.parquet: that table, with the checksum of the model."""
    return parquet_bytes(parameters_table(model), {f"gmm_dask.{MODEL_KEY}": model.sha256})


def _document(model: Model) -> dict[str, Any]:
    parameters = model.parameters
    document: dict[str, Any] = {
        field.name: getattr(model, field.name)
        for field in fields(model)
        if field.name != "parameters"
    }
    document |= {name: getattr(parameters, name).tolist() for name in _ARRAYS}
    return document | {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "n_components": parameters.n_components,
        "n_features": parameters.n_features,
        "covariance_type": parameters.covariance_type,
        "feature_names": list(model.feature_names),
        "feature_types": list(model.feature_types),
        "lower_bounds": [float(bound) for bound in model.lower_bounds],
        "reg_covar": float(model.reg_covar),
        "sum_weight": float(model.sum_weight),
    }


def _is_too_large(data: bytes) -> bool:
    return len(data) > MAX_BYTES or _n_marks(data) > MAX_MARKS


def _n_marks(data: bytes) -> int:
    return sum(map(data.count, (b"[", b"{", b":", b'"')))


def _checksum(body: Mapping[str, Any], name: str) -> str:
    """SHA-256 of the canonical form of all fields but the checksum itself."""
    try:
        return sha256_hex(canonical_json(body))
    except OutputError as error:
        raise ModelFileError(f"{name}: a field is no proper text or number: {error}") from error


def _model(reader: Fields) -> Model:
    k = reader.count("n_components", least=1)
    d = reader.count("n_features", least=1)
    parameters = _parameters(reader, k, d)
    names = reader.texts("feature_names", d)
    if len(set(names)) != d:
        reader.refuse("feature_names", "names a feature twice")
    n_passes = reader.count("n_passes")
    outcome, converged = reader.word("outcome"), reader.flag("converged")
    if converged != (outcome == "converged"):
        reader.refuse("converged", f"contradicts the outcome {outcome!r}")
    return Model(
        parameters=parameters,
        feature_names=names,
        feature_types=reader.texts("feature_types", d),
        reg_covar=reader.size("reg_covar"),
        converged=converged,
        outcome=outcome,
        n_passes=n_passes,
        lower_bounds=tuple(reader.array("lower_bounds", (n_passes,)).tolist()),
        n_rows=reader.count("n_rows"),
        sum_weight=reader.size("sum_weight"),
        data_fingerprint=reader.text("data_fingerprint"),
        settings_hash=reader.text("settings_hash"),
        created_by=reader.mapping("created_by"),
    )


def _parameters(reader: Fields, k: int, d: int) -> Parameters:
    covariance_type = reader.word("covariance_type")
    if covariance_type not in COVARIANCE_FAMILIES:
        known = ", ".join(COVARIANCE_FAMILIES)
        reader.refuse("covariance_type", f"is {covariance_type!r}, none of {known}")
    shape = COVARIANCE_FAMILIES[covariance_type].shape(k, d)
    shapes = {"weights": (k,), "means": (k, d), "covariances": shape, "precisions_cholesky": shape}
    arrays = {name: reader.array(name, shapes[name]) for name in _ARRAYS}
    weights = arrays["weights"]
    if weights.min() < 0:
        reader.refuse("weights", f"holds the negative weight {weights.min()}")
    total = math.fsum(weights)
    if abs(total - 1) > WEIGHTS_SLACK:
        reader.refuse("weights", f"sums to {total}, not to 1")
    parameters = Parameters.from_arrays(**arrays, covariance_type=covariance_type)
    if (problem := parameters.family.covariances_problem()) is not None:
        reader.refuse("covariances", problem)
    if (problem := parameters.family.factors_problem()) is not None:
        reader.refuse("precisions_cholesky", problem)
    return parameters
