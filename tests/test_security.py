"""What the package must never do: run code from data, listen beyond this machine, tell others."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import load_model
from gmm_dask.errors import SettingsError
from gmm_dask.stage import publish
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, load_settings, settings_from
from gmm_dask.storage import read_manifest, verify
from gmm_dask.storage.arrow import read_parquet_bytes

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "gmm_dask").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(publish, "render_report", lambda data: "<html></html>")
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"x": np.arange(20.0) ** 2}), tmp_path / "data" / "a.parquet")
    return settings_from(
        {
            "data": {"path": str(tmp_path / "data")},
            "fit": {"n_components": 2},
            "output": {"path": str(tmp_path / "out"), "private": True},
        }
    )


# --- no code in data -------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_unpickles_or_runs_text(source: Path) -> None:
    tree = ast.parse(source.read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not imported & {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
    assert not called & {"eval", "exec", "compile", "__import__", "os.system", "yaml.unsafe_load"}
    assert "allow_pickle=True" not in source.read_text()
    assert "shell=True" not in source.read_text()


def test_what_was_published_is_read_without_pickle(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(small)

    def fail(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "load", fail)
    monkeypatch.setattr(pickle, "loads", fail)
    monkeypatch.setattr(np, "load", fail)
    published = open_output(small.output.path)
    assert verify(published.folder.store, published.version) == []
    assert load_model(small.output.path).sha256 == published.model.sha256
    manifest = read_manifest(published.folder.store, published.version)
    (part,) = manifest["labels"]
    assert read_parquet_bytes(published.folder.get_verified(part, manifest)).num_rows == 20
    assert not run(small).new


@pytest.mark.parametrize(
    "kind", ["os.system", "gmm_dask_canary:Cluster", "distributed.LocalCluster"]
)
def test_no_setting_names_code(kind: str) -> None:
    document = {"data": {"path": "x"}, "output": {"path": "y"}, "cluster": {"kind": kind}}
    before = set(sys.modules)
    with pytest.raises(SettingsError, match=r"cluster\.kind"):
        settings_from(document)
    assert not {name for name in set(sys.modules) - before if "canary" in name}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [CANARY]",
        "data: {path: !!python/object/new:os.mkdir [CANARY]}",
        "data: !!python/name:os.mkdir",
        "data: !!python/module:gmm_dask_canary",
    ],
)
def test_no_tag_of_a_settings_file_runs_code(text: str, tmp_path: Path) -> None:
    path, canary = tmp_path / "settings.yaml", tmp_path / "canary"
    path.write_text(text.replace("CANARY", str(canary)))
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_settings(path)
    assert not canary.exists()


# --- who may read ----------------------------------------------------------------------------


def test_a_private_run_is_for_this_user_alone(small: Settings) -> None:
    run(small)
    out = Path(small.output.path)
    for path in (out, *out.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_bucket_is_not_made_private_by_a_setting() -> None:
    with pytest.raises(SettingsError, match="decided by its policy"):
        settings_from({"data": {"path": "x"}, "output": {"path": "s3://b/out", "private": True}})


# --- nothing is told to others ---------------------------------------------------------------


def test_flows_switch_usage_data_off_before_prefect_is_imported() -> None:
    code = (
        "import os, sys, flows\n"
        "assert 'prefect' not in sys.modules\n"
        "print(os.environ['DO_NOT_TRACK'], os.environ['PREFECT_SERVER_ANALYTICS_ENABLED'])"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "DO_NOT_TRACK" and not name.startswith("PREFECT_")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, timeout=120,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "false"]


@pytest.mark.parametrize("name", ["prefect.yaml", "docs/prefect.md"])
def test_what_starts_prefect_by_hand_switches_usage_data_off(name: str) -> None:
    content = (ROOT / name).read_text()
    assert re.search(r"DO_NOT_TRACK[=:]\s*\"?1", content)
    assert re.search(r"PREFECT_SERVER_ANALYTICS_ENABLED[=:]\s*\"?false", content)


def test_no_result_is_persisted_by_prefect() -> None:
    from gmm_dask.flows import deployable, tasks

    for flow in (deployable.cluster, deployable.label, deployable.refresh):
        assert flow.persist_result is False
    for task in (
        tasks.plan, tasks.fit, tasks.check, tasks.label, tasks.publish, tasks.plan_refresh,
        tasks.refresh, tasks.label_refreshed, tasks.publish_refreshed,
    ):  # fmt: skip
        assert task.persist_result is False


# --- what is installed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-pip.lock"]
)
def test_every_requirement_is_pinned_by_version_and_hash(name: str) -> None:
    content = re.sub(r"\\\n", " ", (ROOT / name).read_text())
    lines = [
        line for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", line), line
        assert "--hash=sha256:" in line, line
        assert "://" not in line, line
