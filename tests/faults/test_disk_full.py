"""A disk that is full: a named error, nothing published, and a rerun once there is room."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from gmm_dask.stage.settings import Settings
from tests.by_hand import ROOT

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


@cache
def can_mount() -> bool:
    """Whether this user may have file systems of its own."""
    command = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_on_a_disk_of_any_size_a_run_is_published_or_says_what_to_do(
    settings: Settings, tmp_path: Path
) -> None:
    if not can_mount():
        pytest.skip("this user may not mount a file system of its own")
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    command = [sys.executable, "-m", "tests.faults.full", str(tmp_path / "settings.json")]
    done = subprocess.run(
        [*UNSHARE, *command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *full, (said, had_published, undisturbed) = map(json.loads, done.stdout.splitlines())
    assert (said, had_published) == ("", True)
    assert len(full) > 10
    for said, had_published, bits in full:
        assert "No space left on device; free some space and run again" in said
        assert not had_published
        assert bits == undisturbed
