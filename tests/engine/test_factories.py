"""Clusters by a registered name: found through entry points, called with plain options, closed."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gmm_dask.engine import ClusterSpec, open_backend
from gmm_dask.engine.cluster.factories import GROUP, registered
from gmm_dask.errors import ClusterError, SettingsError
from gmm_dask.stage.settings import ClusterSettings, settings_from
from tests.conftest import Blobs
from tests.engine.test_cluster import check_pass

MODULE = """
from distributed import LocalCluster

closed = []

class Watched(LocalCluster):
    def close(self, *args, **kwargs):
        closed.append(self.name)
        return super().close(*args, **kwargs)

def here(**options):
    return Watched(
        host="127.0.0.1", dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
        threads_per_worker=1, silence_logs=40, **options,
    )

class Far:
    scheduler_address = "tcp://10.0.0.1:8786"
    def close(self):
        closed.append("far")

def none(**options):
    return "no cluster"
"""

Register = Callable[..., None]


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Have a package installed that registers factories."""

    def register(**points: str) -> None:
        info = tmp_path / "our_clusters-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-clusters\nVersion: 1.0\n")
        lines = [f"{name} = {target}\n" for name, target in points.items()]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(lines))
        (tmp_path / "our_clusters.py").write_text(MODULE)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "our_clusters", raising=False)

    return register


def test_a_registered_factory_is_called_with_the_options_and_its_cluster_closed(
    register: Register, blobs: Blobs
) -> None:
    register(ours="our_clusters:here")
    check_pass(ClusterSpec("ours", options={"n_workers": 1, "name": "mine"}), blobs)
    assert set(importlib.import_module("our_clusters").closed) == {"mine"}


def test_workers_are_asked_of_the_cluster(register: Register) -> None:
    register(ours="our_clusters:here")
    with open_backend(ClusterSpec("ours", workers=1, options={"n_workers": 0})) as backend:
        assert backend.n_workers == 1


def test_names_are_found_without_importing_anything(register: Register) -> None:
    register(ours="our_clusters:here")
    assert "ours" in registered()
    document = {"data": {"path": "x"}, "output": {"path": "y"}}
    settings = settings_from(document | {"cluster": {"kind": "ours", "options": {"queue": "long"}}})
    assert settings.cluster.options == {"queue": "long"}
    assert "our_clusters" not in sys.modules


def test_an_unknown_kind_is_told_what_is_registered(register: Register) -> None:
    register(ours="our_clusters:here")
    with pytest.raises(
        ValueError, match=r"threads, processes, address, or .*gmm_dask\.clusters.*ours"
    ):
        ClusterSettings(kind="os.system")
    said = r"'our_clusters:here' is no cluster kind.*ours"
    with pytest.raises(SettingsError, match=said), open_backend(ClusterSpec("our_clusters:here")):
        pass


def test_options_are_for_factories_only() -> None:
    with pytest.raises(ValueError, match="options are for a registered factory only"):
        ClusterSettings(options={"queue": "long"})


def test_what_goes_wrong_in_a_factory_is_named(register: Register) -> None:
    register(
        ours="our_clusters:here", none="our_clusters:none", absent="no_such_package:Cluster",
        missing="our_clusters:gone",
    )  # fmt: skip
    cases = {
        ("ours", "odd_option"): (ClusterError, r"ours could not make a cluster.*cluster\.options"),
        ("none", "any"): (ClusterError, "none made str, which is no Dask cluster"),
        ("absent", "any"): (SettingsError, "absent needs what is not installed.*no_such_package"),
        ("missing", "any"): (SettingsError, "missing needs what is not installed"),
    }
    for (kind, option), (error, said) in cases.items():
        with pytest.raises(error, match=said), open_backend(ClusterSpec(kind, options={option: 1})):
            pass


def test_a_cluster_that_strangers_can_reach_is_closed_and_refused(register: Register) -> None:
    register(far="our_clusters:Far")
    said = r"10\.0\.0\.1.*insecure: true"
    with pytest.raises(SettingsError, match=said), open_backend(ClusterSpec("far")):
        pass
    assert importlib.import_module("our_clusters").closed == ["far"]


def test_each_factory_of_ours_is_of_a_package_that_an_extra_installs() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, target in project["entry-points"][GROUP].items():
        package = target.partition(":")[0].partition(".")[0].replace("_", "-")
        assert any(line.startswith(package) for lines in extras.values() for line in lines), name
