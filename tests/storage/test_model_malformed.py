"""Malformed model files: each is refused by the name of the field, and none runs code."""

from __future__ import annotations

import builtins
import hashlib
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gmm_dask.errors import ModelFileError
from gmm_dask.storage.records.documents import canonical_json
from gmm_dask.storage.records.model_file import dump_model, load_model_file
from tests.storage.stores import model_of, same_bits, small_model
from tests.strategies import random_mixture

Change = Callable[[dict[str, Any]], Any]


def put(field: str, value: Any) -> Change:
    return lambda document: document.__setitem__(field, value)


def put_at(field: str, *indices: int, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        inner = document[field]
        for index in indices[:-1]:
            inner = inner[index]
        inner[indices[-1]] = value

    return change


SMALL = json.loads(dump_model(small_model()))
MALFORMED: list[tuple[str, Change]] = [
    ("format", put("format", "sklearn")),
    ("format", put("format", None)),
    ("format", lambda document: document.pop("format")),
    ("format_version", put("format_version", 2)),
    ("format_version", put("format_version", 0)),
    ("format_version", put("format_version", "1")),
    ("format_version", put("format_version", True)),
    ("format_version", put("format_version", 1.0)),
    *((name, lambda document, name=name: document.pop(name)) for name in sorted(SMALL)),
    ("__class__", put("__class__", "os.system")),
    ("comment", put("comment", "by hand")),
    ("n_components", put("n_components", -2)),
    ("n_components", put("n_components", 0)),
    ("n_components", put("n_components", True)),
    ("n_components", put("n_components", 2.0)),
    ("n_components", put("n_components", "2")),
    ("weights", put("n_components", 2**60)),
    ("weights", put("n_components", 3)),
    ("n_features", put("n_features", 0)),
    ("means", put("n_features", 3)),
    ("means", put("n_features", 2**60)),
    ("covariance_type", put("covariance_type", "circular")),
    ("covariance_type", put("covariance_type", ["full"])),
    ("covariances", put("covariance_type", "diag")),
    ("covariances", put("covariance_type", "tied")),
    ("weights", put("weights", {})),
    ("weights", put("weights", "0.25 0.75")),
    ("weights", put("weights", [1.0])),
    ("weights", put("weights", [0.25, 0.85])),
    ("weights", put("weights", [0.25, 0.75 + 1e-7])),
    ("weights", put("weights", [-0.25, 1.25])),
    ("weights", put("weights", [1, 0])),
    ("weights", put("weights", [True, False])),
    ("weights", put("weights", [None, 1.0])),
    ("weights", put("weights", [[0.25], [0.75]])),
    ("means", put_at("means", 0, value=[1.0])),
    ("means", put_at("means", 0, value=1.0)),
    ("means", put_at("means", 0, 0, value="0.0")),
    ("means", put_at("means", 0, 0, value=[0.0])),
    ("means", put("means", [[0.0, 1.0], [5.0, -3.0], [1.0, 1.0]])),
    ("covariances", put_at("covariances", 1, 0, 1, value=0.25)),
    ("covariances", put_at("covariances", 1, 0, 1, value=0.5 + 1e-6)),
    ("covariances", put_at("covariances", 0, 0, 0, value=0.0)),
    ("covariances", put_at("covariances", 0, 0, 0, value=-1.0)),
    ("covariances", put_at("covariances", 0, value=[[1.0, 2.0], [2.0, 1.0]])),
    ("covariances", put_at("covariances", 0, value=[[1.0, 1.0], [1.0, 1.0]])),
    ("covariances", put_at("covariances", 0, value=[[1e-300, 1e300], [1e300, 1e-300]])),
    ("covariances", put_at("covariances", 0, value=[[1.0, 0.0]])),
    ("precisions_cholesky", put_at("precisions_cholesky", 0, 0, 0, value=-1.0)),
    ("precisions_cholesky", put_at("precisions_cholesky", 0, 0, 0, value=1.0 + 1e-7)),
    ("precisions_cholesky", put_at("precisions_cholesky", 0, 1, 0, value=1e-12)),
    ("precisions_cholesky", put("precisions_cholesky", [[1.0, 0.0], [0.0, 1.0]])),
    ("feature_names", put("feature_names", ["a"])),
    ("feature_names", put("feature_names", ["a", "a"])),
    ("feature_names", put("feature_names", ["a", ""])),
    ("feature_names", put("feature_names", ["a", 2])),
    ("feature_names", put("feature_names", "ab")),
    ("feature_names", put("feature_names", ["a", "b" * 2000])),
    ("feature_types", put("feature_types", ["double"])),
    ("reg_covar", put("reg_covar", -1e-6)),
    ("reg_covar", put("reg_covar", None)),
    ("reg_covar", put("reg_covar", 0)),
    ("converged", put("converged", 1)),
    ("converged", put("converged", False)),
    ("outcome", put("outcome", "")),
    ("outcome", put("outcome", 1)),
    ("n_passes", put("n_passes", -1)),
    ("lower_bounds", put("n_passes", 3)),
    ("lower_bounds", put("lower_bounds", [-3.5, None])),
    ("n_rows", put("n_rows", 1.5)),
    ("sum_weight", put("sum_weight", -1.0)),
    ("data_fingerprint", put("data_fingerprint", 7)),
    ("settings_hash", put("settings_hash", ["a"])),
    ("created_by", put("created_by", [])),
    ("created_by", put("created_by", {"numpy": {"version": "2"}})),
    ("sha256", put("sha256", None)),
]


def sealed(document: dict[str, Any]) -> bytes:
    """The document with a checksum that fits, as a forger would write it."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    if "sha256" in document and document["sha256"] is not None:
        document["sha256"] = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("field", "change"), MALFORMED, ids=[f"{i}-{field}" for i, (field, _) in enumerate(MALFORMED)]
)
def test_a_malformed_field_is_refused_by_name(field: str, change: Change) -> None:
    document = json.loads(json.dumps(SMALL))
    load_model_file(sealed(document))
    change(document)
    with pytest.raises(ModelFileError, match=rf"^m\.json: '?{field}\b") as raised:
        load_model_file(sealed(document), "m.json")
    assert len(str(raised.value)) < 400


def test_a_newer_file_asks_for_an_upgrade() -> None:
    with pytest.raises(ModelFileError, match="upgrade gmm_dask"):
        load_model_file(sealed(SMALL | {"format_version": 2, "noise": {}}))


@pytest.mark.parametrize("field", sorted(set(SMALL) - {"sha256", "format", "format_version"}))
def test_a_field_changed_after_writing_does_not_fit_the_checksum(field: str) -> None:
    other = json.loads(dump_model(model_of(random_mixture("diag", 3, 3, 0), n_rows=13)))
    other |= {"data_fingerprint": "", "settings_hash": "", "created_by": {}, "reg_covar": 0.0}
    other |= {"outcome": "?", "converged": False, "n_passes": 0, "lower_bounds": []}
    other |= {"sum_weight": 0.0}
    with pytest.raises(ModelFileError, match="sha256 does not fit the content"):
        load_model_file(json.dumps(SMALL | {field: other[field]}).encode())


def test_reformatting_changes_nothing_that_matters() -> None:
    pretty = json.dumps(dict(reversed(SMALL.items())), indent=2).encode()
    assert same_bits(load_model_file(pretty), small_model())


def test_no_changed_byte_is_accepted_silently() -> None:
    """2,000 mutants: refused with a named error, or the same model to the last bit."""
    data, rng = dump_model(small_model()), np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        mutant = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 3)):
            mutant[position] = rng.integers(0, 256)
        try:
            assert same_bits(load_model_file(bytes(mutant)), small_model())
        except ModelFileError:
            refused += 1
    assert refused > 1900


def test_a_file_cut_anywhere_is_refused() -> None:
    data = dump_model(small_model())
    for length in range(len(data) - 2):  # without the last newline it is still whole
        with pytest.raises(ModelFileError):
            load_model_file(data[:length])


def test_reading_a_model_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dump_model(small_model())

    def forbidden(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a model file must not run code")

    for module, name in ((builtins, "eval"), (builtins, "exec"), (pickle, "loads")):
        monkeypatch.setattr(module, name, forbidden)
    assert same_bits(load_model_file(data), small_model())
