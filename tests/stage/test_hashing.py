"""Pages that are hashed while a fit goes on are those that labels would have hashed."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import DataError, InputChangedError
from gmm_dask.stage import fit as fit_module
from gmm_dask.stage import hashing, label
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run
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
