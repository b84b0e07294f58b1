"""Reports without pictures, which take longer than a small run; `python -m tests.undrawn fit ...`.

The last is `gmm-dask fit ...` in a process of its own.
"""

from __future__ import annotations

import runpy
from typing import Any

from gmm_dask.stage.report import html

DRAWN = html.pictures
NAMES = ("clusters", "densities", "pairs", "certainty", "profile", "curve")


def blank(data: Any) -> dict[str, bytes]:
    """Instead of `DRAWN`."""
    return dict.fromkeys(NAMES, b"")


if __name__ == "__main__":
    html.pictures = blank
    runpy.run_module("gmm_dask", run_name="__main__", alter_sys=True)
