"""The different sets of columns that files of a dataset have, and whether one type holds all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from gmm_dask.storage.input.columns.column_types import (
    common_type,
    has_nested_dictionary,
    key_value,
    plain_type,
)
from gmm_dask.storage.input.inputs import Problems
from gmm_dask.storage.input.parquet.footers import Column, Footer

ONE_TYPE = "Write it with one type in all files"


@dataclass(frozen=True, eq=False)
class Variant:
    """A set of columns, and the files that have it.

    Parameters
    ----------
    columns : tuple of (name, Arrow type)
        Columns of the files.
    keys : tuple of (name, Arrow type)
        Keys of their folders; the type of a key that is also a column is the type of the column.
    files : tuple of str
    """

    columns: tuple[Column, ...]
    keys: tuple[Column, ...]
    files: tuple[str, ...]

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """Type by name, of the columns of the files."""
        return dict(self.columns)

    @cached_property
    def all_types(self) -> dict[str, pa.DataType]:
        """Type by name, of columns and keys."""
        return dict((*self.columns, *self.keys))


def variants_of(footers: Iterable[Footer]) -> tuple[Variant, ...]:
    """The sets of columns that files have."""
    files: dict[tuple[tuple[Column, ...], tuple[Column, ...]], list[str]] = {}
    for footer in footers:
        types = dict(footer.columns)
        keys = tuple((key.name, types.get(key.name, key.type)) for key in footer.keys)
        files.setdefault((footer.columns, keys), []).append(footer.name)
    return tuple(Variant(*columns, tuple(names)) for columns, names in files.items())


def all_columns(variants: Iterable[Variant]) -> dict[str, pa.DataType]:
    """Every column of any file, the first file's first, with the one type of all where it is."""
    types: dict[str, list[pa.DataType]] = {}
    for variant in variants:
        for name, type_ in variant.columns:
            types.setdefault(name, []).append(type_)
    return {name: common_type(each) or plain_type(each[0]) for name, each in types.items()}


def check_one_type(
    name: str, setting: str, variants: Sequence[Variant], problems: Problems
) -> None:
    """Report each file whose column fits no type together with those of the files before."""
    expected, witness = pa.null(), variants[0]
    for variant in variants:
        type_ = variant.all_types.get(name, pa.null())
        for file in variant.files if has_nested_dictionary(type_) else ():
            line = (
                f"{file}, column {name!r}: is {type_}; a dictionary inside of another type "
                f"cannot be read in pieces. Write plain values, or leave it out of {setting}."
            )
            problems.add(f"files where the column {name!r} has a dictionary inside", line)
        wider = common_type((expected, type_))
        if wider is not None:
            expected, witness = wider, witness if wider == plain_type(expected) else variant
            continue
        for file in variant.files:
            line = (
                f"{file}, column {name!r}: is {type_}, but {expected} in "
                f"{witness.files[0]}, and no type holds both exactly. {ONE_TYPE}, or leave "
                f"it out of {setting}."
            )
            problems.add(f"files where the column {name!r} is of another type", line)


def widened_columns(
    names: Iterable[str], keys: Sequence[str], variants: Sequence[Variant]
) -> Iterator[Column]:
    """Columns of the labels that some file has with a narrower type, and keys that have a type."""
    for name in names:
        types = {each.all_types[name] for each in variants if name in each.all_types}
        shared = common_type(types)
        if name in keys:
            is_wider = shared is not None and shared not in (pa.string(), pa.null())
        else:
            is_wider = shared is not None and set(map(plain_type, types)) != {shared}
        if is_wider:
            yield name, shared


def check_texts(
    footers: Iterable[Footer], types: Mapping[str, pa.DataType], problems: Problems
) -> None:
    """Report folder keys that are no values of the type which the column has in other files."""
    for footer in footers:
        for name, text, type_ in footer.keys:
            if name not in types or name in dict(footer.columns) or not pa.types.is_null(type_):
                continue
            try:
                key_value(text, types[name])
            except pa.ArrowException:
                line = (
                    f"{footer.name}: its folder is that of {name}={text!r}, which is no "
                    f"{types[name]}, as the column {name!r} of other files is. Rename the folder, "
                    "or leave the column out of the labels."
                )
                problems.add(f"folder keys {name!r} that are of another type", line)
