"""Dask collections as blocks of features: each is looked at as it is computed."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import _check_n_features

from gmm_dask.errors import DataError, NotNumbersError
from gmm_dask.estimator.rows.forms import (
    Names,
    check_names,
    columns_of,
    header,
    lengths_of,
    order_of,
    weight_values,
)
from gmm_dask.estimator.rows.frames import (
    NO_VALUE,
    check_unique,
    frame_values,
    is_vector,
    kind_of_pandas,
)
from gmm_dask.estimator.rows.values import Headings, Values, array_values
from gmm_dask.kinds import MAY_BE_TAKEN, element, kind_of_class, kind_of_dtype, refusal

if TYPE_CHECKING:
    import dask.array as da

LISTS_AS_TEXT = (
    "of which Dask made text. Make the DataFrame with dask.config.set("
    "{'dataframe.convert-string': False}), or give the lists a type of Arrow."
)
_LIST_AS_TEXT = re.compile(r"[\[(](?:[\s\d+.,\[\]()-]|e[+-]|nan|inf|None)*[\])]")
NOTHING, NO_LIST = -1, -2  # in the place of a list's length


@dataclass(frozen=True)
class FramePart:
    """Partitions of a Dask DataFrame as features: by name, whatever their columns' order.

    Parameters
    ----------
    columns : tuple
        Columns that the DataFrame declares.
    own : tuple
        The features as these columns give them: an element of a list is one.
    features : tuple
        The features among the columns, in the order of the model.
    lengths : tuple of (name, int)
        Length of the lists of each column of lists.
    dtype : str
        Type of numbers that the result has at least.
    """

    columns: tuple[Any, ...]
    own: tuple[Any, ...]
    features: tuple[Any, ...]
    lengths: tuple[tuple[Any, int], ...]
    dtype: str

    def __call__(self, frame: Any, partition_info: dict[str, Any] | None = None) -> Values:
        """The features (n, d) of one partition.

        Raises
        ------
        DataError
            It has other columns than were declared, or of a kind that is no number.
        """
        number = "of the metadata" if partition_info is None else partition_info["number"]
        self._check(frame, f"partition {number}")
        if not len(frame):
            return np.empty((0, len(self.features)), self.dtype)
        if tuple(frame.columns) != self.columns:
            frame = frame[list(self.columns)]
        found = frame_values(frame, f"partition {number}, ", dict(self.lengths)).values
        if self._order is not None:
            found = found[:, list(self._order)]
        return found.astype(np.result_type(found, np.dtype(self.dtype)), copy=False)

    def in_own_order(self, result: Values) -> Values:
        """A result (n, d) of the model with its columns in the DataFrame's order."""
        order = order_of(self.features, self.own)
        return result if order is None else result[:, list(order)]

    @cached_property
    def _order(self) -> tuple[int, ...] | None:
        return order_of(self.own, self.features)

    def _check(self, frame: Any, partition: str) -> None:
        if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
            raise DataError(f"{partition}: is a {type(frame).__name__}, not a pandas DataFrame.")
        names = tuple(frame.columns)
        check_unique(names, f"{partition}, ")
        problems = [
            f"{partition}, column {name!r}: is missing, but the DataFrame declares it."
            for name in self.columns
            if name not in names
        ]
        problems += [
            f"{partition}, column {name!r}: is there, but the DataFrame does not declare it."
            for name in names
            if name not in self.columns
        ]
        if problems:
            remedy = "Give all partitions the columns of the metadata."
            raise DataError([*problems, remedy])


@dataclass(frozen=True)
class ArrayBlock:
    """Blocks of a Dask array as features.

    Parameters
    ----------
    n_features : int
    dtype : str
        Type of numbers that the result has at least.
    """

    n_features: int
    dtype: str

    def __call__(self, block: Any, block_info: dict[Any, Any] | None = None) -> Values:
        """The features (n, d) of one block; raises DataError where it is not as declared."""
        declared = None if block_info is None else block_info[None]
        where = f"block {0 if declared is None else declared['chunk-location'][0]}"
        if not isinstance(block, np.ndarray):
            raise DataError(
                f"{where}: is a {type(block).__name__}, not a NumPy array: convert it with "
                "map_blocks."
            )
        if block.ndim != 2 or block.shape[1] != self.n_features:
            raise DataError(
                f"{where}: has the shape {block.shape}, but the Dask array declares "
                f"{self.n_features} columns. Give all blocks as many."
            )
        n_rows = np.nan if declared is None else declared["chunk-shape"][0]
        if len(block) != n_rows and not np.isnan(n_rows):
            raise DataError(
                f"{where}: has {len(block)} rows, but the Dask array declares {n_rows}. Give "
                "map_blocks the right chunks, or have them looked at by compute_chunk_sizes."
            )
        found = array_values(block, Headings(f"{where}, "))
        return found.astype(np.result_type(found, np.dtype(self.dtype)), copy=False)


