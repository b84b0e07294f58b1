"""Pages that are hashed while a fit goes on are those that labels would have hashed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask.errors import DataError, InputChangedError
from gmm_dask.stage import fit as fit_module
from gmm_dask.stage import hashing
from gmm_dask.stage import labelling as label
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage.input.inputs import FileState, LocalInput
from tests.stage.conftest import MakeSettings

pytestmark = pytest.mark.usefixtures("nothing_drawn")

IN_THE_THREAD = "hashing"


@pytest.fixture
def hashed_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that hashed a chunk, of a run that is long enough for one."""
    threads: list[str] = []
    of_chunk = label.content_of

    def noted(*arguments: Any) -> str:
        threads.append(threading.current_thread().name)
        return of_chunk(*arguments)

    monkeypatch.setattr(hashing, "WORTH", 1)
    monkeypatch.setattr(hashing, "content_of", noted)
    monkeypatch.setattr(label, "content_of", noted)
    return threads


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that ends when all is hashed."""
    ended, over = threading.Event(), hashing._hash

    def told(*arguments: Any) -> None:
        over(*arguments)
        ended.set()

    fit_from_sample = fit_module.fitting.fit_from_sample

    def waiting(*arguments: Any, **options: Any) -> Any:
        assert ended.wait(60)
        return fit_from_sample(*arguments, **options)

    monkeypatch.setattr(hashing, "_hash", told)
    monkeypatch.setattr(fit_module.fitting, "fit_from_sample", waiting)


def contents(published: Published) -> bytes:
    return Path(published.folder.path("contents.json")).read_bytes()


@pytest.mark.usefixtures("patient")
def test_each_chunk_is_hashed_once_with_the_same_hash(
    iris_settings: MakeSettings,
    hashed_in: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    beside = run(iris_settings())
    assert set(hashed_in) == {IN_THE_THREAD}
    n_hashed = len(hashed_in)
    monkeypatch.undo()
    after = run(iris_settings(output={"path": str(tmp_path / "after")}))
    assert n_hashed == len(list(Path(after.folder.path("receipts")).iterdir()))
    assert contents(beside) == contents(after)


def test_chunks_that_are_not_held_are_left_to_the_labels(
    iris_settings: MakeSettings, hashed_in: list[str]
) -> None:
    run(iris_settings(memory={"held_bytes": 0}))
    assert hashed_in
    assert IN_THE_THREAD not in hashed_in


def test_a_file_that_changed_is_the_error_of_the_run(
    iris_settings: MakeSettings,
    hashed_in: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rows = tmp_path / "rows.parquet"
    source = next((Path(__file__).parents[2] / "examples" / "iris").rglob("*.parquet"))
    rows.write_bytes(source.read_bytes())
    settings = iris_settings(data={"path": str(rows), "id_columns": []})
    begin = hashing._hash

    def touched(*arguments: Any) -> None:
        os.utime(rows, (1, 1))
        begin(*arguments)

    monkeypatch.setattr(hashing, "_hash", touched)
    with pytest.raises(InputChangedError, match=r"rows\.parquet"):
        run(settings)


def test_nothing_goes_on_after_a_fit_that_failed(
    iris_settings: MakeSettings, hashed_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise DataError("as told")

    monkeypatch.setattr(fit_module.fitting, "fit_from_sample", failing)
    with pytest.raises(DataError, match="as told"):
        run(iris_settings())
    assert IN_THE_THREAD not in [each.name for each in threading.enumerate()]


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
    monkeypatch.setattr("gmm_dask.stage.checkpoints.survey.SHARE", 0)
    settings = of_rows(rows, iris_settings, output={"checkpoint_seconds": 0})
    with pytest.raises(KeyboardInterrupt):
        run(settings, At("label", stop))
    assert list(Path(settings.output.path).glob("runs/*/checkpoints/survey.json"))
    monkeypatch.setattr(fit_module, "survey", None)  # it is not made again
    with pytest.raises(InputChangedError, match="pages hold other values"):
        run(settings, At("label", lambda: write_rows(rows, turned=True)))
