"""Cycles of garbage in a process of our own: they are looked for rarely, and not at its end."""

from __future__ import annotations

import atexit
import gc

# Python's own 700 new objects are reached all the time while packages are imported, and every
# search goes through more of them: a tenth of the time of a run over 10 million rows.
NEW_OBJECTS = (50_000, 20, 20)


def collect_rarely() -> None:
    """Spare searches for cycles: for the processes of our own commands alone.

    The last one, at the end of the process, is left out: 0.7 s after a run over 10 million rows.
    """
    gc.set_threshold(*NEW_OBJECTS)
    atexit.register(gc.freeze)
