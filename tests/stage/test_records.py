"""What a run notes is what its settings admit; records of another shape are never a defect."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gmm_dask.command.results import print_published
from gmm_dask.errors import GmmDaskError, SettingsError
from gmm_dask.stage import publish as publish_module
from gmm_dask.stage.job import plan
from gmm_dask.stage.lineage.history import history
from gmm_dask.stage.outputs import open_output
from gmm_dask.stage.publish import promote
from gmm_dask.stage.run import run
from gmm_dask.stage.settings import Settings, settings_from
from gmm_dask.storage import open_store
from gmm_dask.storage.records.documents import canonical_json, parse_json, sealed, sha256_hex
from gmm_dask.storage.store.version_log import read_version
from tests.conftest import SEED
from tests.storage.test_records import changed, places

WRONG = (None, True, -1, 10**20, 1.5, "x", [], [[]], {}, {"x": {}}, ...)


# --- whatever the settings admit survives --------------------------------------------------------

texts = st.text(max_size=8)  # with halves of characters
integers = st.integers(-2, 3) | st.integers(2**63 - 2, 2**63 + 2) | st.integers(-(10**30), 10**30)
numbers = st.floats() | integers | st.sampled_from([-0.0, 5e-324, 1e308, 10**400])
odd = st.recursive(
    st.none() | st.booleans() | integers | numbers | texts | st.dates() | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(texts | integers, inner, max_size=2)
    ),
    max_leaves=4,
)
names = st.lists(texts, min_size=1, max_size=3, unique=True)
documents = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"path": texts | names},
            optional={
                "features": names,
                "id_columns": names,
                "weight_column": texts,
                "ignore": names,
                "missing": st.sampled_from(["error", "drop", "em"]),
            },
        ),
        "output": st.fixed_dictionaries(
            {"path": texts}, optional={"checkpoint_seconds": numbers | st.none()}
        ),
    },
    optional={
        "fit": st.dictionaries(
            st.sampled_from(["n_components", "max_iter", "n_init", "random_state", "n_blocks"]),
            integers,
        )
        | st.dictionaries(
            st.sampled_from(["tol", "reg_covar", "covariance_prior", "mean_precision_prior"]),
            numbers,
        ),
        "memory": st.dictionaries(st.sampled_from(["chunk_bytes", "held_bytes"]), integers),
        "labels": st.fixed_dictionaries({"keep": names}),
        "cluster": st.fixed_dictionaries(
            {"kind": st.just("slurm"), "options": st.dictionaries(texts, odd, max_size=3)}
        ),
    },
)


@given(documents)
@settings(max_examples=60)
def test_settings_are_refused_or_come_back_from_a_record_as_they_were(
    document: dict[str, Any],
) -> None:
    try:
        taken = settings_from(document)
    except SettingsError:
        return
    data = canonical_json({"settings": taken.model_dump(mode="json")})
    back = settings_from(parse_json(data, "run.json")["settings"])
    assert back == taken
    assert canonical_json({"settings": back.model_dump(mode="json")}) == data  # also -0.0


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes a second to draw, and says nothing here."""
    monkeypatch.setattr(publish_module, "render_report", lambda data: "")


def write_rows(path: Path, names: tuple[str, str] = ("x", "y"), constant: bool = False) -> Path:
    rows = np.random.default_rng(0).normal(size=(40, 2)) + np.repeat([[0], [9]], 20, axis=0)
    if constant:
        rows[:20, 1] = 1.0
    pq.write_table(pa.table(dict(zip(names, rows.T, strict=True))), path)
    return path


def settings_of(rows: Path, out: Path, data: dict[str, Any] | None = None) -> Settings:
    fit = {"n_components": 2, "reg_covar": 0.0}
    output = {"path": str(out), "checkpoint_seconds": None}
    return settings_from({"data": {"path": str(rows)} | (data or {}), "fit": fit, "output": output})


@pytest.mark.parametrize("changed_ns", [-1, -(10**18), 10**19 + 5, 4 * 10**18])
def test_a_file_of_any_time_is_known_again(changed_ns: int, tmp_path: Path, drawn: None) -> None:
    rows = write_rows(tmp_path / "rows.parquet")
    os.utime(rows, ns=(changed_ns, changed_ns))
    assert rows.stat().st_mtime_ns == changed_ns
    taken = settings_of(rows, tmp_path / "out")
    first = run(taken)
    assert run(taken).version == first.version
    os.utime(rows, ns=(0, 0))  # the notes of the first are read, and its pages hashed
    assert run(taken).version == first.version


ODD = 'a\nb\x00\x1b[31m\u2028\u202e`|<x>"\\'


def test_columns_of_any_name_go_through_every_record(tmp_path: Path, drawn: None) -> None:
    names = (ODD, f"{ODD} 2")
    rows = write_rows(tmp_path / "rows.parquet", names, constant=True)
    taken = settings_of(rows, tmp_path / "out", data={"features": list(names)})
    published = run(taken)
    assert published.metrics["events"]  # of a column without spread, which they name
    assert not run(taken).new
    assert open_output(str(tmp_path / "out")).model.feature_names == names
    table = pq.read_table(Path(published.path("folder")) / "parameters.parquet")
    assert {f"mean_{name}" for name in names} <= set(table.column_names)


# --- records of another shape ----------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A published run of few rows; its report is not drawn."""
    folder = tmp_path_factory.mktemp("records")
    taken = settings_of(write_rows(folder / "rows.parquet"), folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_module, "render_report", lambda data: "")
        run(taken)
    return taken


def put(out: Path, name: str, document: dict[str, Any]) -> None:
    """A file of the run with another content, of which manifest and version have the right hash."""
    version = read_version(open_store(str(out)), 1)
    folder = out / "runs" / version.run_id
    (folder / name).write_bytes(canonical_json(document))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(data), "sha256": sha256_hex(data)}
    (folder / "MANIFEST.json").write_bytes(canonical_json(manifest))
    sha256 = sha256_hex(canonical_json(manifest))
    (out / version.name).write_bytes(replace(version, manifest_sha256=sha256).to_json())


def look(out: Path) -> None:
    """Whatever is read of a version, as far as it can be."""
    (listed,) = history(str(out))
    assert listed.problem is None or "MANIFEST" not in listed.problem
    console = Console(file=io.StringIO(), width=200)
    print_published(open_output(f"{out}@1"), console)
    promote(f"{out}@1")


def plan_again(taken: Settings) -> None:
    os.utime(taken.data.path)  # the notes of an earlier attempt are looked at
    plan(taken)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", ["metrics.json", "contents.json", "run.json"])
def test_a_record_of_another_shape_ends_no_command_in_a_defect(
    name: str, every: int, finished: Settings, tmp_path: Path
) -> None:
    source, out = Path(finished.output.path), tmp_path / "out"
    shutil.copytree(source, out)
    (path,) = out.glob(f"runs/*/{name}")
    document = json.loads(path.read_text())
    taken = finished.model_copy(
        update={"output": finished.output.model_copy(update={"path": str(out)})}
    )
    look(out)
    plan_again(taken)
    n_refused, drawn = 0, random.Random(SEED)
    for place in list(places(document))[every // 2 :: every]:
        wrong = changed(document, place, drawn.choice(WRONG))  # another seed draws others
        put(out, name, sealed(_unsealed(wrong)) if name == "contents.json" else wrong)
        for read in (lambda: look(out), lambda: plan_again(taken)):
            try:
                read()
            except GmmDaskError:
                n_refused += 1
    assert n_refused


def _unsealed(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "checksum"}
