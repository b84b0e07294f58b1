"""The compiled core as ctypes sees it: where the library is, its records and its functions."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gmm_dask.errors import SettingsError

LEVELS = {2: "x86-64-v2", 3: "x86-64-v3", 4: "x86-64-v4", 8: "aarch64"}
ALIGNMENT = 64  # bytes: a cache line, which sums begin with

_POINTER = ctypes.c_void_p
_INTEGER = ctypes.c_int64
_NUMBER = ctypes.c_double


class Task(ctypes.Structure):
    """Rows and a mixture; the fields are those of gmm_task in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("d", _INTEGER), ("k", _INTEGER),
        ("is_single", _INTEGER), ("form", _INTEGER), ("has_float_rows", _INTEGER),
        ("X", _POINTER), ("weights", _POINTER),
        ("n_factors", _INTEGER),
        ("means", _POINTER), ("rests", _POINTER), ("factors", _POINTER), ("log_weights", _POINTER),
        ("shift", _POINTER), ("top", _NUMBER), ("far_limit", _NUMBER), ("least", _NUMBER),
        ("n_directions", _INTEGER), ("n_seen", _INTEGER), ("n_screen_factors", _INTEGER),
        ("centre", _POINTER), ("directions", _POINTER), ("screen_means", _POINTER),
        ("biases", _POINTER), ("screen_factors", _POINTER), ("offsets", _POINTER),
        ("worth", _NUMBER),
        ("far", _POINTER), ("most_far", _INTEGER), ("n_far", _INTEGER),
    ]  # fmt: skip
    kept_alive: object  # an array that only this record refers to


class Sums(ctypes.Structure):
    """Sums over rows; the fields are those of gmm_sums in core.h."""

    _fields_ = [
        ("log_likelihood", _NUMBER),
        ("sum_resp", _POINTER),
        ("sum_x", _POINTER),
        ("sum_xx", _POINTER),
    ]


class Climb(ctypes.Structure):
    """Steps of EM for small mixtures; the fields are those of gmm_climb in core.h."""

    _fields_ = [
        ("family", _INTEGER), ("n_steps", _INTEGER), ("is_accelerated", _INTEGER),
        ("tol", _NUMBER), ("added", _POINTER), ("prior_scale", _POINTER), ("prior_rows", _NUMBER),
        ("n_mixtures", _INTEGER), ("weights", _POINTER), ("means", _POINTER),
        ("covariances", _POINTER), ("sum_resp", _POINTER), ("log_likelihood", _POINTER),
        ("n_done", _POINTER), ("ending", _POINTER),
    ]  # fmt: skip


class Scores(ctypes.Structure):
    """Scores of rows; the fields are those of gmm_scores in core.h."""

    _fields_ = [
        ("labels", _POINTER),
        ("log_density", _POINTER),
        ("max_responsibility", _POINTER),
        ("responsibilities", _POINTER),
    ]


class Look(ctypes.Structure):
    """A first look at rows; the fields are those of gmm_look in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("d", _INTEGER), ("has_float_rows", _INTEGER), ("X", _POINTER),
        ("moments", _POINTER), ("salt", ctypes.c_uint64), ("keys", _POINTER),
    ]  # fmt: skip


class Groups(ctypes.Structure):
    """Rows and the nearest of some centres; the fields are those of gmm_groups in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("d", _INTEGER), ("k", _INTEGER),
        ("n_sweeps", _INTEGER), ("still", _NUMBER),
        ("X", _POINTER), ("weights", _POINTER), ("centres", _POINTER),
        ("labels", _POINTER), ("held", _POINTER), ("sums", _POINTER),
    ]  # fmt: skip


class Seeds(ctypes.Structure):
    """Rows that lie far from one another; the fields are those of gmm_seeds in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("d", _INTEGER), ("k", _INTEGER), ("n_trials", _INTEGER),
        ("X", _POINTER), ("weights", _POINTER), ("draws", _POINTER), ("chosen", _POINTER),
    ]  # fmt: skip


class Column(ctypes.Structure):
    """Values of a column; the fields are those of gmm_column in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("values", _POINTER), ("weights", _POINTER), ("order", _POINTER),
        ("variance_within", _NUMBER),
    ]  # fmt: skip


