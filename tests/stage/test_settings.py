"""Settings are strict at every level, and say what is known and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import SettingsError
from gmm_dask.stage.settings import (
    MAX_SETTINGS_BYTES,
    ScoreSettings,
    Settings,
    load_settings,
    settings_from,
)

MINIMAL: dict[str, Any] = {"data": {"path": "data"}, "output": {"path": "out"}}


def with_keys(**sections: dict[str, Any]) -> dict[str, Any]:
    return MINIMAL | {name: MINIMAL.get(name, {}) | keys for name, keys in sections.items()}


def test_little_needs_to_be_said() -> None:
    settings = settings_from(MINIMAL)
    assert settings.fit.n_components == 1
    assert settings.cluster.kind == "threads"
    assert settings.labels.keep == "ids"


WRONG = {
    "unknown section": (MINIMAL | {"fitt": {}}, ["fitt", "unknown key", "data, fit"]),
    "unknown key": (with_keys(fit={"n_componentz": 3}), ["fit.n_componentz", "n_components"]),
    "out of range": (with_keys(fit={"n_components": 0}), ["fit.n_components", "got 0"]),
    "wrong word": (with_keys(fit={"covariance_type": "vvv"}), ["fit.covariance_type", "'full'"]),
    "wrong type": (with_keys(fit={"tol": "little"}), ["fit.tol", "number", "'little'"]),
    "missing path": ({"output": {"path": "out"}}, ["data", "is required"]),
    "feature twice": (with_keys(data={"features": ["a", "a"]}), ["data", "'a' is named twice"]),
    "no features": (with_keys(data={"features": []}), ["data.features"]),
    "feature is weight": (
        with_keys(data={"features": ["a"], "weight_column": "a"}),
        ["both a feature and the weight"],
    ),
    "address missing": (with_keys(cluster={"kind": "address"}), ["go together"]),
    "address without kind": (
        with_keys(cluster={"address": "tcp://127.0.0.1:8786"}),
        ["go together"],
    ),
    "open network": (
        with_keys(cluster={"kind": "address", "address": "tcp://10.0.0.1:8786"}),
        ["tls://", "insecure: true"],
    ),
    "tls without files": (
        with_keys(cluster={"kind": "address", "address": "tls://10.0.0.1:8786"}),
        ["tls_ca_file"],
    ),
    "half of tls": (with_keys(cluster={"tls_cert": "cert.pem"}), ["together or not at all"]),
    "odd scheme": (
        with_keys(cluster={"kind": "address", "address": "ucx://10.0.0.1:8786"}),
        ["tls://host:port"],
    ),
    "an import string": (with_keys(cluster={"kind": "os.system"}), ["cluster.kind"]),
    "memory of threads": (with_keys(cluster={"memory_limit": "1GiB"}), ["processes"]),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_wrong_is_named(case: str) -> None:
    document, words = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        settings_from(document)
    for word in words:
        assert word in str(caught.value)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(with_keys(fit={"tol": -1, "n_init": 0}, labels={"keeep": 1}))
    for word in ("fit.tol", "fit.n_init", "labels.keeep"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"]
)
def test_this_machine_needs_no_certificate(address: str) -> None:
    settings = settings_from(with_keys(cluster={"kind": "address", "address": address}))
    assert settings.cluster.address == address


def test_a_file_is_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data: {path: data}\noutput: {path: out}\n")
    overrides = ["fit.n_components=4", "data.features=[a, b]", "output.path=elsewhere"]
    settings = load_settings(path, overrides)
    assert isinstance(settings, Settings)
    assert settings.fit.n_components == 4
    assert settings.data.features == ("a", "b")
    assert settings.output.path == "elsewhere"


@pytest.mark.parametrize("override", ["fit", "=3", "fit.=3", ".x=3", "data.path.deep=3", "a=[1"])
def test_an_override_that_cannot_be_read_is_quoted(override: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data: {path: data}\noutput: {path: out}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, [override])
    assert repr(override) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("data: [", "not valid YAML"),
        ("- a\n- b\n", "must hold sections"),
        ("", "must hold sections"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("data: " + " " * MAX_SETTINGS_BYTES, "larger than"),
        ("data: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_settings_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=what):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml cannot be read"):
        load_settings(tmp_path / "absent.yaml")


def test_settings_for_scoring_take_a_model_and_no_fit() -> None:
    document = MINIMAL | {"model": "out@1"}
    assert settings_from(document, ScoreSettings).model == "out@1"
    with pytest.raises(SettingsError, match="fit: unknown key"):
        settings_from(document | {"fit": {}}, ScoreSettings)


def test_settings_cannot_be_changed() -> None:
    settings = settings_from(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        settings.fit.n_components = 5


@pytest.mark.parametrize("host", ["127.evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
def test_only_addresses_of_this_machine_go_without_tls(host: str) -> None:
    cluster = {"kind": "address", "address": f"tcp://{host}:8786"}
    document = {"data": {"path": "x"}, "output": {"path": "y"}, "cluster": cluster}
    with pytest.raises(SettingsError, match="beyond this machine"):
        settings_from(document)
    for local in ("127.0.0.1", "127.3.2.1", "localhost", "LOCALHOST", "[::1]"):
        settings_from(document | {"cluster": cluster | {"address": f"tcp://{local}:8786"}})


@pytest.mark.parametrize("key", ["tol", "reg_covar"])
def test_numbers_are_finite(key: str) -> None:
    document = {"data": {"path": "x"}, "output": {"path": "y"}, "fit": {key: float("inf")}}
    with pytest.raises(SettingsError, match=f"fit.{key}"):
        settings_from(document)
