"""The model of record: canonical JSON with a checksum; no field can name code.

A plain reader needs no more than `json.load` and `numpy.array`: arrays are nested lists, and every
float is written so that it comes back bit for bit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmm_dask.errors import ModelFileError, OutputError, SettingsError
from gmm_dask.mixture import MergeTree, Parameters, merge_tree
from gmm_dask.mixture.covariance import family
from gmm_dask.mixture.parameters import Noise
from gmm_dask.storage.arrow import parquet_bytes, to_arrow, to_arrow_lists
from gmm_dask.storage.records.codec import (
    COUNT,
    FLAG,
    NAME,
    NUMBER,
    SIZE,
    TEXT,
    At,
    Kind,
    by_name,
    count_from,
    list_of,
    numbers,
    shape,
)
from gmm_dask.storage.records.documents import MAX_MARKS, Document, canonical_json, n_marks

MODEL_FORMAT = 1
MODEL_KEY = "model_sha256"  # what a file that is made with a model calls its checksum
MAX_MODEL_BYTES = 256 << 20  # of a file; a larger one is refused unread, and planned by nobody
NUMBER_BYTES = 25  # of a float64 and its comma, at most
REST_BYTES, REST_MARKS = 1 << 14, 1 << 10  # of all fields but arrays, names and types, at most
WEIGHTS_SLACK = 1e-8  # of the sum of the weights about one

ARRAYS = ("weights", "means", "covariances", "precisions_cholesky")

Array = npt.NDArray[np.float64]


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
        Total weight of those rows.
    data_fingerprint, settings_hash : str
        What it was fitted to, and how.
    created_by : dict of str
        Versions of the software.
    clusters : tuple of int, optional
        The cluster of each component; a file of an earlier version has none.
    merge_tree : MergeTree, optional
        The tree that these clusters are a level of.
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
    clusters: tuple[int, ...] | None = None
    merge_tree: MergeTree | None = None

    @cached_property
    def known_clusters(self) -> tuple[int, ...]:
        """The cluster of each component, (k,); found now for a file of an earlier version."""
        if self.clusters is not None:
            return self.clusters
        return tuple(merge_tree(self.parameters).clusters().tolist())

    @cached_property
    def sha256(self) -> str:
        """The checksum of its file: equal models, equal checksum."""
        return str(_document_of(self)["sha256"])


def dump_model(model: Model) -> bytes:
    """The model file; equal models give equal bytes, and what is written can be read.

    Raises
    ------
    ModelFileError
        The model is not one that could be read again.
    """
    _load(_dump(model), At("model", ModelFileError))
    data = canonical_json(_document_of(model))
    if MODEL_FILE.is_too_large(data):
        k, d = model.parameters.means.shape
        raise ModelFileError(
            f"A model of {k} components and {d} features takes {len(data)} bytes as a file; the "
            f"most that is read again is {MAX_MODEL_BYTES}: choose covariance_type diag or tied."
        )
    return data


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
    return MODEL_FILE.load(data, name)


def is_readable(
    covariance_type: str, n_components: int, names: Sequence[str], types: Sequence[str], passes: int
) -> bool:
    """Whether every model of this shape and after so many passes is a file that can be read."""
    k, d = n_components, len(names)
    shape = family(covariance_type).shape(k, d)
    n_numbers = 6 * k + k * d + 2 * math.prod(shape) + passes + 2 * d  # the edges of noise
    n_lists = 9 + 2 * k + 2 * (1 + sum(accumulate(shape[:-1], operator.mul)))
    text = canonical_json([*names, *types])
    n_bytes = REST_BYTES + len(text) + NUMBER_BYTES * n_numbers + 3 * n_lists
    marks = REST_MARKS + n_marks(text) + n_lists
    return bool(n_bytes <= MAX_MODEL_BYTES and marks <= MAX_MARKS)


def parameters_table(model: Model) -> pa.Table:
    """The parameters for SQL and data frames: one row per component, columns by feature name.

    `size` is the component's share of the rows; `sd_x` the standard deviation of x;
    `covariance_x` the covariances of x with every feature, in the order of the columns, where the
    covariance type keeps whole matrices: with full and tied ones.
    """
    parameters, names = model.parameters, model.feature_names
    variances, matrices = parameters.family.variances, parameters.family.matrices
    share = 0.0 if parameters.noise is None else parameters.noise.share
    size = parameters.weights * (1 - share) * model.n_rows
    numbers = {"weight": parameters.weights, "size": size}
    numbers |= {f"mean_{name}": parameters.means[:, i] for i, name in enumerate(names)}
    numbers |= {f"sd_{name}": np.sqrt(variances[:, i]) for i, name in enumerate(names)}
    columns = {"component": to_arrow(np.arange(parameters.n_components), pa.int32())}
    columns |= {name: to_arrow(values, pa.float64()) for name, values in numbers.items()}
    if matrices is not None:
        dense = parameters.dense_covariances()
        lists = (to_arrow_lists(dense[:, i]) for i in range(len(names)))
        columns |= {f"covariance_{name}": each for name, each in zip(names, lists, strict=True)}
    return pa.table(columns)


def parameters_bytes(model: Model) -> bytes:
    """The content of parameters.parquet: that table, with the checksum of the model."""
    return parquet_bytes(parameters_table(model), {f"gmm_dask.{MODEL_KEY}": model.sha256})


def array_shapes(covariance_type: str, k: int, d: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a mixture of k components and d features, by name."""
    of_family = family(covariance_type).shape(k, d)
    return dict(zip(ARRAYS, ((k,), (k, d), of_family, of_family), strict=True))


