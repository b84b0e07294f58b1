"""How the loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

_OPTIONS = {"nogil": True, "error_model": "numpy"}

# A loop makes no arrays and keeps none, so its parts of arrays are not counted as references: the
# counters of a mixture's arrays would be changed by all threads at once, several times a block.
# It must not return an array that it was not given.
_UNCOUNTED = _OPTIONS | {"_nrt": False}

loop: Callable[..., Any] = partial(numba.njit, **_UNCOUNTED)
# A loop that is called for every block or component: a call would write each array's fields down.
inlined: Callable[..., Any] = partial(numba.njit, forceinline=True, **_UNCOUNTED)
# What gives loops their room.
makes_arrays: Callable[..., Any] = partial(numba.njit, **_OPTIONS)


def cached(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, and cached on disk where there is a place for that."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # nowhere to write: it is compiled in every process
        return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]
