"""Our own commands look for cycles of garbage rarely; who imports the package is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import gc

before = gc.get_threshold()
import gmm_dask, gmm_dask.command.cli, gmm_dask.stage.run
assert gc.get_threshold() == before
assert not gc.get_freeze_count()
gmm_dask.command.cli.app = lambda prog_name: print("called")
gmm_dask.command.cli.main()
assert gc.isenabled()
assert gc.get_threshold()[0] > before[0]
"""


def test_only_our_commands_set_what_their_process_does() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=root, check=True, timeout=120, stdout=subprocess.PIPE
    )
    assert done.stdout == b"called\n"