def mixture_sizes(document: Any, at: At) -> tuple[str, int, int]:
    """The family, the number of components and that of features that a document names."""
    k, d = (count_from(1).of(document, name, at) for name in ("n_components", "n_features"))
    covariance_type = TEXT.of(document, "covariance_type", at)
    try:
        family(covariance_type)
    except SettingsError as error:
        at.refuse(f"has no meaning here: {error}", "covariance_type")
    return covariance_type, k, d


def check_mixture(parameters: Parameters, at: At) -> None:
    """Refuse weights that are no shares, and covariances without a density."""
    weights = parameters.weights
    if weights.min() < 0:
        at.refuse(f"holds the negative weight {weights.min()}", "weights")
    total = math.fsum(weights)
    if abs(total - 1) > WEIGHTS_SLACK:
        at.refuse(f"sums to {total}, not to 1", "weights")
    if (problem := parameters.family.covariances_problem()) is not None:
        at.refuse(problem, "covariances")


def _document_of(model: Model) -> dict[str, Any]:
    try:
        return MODEL_FILE.document(model)
    except OutputError as error:
        raise ModelFileError(f"The model holds no proper text or number: {error}") from error


def _dump(model: Model) -> Any:
    parameters = model.parameters
    sizes = {"n_components": parameters.n_components, "n_features": parameters.n_features}
    arrays = {name: getattr(parameters, name) for name in ARRAYS}
    of_model = {name: value for name, value in vars(model).items() if value is not None}
    known = {**of_model, **sizes, **arrays, "covariance_type": parameters.covariance_type}
    if parameters.noise is not None:
        known["noise"] = parameters.noise
    k, d = parameters.means.shape
    return _shape(parameters.covariance_type, k, d, model.n_passes).dump(known)


def _load(document: Any, at: At) -> Model:
    covariance_type, k, d = mixture_sizes(document, at)
    kind = _shape(covariance_type, k, d, COUNT.of(document, "n_passes", at))
    found = kind.load(document, at)
    for name in ("n_components", "n_features"):
        del found[name]
    arrays = {name: found.pop(name) for name in ARRAYS}
    of_family, noise = found.pop("covariance_type"), found.pop("noise", None)
    parameters = Parameters.from_arrays(**arrays, covariance_type=of_family, noise=noise)
    check_mixture(parameters, at)
    if (problem := parameters.family.factors_problem()) is not None:
        at.refuse(problem, "precisions_cholesky")
    model = Model(parameters, **found)
    _check_clusters(model, at)
    if len(set(model.feature_names)) != d:
        at.refuse("names a feature twice", "feature_names")
    if model.converged != (model.outcome == "converged"):
        at.refuse(f"contradicts the outcome {model.outcome!r}", "converged")
    return model


def _check_clusters(model: Model, at: At) -> None:
    """Refuse a tree that is none, and clusters that are no level of it."""
    tree, clusters = model.merge_tree, model.clusters
    if (tree is None) != (clusters is None):
        at.refuse("is there without its tree or its clusters", "clusters")
    if tree is None or clusters is None:
        return
    if (problem := tree.problem()) is not None:
        at.refuse(problem, "merge_tree")
    if tuple(tree.clusters(len(set(clusters))).tolist()) != clusters:
        at.refuse("is no level of the merge tree", "clusters")


def kind_of_noise(edges: Kind[Any]) -> Kind[Noise]:
    """The noise component, its edges as they are written."""
    inner = shape({"share": SIZE, "lower": edges, "upper": edges})

    def load(value: Any, at: At) -> Noise:
        found = inner.load(value, at)
        if found["share"] > 1:
            at.refuse(f"is {found['share']}, which is no share", "share")
        if not (np.asarray(found["lower"]) < np.asarray(found["upper"])).all():
            at.refuse("has edges that are not in order", "upper")
        return Noise(**found)

    return Kind(load, lambda noise: inner.dump(vars(noise)))


def _tree(k: int) -> Kind[MergeTree]:
    """The tree of merges of k components."""
    lengths = {"overlaps": list_of(SIZE, k - 1), "entropies": list_of(SIZE, k)}
    inner = shape({"pairs": list_of(list_of(COUNT, 2), k - 1), **lengths})
    return Kind(
        lambda value, at: MergeTree(**inner.load(value, at)), lambda tree: inner.dump(vars(tree))
    )


def _shape(covariance_type: str, k: int, d: int, n_passes: int) -> Kind[dict[str, Any]]:
    """The fields of a model file of these sizes."""
    shapes = array_shapes(covariance_type, k, d)
    return shape(
        {
            "n_components": COUNT,
            "n_features": COUNT,
            "covariance_type": TEXT,
            **{name: numbers(*shapes[name]) for name in ARRAYS},
            "feature_names": list_of(NAME, d),
            "feature_types": list_of(NAME, d),
            "reg_covar": SIZE,
            "converged": FLAG,
            "outcome": NAME,
            "n_passes": COUNT,
            "lower_bounds": list_of(NUMBER, n_passes),
            "n_rows": COUNT,
            "sum_weight": SIZE,
            "data_fingerprint": TEXT,
            "settings_hash": TEXT,
            "created_by": by_name(TEXT),
        },
        {
            "clusters": list_of(COUNT, k),
            "merge_tree": _tree(k),
            "noise": kind_of_noise(numbers(d)),
        },
    )


MODEL_FILE = Document(
    Kind(_load, _dump),
    "gmm_dask.model",
    MODEL_FORMAT,
    "sha256",
    error=ModelFileError,
    max_bytes=MAX_MODEL_BYTES,
    max_marks=MAX_MARKS,
)
