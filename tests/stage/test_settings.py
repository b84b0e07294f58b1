"""Settings are strict at every level, and say what is known and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import SettingsError
from gmm_dask.stage.settings import (
    ScoreSettings,
    settings_from,
)
from gmm_dask.stage.settings.settings_file import parse_yaml

MINIMAL: dict[str, Any] = {"data": {"path": "data"}, "output": {"path": "out"}}


def with_keys(**sections: dict[str, Any]) -> dict[str, Any]:
    return MINIMAL | {name: MINIMAL.get(name, {}) | keys for name, keys in sections.items()}


def test_little_needs_to_be_said() -> None:
    settings = settings_from(MINIMAL)
    assert settings.fit.n_components == 1
    assert settings.cluster.kind == "threads"
    assert settings.labels.keep == "ids"


def test_one_path_in_a_list_is_that_path() -> None:
    assert settings_from(with_keys(data={"path": ["data"]})) == settings_from(MINIMAL)
    several = settings_from(with_keys(data={"path": ["a", "b"]}))
    assert several.data.path == ("a", "b")
    assert several.data.in_short == "a, b"


WRONG = {
    "unknown section": (MINIMAL | {"fitt": {}}, ["fitt: unknown key; did you mean fit?"]),
    "unknown key": (with_keys(fit={"n_componentz": 3}), ["fit.n_componentz", "n_components"]),
    "out of range": (with_keys(fit={"n_components": 0}), ["fit.n_components", "got 0"]),
    "wrong word": (with_keys(fit={"covariance_type": "vvv"}), ["fit.covariance_type", "'full'"]),
    "a family without its number": (
        with_keys(fit={"covariance_type": "low_rank"}),
        ["fit.covariance_type: it must be 'full', 'tied'", "did you mean low_rank:5?"],
    ),
    "a limit of nothing": (
        with_keys(refresh={"fail": {"psu": 1.0}}),
        ["refresh.fail.psu: it must be 'psi'", "did you mean psi?"],
    ),
    "a choice of one": (
        with_keys(select={"criterion": "aic"}),
        ["select.n_bootstrap are of a choice, and there is one candidate"],
    ),
    "compared with nothing": (
        with_keys(labels={"sticky": 0.5}, output={"path": "out", "follows": "none"}),
        ["labels.sticky are against the version that the fit follows, and output.follows is none"],
    ),
    "wrong type": (with_keys(fit={"tol": "little"}), ["fit.tol", "number", "'little'"]),
    "missing path": ({"output": {"path": "out"}}, ["data", "is required"]),
    "a path that is no text": (
        with_keys(data={"path": 7}),
        ["data.path: text is expected; it is read as 7"],
    ),
    "no path in a list": (with_keys(data={"path": []}), ["data.path: it must be a path, or"]),
    "no text in a list": (
        with_keys(data={"path": ["a", 7]}),
        ["data.path: text is expected; it is read"],
    ),
    "an empty path": (with_keys(data={"path": ["a", ""]}), ["data.path: it must be a path, or"]),
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
    "several contradictions": (
        with_keys(fit={"init_rows": 2, "n_components": 3, "n_clusters": 4}),
        ["fit: n_clusters is 4; 3 components", "; init_rows is 2; a start of 3 components"],
    ),
    "odd scheme": (
        with_keys(cluster={"kind": "address", "address": "ucx://10.0.0.1:8786"}),
        ["tls://host:port"],
    ),
    "an import string": (
        with_keys(cluster={"kind": "os.system"}),
        ["cluster.kind", "threads, processes, address", "gmm_dask.clusters"],
    ),
    "a flag for a count": (
        with_keys(fit={"n_components": True}),
        ["n_components", "a whole number is expected (got true)"],
    ),
    "text for a count": (with_keys(fit={"n_components": "3"}), ["n_components", "got '3'"]),
    "a flag for a number": (
        with_keys(fit={"tol": True}),
        ["fit.tol", "a number is expected (got true)"],
    ),
    "text for a flag": (with_keys(labels={"enabled": "yes"}), ["labels.enabled", "got 'yes'"]),
    "a word to keep": (
        with_keys(labels={"keep": "flower"}),
        ["labels.keep: it must be ids, all, or a list of column names"],
    ),
    "a number to keep": (
        with_keys(labels={"keep": ["flower", 1]}),
        ["labels.keep: text is expected; it is read as 1"],
    ),
    "a version as output": (with_keys(output={"path": "out@5"}), ["output.path", "version 5"]),
    "a key that is no text": (with_keys(data={1: 2}), ["data.1: a key is text"]),  # type: ignore[dict-item]
    "no port": (
        with_keys(cluster={"kind": "address", "address": "tcp://127.0.0.1:notaport"}),
        ["'notaport' is no port"],
    ),
    "a port too high": (
        with_keys(cluster={"kind": "address", "address": "tcp://127.0.0.1:70000"}),
        ["'70000' is no port"],
    ),
    "memory that is no size": (
        with_keys(cluster={"kind": "processes", "memory_limit": "much"}),
        ["cluster.memory_limit", "'much' is no size", "1GiB"],
    ),
    "memory for no worker": (
        with_keys(cluster={"kind": "processes", "memory_limit": "100MiB"}),
        ["cluster.memory_limit", "104857600 bytes", "256MiB"],
    ),
    "options of threads": (
        with_keys(cluster={"options": {"queue": "long"}}),
        ["options are for a registered factory only"],
    ),
    "scratch that is elsewhere on each worker": (
        with_keys(memory={"scratch": "scratch"}),
        ["memory.scratch", "absolute path"],
    ),
    "no patience": (with_keys(cluster={"stuck_after": 0}), ["cluster.stuck_after", "got 0"]),
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
    "address", ["tcp://127.0.0.1:8786", "TCP://localhost:8786", "tcp://[::1]:8786"]
)
def test_this_machine_needs_no_certificate(address: str) -> None:
    settings = settings_from(with_keys(cluster={"kind": "address", "address": address}))
    assert settings.cluster.address == address.lower()


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


def test_many_problems_are_counted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.\.\. and 3\d more") as caught:
        settings_from(with_keys(data={"features": list(range(50))}))
    assert len(str(caught.value).splitlines()) == 22


def test_ends_of_a_range_are_what_folders_are_called() -> None:
    """YAML has types for dates and integers; folders have texts."""
    written = "data: {path: x, between: {day: [2026-11-01, 2026-11-30], hour: [7, 10]}}"
    document = parse_yaml(f"{written}\noutput: {{path: y}}", "a.yaml")
    between = settings_from(document).data.between
    assert between == {"day": ("2026-11-01", "2026-11-30"), "hour": ("7", "10")}


@pytest.mark.parametrize("ends", ["[10, 7]", "[2026-12-01, 2026-11-01]", "[1]", "7", "[1.5, 2]"])
def test_what_is_no_range_is_refused(ends: str) -> None:
    document = parse_yaml(
        f"data: {{path: x, between: {{day: {ends}}}}}\noutput: {{path: y}}", "a.yaml"
    )
    with pytest.raises(SettingsError, match=r"data\.between"):
        settings_from(document)