def frame_part(estimator: Any, X: Any, *, reset: bool) -> FramePart:
    """How the partitions of a Dask DataFrame become features; what it declares is checked."""
    columns = tuple(X.columns)
    check_unique(columns)
    _check_dtypes(X)
    fitted = None if reset else columns_of(estimator)
    lengths = _lengths(X, fitted, None if reset else estimator.n_features_in_)
    own = tuple(
        feature
        for name in columns
        for feature in (
            [element(name, i) for i in range(lengths[name])] if name in lengths else [name]
        )
    )
    check_unique(own, lists=lengths)
    empty = [f"column {name!r}: {NO_VALUE}" for name, length in lengths.items() if not length]
    if empty:
        raise NotNumbersError(empty)
    features = own if fitted is None or order_of(own, fitted) is None else fitted
    _check_features(estimator, header(features), features, reset)
    narrow = len(columns) > 0 and all(_is_narrow(dtype) for dtype in X._meta.dtypes)
    dtype = "float32" if narrow else "float64"
    return FramePart(columns, own, features, tuple(lengths.items()), dtype)


def checked_weights(weights: Any) -> da.Array:
    """Dask weights as an array of float64, which are looked at as they come."""
    _check_kind(weights, "sample_weight")
    if weights.ndim != 1:
        raise DataError(
            f"sample_weight must have one axis, one value a row; it has {weights.ndim}."
        )
    if not _is_array(weights):
        kind = kind_of_pandas(weights.dtype)
        if kind not in MAY_BE_TAKEN:
            raise NotNumbersError(refusal("sample_weight", f"is {weights.dtype}", kind))
        return weights.map_partitions(weight_values, meta=np.empty(0))
    _check_blocks(weights, "sample_weight")
    return weights.map_blocks(weight_values, dtype=np.float64, meta=np.empty(0))


def lazy_features(estimator: Any, X: Any, *, reset: bool) -> da.Array:
    """Rows of Dask as an array of features; raises DataError where they cannot be that."""
    _check_kind(X, "X")
    if not is_frame(X):
        return _array_features(estimator, X, reset)
    part = frame_part(estimator, X, reset=reset)
    if not part.features:
        raise DataError("X must have at least one feature.")
    return X.map_partitions(part, meta=np.empty((0, len(part.features)), part.dtype))


def is_frame(X: Any) -> bool:
    """Whether a Dask collection is a DataFrame."""
    return hasattr(type(X), "to_dask_array") and not _is_array(X) and X.ndim == 2


def _is_array(X: Any) -> bool:
    """Whether rows are a Dask array; where nobody has imported these, none is."""
    dask_array = sys.modules.get("dask.array")
    return dask_array is not None and isinstance(X, dask_array.Array)


def _array_features(estimator: Any, X: Any, reset: bool) -> da.Array:
    if X.ndim != 2:
        raise DataError(f"X must have two axes, rows and features; it has {X.ndim}.")
    if np.isnan(X.shape[1]):
        raise DataError("The number of X's columns must be known: call compute_chunk_sizes first.")
    _check_blocks(X, "every column")
    n_features = int(X.shape[1])
    _check_features(estimator, np.empty((1, n_features)), None, reset)
    if not n_features:
        raise DataError("X must have at least one feature.")
    X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
    dtype = "float32" if X.dtype == np.float32 else "float64"
    meta = np.empty((0, 0), dtype)
    return X.map_blocks(ArrayBlock(n_features, dtype), dtype=dtype, meta=meta)


def _check_kind(lazy: Any, name: str) -> None:
    if not _is_array(lazy) and not hasattr(type(lazy), "to_dask_array"):
        raise DataError(
            f"{name} is a Dask {type(lazy).__name__}: make it a Dask array or DataFrame, or "
            "compute it first."
        )


