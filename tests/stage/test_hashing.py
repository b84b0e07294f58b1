"""Labels are of the pages that the fit read: both are hashed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import engine
from gmm_dask.errors import InputChangedError
from gmm_dask.stage.labels import chunk_labels as label
from gmm_dask.stage.labels import pages
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage.input.inputs import FileState, LocalInput
from tests.stage.conftest import MakeSettings


def contents(published: Published) -> bytes:
    return Path(published.folder.path("contents.json")).read_bytes()


def test_what_is_held_is_labelled_without_its_pages_being_read_again(
    iris_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed: list[str] = []
    of_chunk = label.content_of

    def noted(*arguments: Any) -> str:
        hashed.append(arguments[0].source.name)
        return of_chunk(*arguments)

    monkeypatch.setattr(label, "content_of", noted)
    monkeypatch.setattr(pages, "content_of", noted)
    held = run(iris_settings())
    assert len(hashed) == len(set(hashed))  # once, before the fit
    once = len(hashed)
    read_again = run(iris_settings(memory={"held_bytes": 0}, output={"path": str(tmp_path / "b")}))
    assert len(hashed) == 3 * once
    assert contents(held) == contents(read_again)


# --- what was read for the fit and what was labelled -------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A plain file whose values can be dealt out anew under the same size and footer."""
    path = tmp_path / "rows.parquet"
    write_rows(path, turned=False)
    return path


def write_rows(path: Path, *, turned: bool) -> None:
    inner = np.concatenate([np.arange(40.0), 500 + np.arange(40.0)])
    values = np.r_[-99.0, inner[::-1] if turned else inner, 999.0]
    pq.write_table(pa.table({"x": values}), path, compression="none", use_dictionary=False)


class At(Watcher):
    """Does something when a phase begins."""

    def __init__(self, phase: str, what: Callable[[], object]) -> None:
        self.when, self.what = phase, what

    def phase(self, name: str, detail: str) -> None:
        if name == self.when:
            self.what()


@pytest.fixture
def states_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which a file that was rewritten has the state that it had."""

    def state(file: LocalInput) -> FileState:
        return FileState(os.fstat(file.stream.fileno()).st_size, 1, None, 1)

    monkeypatch.setattr(LocalInput, "state", state)


def of_rows(rows: Path, make: MakeSettings, **sections: dict[str, Any]) -> Settings:
    data = {"path": str(rows), "features": None, "id_columns": []}
    return make(
        **{"data": data, "fit": {"n_components": 2}, "memory": {"held_bytes": 0}, **sections}
    )


@pytest.mark.usefixtures("states_tell_nothing")
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 8 * 9])
def test_what_is_labelled_has_the_pages_that_were_fitted(
    chunk_bytes: int, rows: Path, iris_settings: MakeSettings
) -> None:
    memory = {"held_bytes": 0, "chunk_bytes": chunk_bytes}
    rewriting = At("label", lambda: write_rows(rows, turned=True))
    with pytest.raises(InputChangedError, match=r"rows\.parquet: .*pages hold other values.*again"):
        run(of_rows(rows, iris_settings, memory=memory), rewriting)


@pytest.mark.usefixtures("states_tell_nothing")
def test_what_is_scored_has_the_pages_that_were_checked(
    rows: Path, iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(of_rows(rows, iris_settings))
    scoring = {"model": str(tmp_path / "out"), "output": {"path": str(tmp_path / "scored")}}
    settings = settings_from({"data": {"path": str(rows)}, **scoring}, ScoreSettings)
    with pytest.raises(InputChangedError, match="pages hold other values"):
        score(settings, At("label", lambda: write_rows(rows, turned=True)))
    assert score(settings).new


def stop() -> None:
    raise KeyboardInterrupt


def test_a_stopped_run_knows_what_it_read_and_goes_on_though_rights_changed(
    rows: Path, iris_settings: MakeSettings
) -> None:
    settings = of_rows(rows, iris_settings, output={"checkpoint_seconds": 0})
    with pytest.raises(KeyboardInterrupt):
        run(settings, At("label", stop))
    rows.chmod(0o600)
    again = run(settings)
    assert again.metrics["n_resumed"] == again.metrics["n_passes"] > 0
    assert len(list(Path(again.folder.store.url, "runs").iterdir())) == 1
    write_rows(rows, turned=True)
    assert run(settings).version.number == 2


@pytest.mark.usefixtures("states_tell_nothing")
def test_a_survey_that_was_kept_says_which_pages_it_is_of(
    rows: Path, iris_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmm_dask.stage.checkpoints.keeper.SHARE", 0)
    settings = of_rows(rows, iris_settings, output={"checkpoint_seconds": 0})
    with pytest.raises(KeyboardInterrupt):
        run(settings, At("label", stop))
    assert list(Path(settings.output.path).glob("runs/*/checkpoints/survey.json"))
    monkeypatch.setattr(engine, "survey", None)  # it is not made again
    with pytest.raises(InputChangedError, match="pages hold other values"):
        run(settings, At("label", lambda: write_rows(rows, turned=True)))
