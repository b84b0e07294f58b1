"""What a retry can help, and what flows say of an ending; no server is needed."""

from __future__ import annotations

import errno
import logging
import math
import pickle
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from httpx import ConnectError

from gmm_dask.errors import (
    CheckpointError,
    ClusterError,
    DataError,
    DeadlyChunkError,
    InputChangedError,
    InputError,
    ModelFileError,
    OutputError,
    SettingsError,
    SingularCovarianceError,
)
from gmm_dask.fitting import Pass
from gmm_dask.flows import artifacts, watching
from gmm_dask.flows.artifacts import HEADS, feature_heads
from gmm_dask.flows.tasks import completed, failed, retry_can_help
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.settings import FitSettings
from gmm_dask.storage import RunFolder, list_versions
from gmm_dask.storage.store.version_log import read_version
from tests.storage.stores import OTHER, RUN, MemoryStore, publish_run, small_model


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ClusterError("lost"), True),
        (DeadlyChunkError("workers die on chunk 5"), False),
        (OSError(errno.EIO, "input/output error"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (caused(OutputError("cannot write"), OSError(errno.EIO, "io")), True),
        (caused(OutputError("cannot write"), OSError(errno.EACCES, "denied")), False),
        (caused(InputError("cannot read"), OSError(errno.EIO, "io")), True),
        (OSError(errno.ENOSPC, "disk full"), False),
        (DataError("a null"), False),
        (InputChangedError("replaced"), False),
        (OutputError("damaged"), False),
        (CheckpointError("of another run"), False),
        (ModelFileError("damaged"), False),
        (SingularCovarianceError("no density"), False),
        (SettingsError("unknown key"), False),
        (ValueError("a defect"), False),
    ],
)
def test_only_lost_clusters_and_silent_storage_are_tried_again(
    error: Exception, helps: bool
) -> None:
    assert retry_can_help(error) is helps
    assert retry_can_help(pickle.loads(pickle.dumps(error))) is helps  # from a worker


def test_a_failed_state_says_what_the_error_says() -> None:
    state = failed(DataError("a.parquet, row group 2, column 'x': 3 missing values"))
    assert state.is_failed()
    assert "row group 2" in state.message


@pytest.mark.parametrize(
    ("new", "earlier", "said"),
    [
        (True, None, "Version 3 is published."),
        (True, 1, "This run was published before as version 1; version 3 now points to it"),
        (False, 3, "This run is the latest version already, version 3; nothing was written."),
    ],
)
def test_a_completed_state_and_the_page_of_outputs_say_what_was_published(
    new: bool, earlier: int | None, said: str
) -> None:
    store = MemoryStore()
    for run in (RUN, OTHER, RUN):
        publish_run(store, run)
    *_, version = list_versions(store)
    found = None if earlier is None else read_version(store, earlier)
    metrics: dict[str, Any] = dict.fromkeys(("log_likelihood", "bic", "aic", "icl"), 0.0)
    metrics |= {"log_likelihood_per_row": 0.0, "n_used": 12, "n_rows": 12}
    published = Published(RunFolder(store, RUN), version, new, small_model(), metrics, found)
    state = completed(published)
    assert state.is_completed()
    assert state.message.startswith(said)
    assert state.message.endswith(f"runs/{RUN}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Published, "places", {"model": "runs/model.json"})
        page = artifacts.outputs_markdown(published)
    assert page.startswith("## Version 3\n")
    assert said in page
    assert f"| published | {str(version.published)[:10]} " in page


def logged(name: str, error: Exception) -> logging.LogRecord | None:
    """What is left of a record with the error's traceback in a logger of Prefect's."""
    traceback = (type(error), error, None)
    said = "Engine execution exited with unexpected exception"
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, said, (), traceback)
    return record if logging.getLogger(name).filter(record) else None


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.engine"])
def test_an_expected_error_is_logged_in_its_words(name: str) -> None:
    record = logged(name, DataError("a.parquet: 3 missing values"))
    assert record is not None
    assert (record.getMessage(), record.exc_info) == ("a.parquet: 3 missing values", None)


def test_a_server_that_is_away_is_logged_without_a_traceback() -> None:
    record = logged("prefect.flow_runs", ConnectError("connection refused"))
    assert record is not None
    assert record.exc_info is None


@pytest.mark.parametrize("name", ["prefect.task_runs", "prefect.flow_runs", "prefect.engine"])
def test_a_defect_keeps_its_traceback(name: str) -> None:
    record = logged(name, KeyError("a defect"))
    assert record is not None
    assert record.exc_info is not None
    assert "unexpected" in record.getMessage()


@pytest.mark.parametrize(
    "names", [("x", "y"), ("weight", "rows", "component"), ("weight", "weight (feature)")]
)
def test_no_feature_takes_the_place_of_another_column(names: tuple[str, ...]) -> None:
    heads = feature_heads(names)
    assert len({*HEADS, *heads}) == len(HEADS) + len(names)
    assert all(head.startswith(name) for head, name in zip(heads, names, strict=True))
    kept = [head for head, name in zip(heads, names, strict=True) if head == name]
    assert kept == [name for name in names if name not in HEADS]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), DataError("a")])
def test_a_bar_of_what_has_ended_shows_no_time_left(
    error: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def show(*_: Any, description: str, **__: Any) -> UUID:
        said.append(description)
        return UUID(int=1)

    monkeypatch.setattr(watching, "get_run_logger", lambda: logging.getLogger("tests"))
    monkeypatch.setattr(watching, "create_progress_artifact", show)
    monkeypatch.setattr(watching, "update_progress_artifact", show)
    with suppress(KeyboardInterrupt, DataError), watching.FlowWatcher("key") as watcher:
        watcher.passed(
            Pass(1, 1, -2.5, math.inf, 0.5, 1000, small_model().parameters), FitSettings()
        )
        assert said[-1].endswith("s left.")
        if error is not None:
            raise error
    assert "left" not in said[-1]
    assert said[-1] == "Done." if error is None else said[-1].startswith("Stopped. pass 1 of")
