"""What a retry can help, and what flows say of an ending; no server is needed."""

from __future__ import annotations

import errno

import pytest

from flows.tasks import failed, retry_can_help
from gmm_dask.errors import ClusterError, DataError, OutputError, SettingsError


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ClusterError("lost"), True),
        (OSError(errno.EIO, "input/output error"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (caused(OutputError("cannot write"), OSError(errno.EIO, "io")), True),
        (caused(OutputError("cannot write"), OSError(errno.EACCES, "denied")), False),
        (OSError(errno.ENOSPC, "disk full"), False),
        (DataError("a null"), False),
        (SettingsError("unknown key"), False),
        (ValueError("a defect"), False),
    ],
)
def test_only_lost_clusters_and_silent_storage_are_tried_again(
    error: Exception, helps: bool
) -> None:
    assert retry_can_help(error) is helps


def test_a_failed_state_says_what_the_error_says() -> None:
    state = failed(DataError("a.parquet, row group 2, column 'x': 3 missing values"))
    assert state.is_failed()
    assert "row group 2" in state.message