def _check_blocks(array: da.Array, name: str) -> None:
    if not isinstance(array._meta, np.ndarray):
        raise DataError(
            f"The blocks of the Dask array are {type(array._meta).__name__}, not NumPy arrays: "
            "convert them with map_blocks."
        )
    kind = kind_of_dtype(array.dtype)
    if kind not in MAY_BE_TAKEN:
        raise NotNumbersError(refusal(name, f"is {array.dtype}", kind))


def _check_dtypes(X: Any) -> None:
    """Raise NotNumbersError for all columns that are declared to be no numbers."""
    problems = []
    for name, dtype in X._meta.dtypes.items():
        kind = kind_of_pandas(dtype)
        if kind == "text" and _was_lists(X, name):
            problems.append(f"column {name!r}: holds lists, {LISTS_AS_TEXT}")
        elif kind not in MAY_BE_TAKEN:
            problems.append(refusal(f"column {name!r}", f"is {dtype}", kind))
    if problems:
        raise NotNumbersError(problems)


def _check_features(estimator: Any, named: Any, names: Names, reset: bool) -> None:
    try:
        _check_n_features(estimator, named, reset=reset)
        check_names(estimator, named, names, reset=reset)
    except (TypeError, ValueError) as error:
        raise DataError(str(error).split("\n")) from None


def _lengths(X: Any, fitted: Names, n_features: int | None) -> dict[Any, int]:
    """Lengths of the lists in columns of lists; computed only where a type leaves them open.

    Parameters
    ----------
    fitted : sequence, optional
        The names of the model's features.
    n_features : int, optional
        Number of features of the model.
    """
    known = {name: n for name, n in lengths_of(fitted or ()).items() if name in X.columns}
    open_ones = []
    for name, dtype in X._meta.dtypes.items():
        of_type = getattr(getattr(dtype, "pyarrow_dtype", None), "list_size", None)
        if of_type is not None:
            known[name] = of_type
        elif name not in known and _may_hold_lists(dtype):
            open_ones.append(name)
    if fitted is not None or not open_ones:
        return known
    if n_features is None:
        found = {name: _first_length(X, name) for name in open_ones}
        return known | {name: length for name, length in found.items() if length is not None}
    others = len(X.columns) - 1 - len(known) + sum(known.values())
    if len(open_ones) == 1 and (others + 1 != n_features or _is_list(X._meta.dtypes[open_ones[0]])):
        known[open_ones[0]] = max(n_features - others, 1)
    return known


def _first_length(X: Any, name: Any) -> int | None:
    """Length of the first list in a column of a DataFrame; None if the column holds no lists.

    The first partition is computed for it, and all others only where that holds nothing there.
    """
    for some in (X.partitions[[0]], X):
        lengths = some.map_partitions(_length_in, name, meta=np.empty(0, np.int64)).compute()
        found = lengths[lengths != NOTHING]
        if len(found):
            return None if found[0] == NO_LIST else int(found[0])
    return None


def _was_lists(X: Any, name: Any) -> bool:
    """Whether a column of text begins with a list that Dask made text of; a partition is computed.

    What cannot be computed is taken for text, as it is declared.
    """
    try:
        values = X.partitions[0][name].dropna().head(1, npartitions=1, compute=False).compute()
    except Exception:
        return False
    return len(values) > 0 and _LIST_AS_TEXT.fullmatch(str(values.iloc[0])) is not None


def _length_in(part: Any, name: Any) -> Values:
    """Length (1,) of the first list in a column of a partition, or NOTHING or NO_LIST."""
    columns = getattr(part, "columns", ())
    values = part[name] if list(columns).count(name) == 1 else ()
    for cls, value in zip(map(type, values), values, strict=True):
        is_nan = isinstance(value, float) and np.isnan(value)
        if kind_of_class(cls) != "absent" and not is_nan:
            return np.array([len(value) if is_vector(value) else NO_LIST])
    return np.array([NOTHING])


def _is_list(dtype: Any) -> bool:
    type_ = getattr(dtype, "pyarrow_dtype", None)
    if type_ is None:
        return False
    from gmm_dask.storage import is_list

    return is_list(type_)


def _may_hold_lists(dtype: Any) -> bool:
    return kind_of_pandas(dtype) == "object" or _is_list(dtype)


def _is_narrow(dtype: Any) -> bool:
    return str(dtype) in ("float32", "Float32", "float[pyarrow]")