class Factors(ctypes.Structure):
    """Rows and low-rank components; the fields are those of gmm_factors in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("d", _INTEGER), ("k", _INTEGER), ("q", _INTEGER),
        ("has_float_rows", _INTEGER), ("X", _POINTER), ("means", _POINTER),
        ("gains", _POINTER), ("loadings", _POINTER), ("reciprocals", _POINTER),
        ("resp", _POINTER), ("squares", _POINTER), ("sum_x", _POINTER), ("scatter", _POINTER),
    ]  # fmt: skip


class Reasons(ctypes.Structure):
    """Rows and what columns say given the others; the fields are those of gmm_reasons in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("d", _INTEGER), ("k", _INTEGER), ("m", _INTEGER),
        ("has_float_rows", _INTEGER), ("X", _POINTER), ("components", _POINTER),
        ("others", _POINTER), ("means", _POINTER), ("spreads", _POINTER), ("logs", _POINTER),
        ("n_factors", _INTEGER), ("factors", _POINTER), ("scaled", _POINTER),
        ("q", _INTEGER), ("gains", _POINTER), ("loadings", _POINTER),
        ("n_covariances", _INTEGER), ("covariances", _POINTER),
        ("columns", _POINTER), ("scores", _POINTER), ("expected", _POINTER),
        ("label_columns", _POINTER), ("evidence", _POINTER),
    ]  # fmt: skip


class TwoBest(ctypes.Structure):
    """Numbers of rows; the fields are those of gmm_two_best in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("k", _INTEGER), ("values", _POINTER), ("first", _POINTER),
        ("second", _POINTER),
    ]  # fmt: skip


class Curve(ctypes.Structure):
    """Values to be found on a curve; the fields are those of gmm_curve in core.h."""

    _fields_ = [
        ("n", _INTEGER), ("n_points", _INTEGER), ("values", _POINTER), ("x", _POINTER),
        ("y", _POINTER), ("found", _POINTER),
    ]  # fmt: skip


def library_name() -> str:
    """The file name of the library for this platform: a checkout on a shared disk may have many."""
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    return f"_core-{sys.platform}-{platform.machine().lower()}.{suffix}"


# The records that each function of core.h takes, before the level.
_FUNCTIONS: dict[str, tuple[type[ctypes.Structure], ...]] = {
    "gmm_expect": (Task, Sums),
    "gmm_score": (Task, Scores),
    "gmm_climb_all": (Task, Climb),
    "gmm_look_at": (Look,),
    "gmm_settle": (Groups,),
    "gmm_seed": (Seeds,),
    "gmm_put_in_order": (Column,),
    "gmm_measure_low_rank": (Factors,),
    "gmm_sum_low_rank": (Factors,),
    "gmm_explain": (Reasons,),
    "gmm_find_two_best": (TwoBest,),
    "gmm_interpolate": (Curve,),
}


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it was not built for this platform, or from other sources."""
    path = Path(__file__).parent / library_name()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:
        return None
    if not all(hasattr(loaded, name) for name in _FUNCTIONS):
        return None
    for name, records in _FUNCTIONS.items():
        getattr(loaded, name).argtypes = [*map(ctypes.POINTER, records), ctypes.c_int]
    loaded.gmm_exp_log.argtypes = [_POINTER, _POINTER, _POINTER, _INTEGER, ctypes.c_int]
    return loaded


def is_there() -> bool:
    """Whether this installation has the compiled core."""
    return library() is not None


def level() -> int:
    """The level that runs: the best of this processor, or a lower one that GMM_DASK_LEVEL names.

    Raises
    ------
    SettingsError
        The processor, or the library, has no such level.
    """
    loaded, asked = library(), os.environ.get("GMM_DASK_LEVEL")
    if loaded is None:
        return 0
    best = int(loaded.gmm_level())
    if not asked:
        return best
    names = {name: number for number, name in LEVELS.items()}
    if asked not in names or not (names[asked] == best or names[asked] <= best < 8):
        able = ", ".join(name for number, name in LEVELS.items() if number <= best)
        raise SettingsError(f"GMM_DASK_LEVEL is {asked!r}; this processor runs {able}.")
    return names[asked]


def level_name() -> str:
    """The level that runs in words; "numpy" where there is no compiled core."""
    return LEVELS.get(level(), "numpy")


def call(function: str, *records: ctypes.Structure) -> None:
    """Call a function of the library, without Python's lock.

    Raises
    ------
    MemoryError
        There is no room for a tile.
    SettingsError
        There is no library here.
    """
    loaded = library()
    if loaded is None:
        raise SettingsError(
            f"{Path(__file__).parent / library_name()} cannot be loaded: the driver has the "
            "compiled core and this process has not. Install gmm_dask in the same way everywhere."
        )
    failed = getattr(loaded, function)(*map(ctypes.byref, records), level())
    if failed:
        raise MemoryError(f"{function}: no memory for the rows of a tile.")


def aligned_zeros(*shape: int) -> npt.NDArray[np.float64]:
    """Zeros that begin with a cache line and share none with another array."""
    n = math.prod(shape)
    raw = np.zeros(n + 2 * ALIGNMENT // 8)
    first = -(raw.ctypes.data // 8) % (ALIGNMENT // 8)
    return raw[first : first + n].reshape(shape)


def address(array: npt.NDArray[Any] | None) -> int | None:
    """Where the values of a C-contiguous array lie; the caller keeps the array alive."""
    if array is None or not array.size:
        return None
    return int(array.__array_interface__["data"][0])  # `ctypes.data` takes four times as long
