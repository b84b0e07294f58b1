"""One schema for all files of a dataset, or every reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from unicodedata import normalize

import numpy as np
import pyarrow as pa

from gmm_dask.kinds import refusal
from gmm_dask.storage.input.columns.selection import (
    Selection,
    cast_of,
    check_elements,
    column_of,
    common_length,
    expanded,
    is_list,
    is_number,
    kind_of,
    number_type,
    slots_of,
    value_type,
)
from gmm_dask.storage.input.columns.variants import (
    Variant,
    all_columns,
    check_one_type,
    check_texts,
    variants_of,
    widened_columns,
)
from gmm_dask.storage.input.inputs import Problems
from gmm_dask.storage.input.parquet.footers import Column, Footer
from gmm_dask.storage.records.codec import MAX_TEXT

MAX_NAMES = 30  # columns that one message lists
OF_THE_MODEL = "features of the model"  # which rows to score cannot do without
FLOAT32_HOLDS = {
    *(pa.float16(), pa.float32(), pa.int8(), pa.int16(), pa.uint8(), pa.uint16(), pa.null()),
}


@dataclass(frozen=True)
class Schema:
    """What the files of a dataset have in common; the fields mean what they mean in Plan."""

    features: tuple[str, ...]
    dtype: str
    feature_types: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    key_columns: tuple[str, ...]
    cast: tuple[tuple[str, str], ...]
    widened: tuple[Column, ...]


def common_schema(footers: Sequence[Footer], selection: Selection, problems: Problems) -> Schema:
    """The schema that all files share; every disagreement on columns with a role is a problem.

    Files of no rows have no say in columns, because nothing is read from them.
    """
    in_use = [each for each in footers if each.n_rows]
    is_empty_batch = not in_use and not selection.to_fit
    keys = _key_columns(footers, problems)
    variants = variants_of(in_use or footers)
    typed = all_columns(variants)
    if is_empty_batch:
        variants = (_of_no_rows(variants, selection, keys),)
    _check_names(variants, problems)
    columns = all_columns(variants)
    index = frozenset[str]().union(*(footer.index_columns for footer in footers))
    named = _features(variants, selection, {*keys, *index}, problems)
    used = dict.fromkeys(column_of(name, columns) for name in named)
    setting = "data.features" if selection.to_fit else OF_THE_MODEL
    of_lists = {slot.column for slot in slots_of(named, columns) if slot.length}
    for name in used:
        if _is_column(name, setting, variants, keys, problems):
            # A model says which of its features are elements of lists; the others are numbers.
            of_a_fit = selection.to_fit and any(map(is_list, _types_of(name, variants)))
            in_lists = name in of_lists or of_a_fit
            _check_numbers(name, setting, variants, selection, problems, in_lists)
    lengths = {
        name: common_length(name, in_use, named, problems)
        for name in used
        if any(map(is_list, _types_of(name, variants)))
    }
    features = tuple(expanded(named, lengths))
    check_elements(features, lengths, columns, setting, problems)
    for name in features:
        _check_name(name, problems)
    weight = selection.weight_column
    if weight is not None and _is_column(weight, "data.weight_column", variants, keys, problems):
        _check_numbers(weight, "data.weight_column", variants, selection, problems)
    carried = _carried(selection, variants, keys, problems)
    types = [
        {number_type(value_type(type_)) for type_ in _types_of(column_of(name, columns), variants)}
        for name in features
    ]
    narrow = all(each <= FLOAT32_HOLDS for each in types)
    widened = tuple(widened_columns(carried, keys, variants))
    if is_empty_batch:  # no file is asked again for its types
        widened += tuple(
            (name, typed[name]) for name in carried if name in typed and name not in keys
        )
    check_texts(footers, dict(widened), problems)
    return Schema(
        features,
        "float32" if narrow else "float64",
        tuple(map(_widest, types)),
        tuple((name, str(type_)) for name, type_ in columns.items()),
        keys,
        tuple(_cast((*used, *(() if weight is None else (weight,))), variants)),
        widened,
    )


def _carried(
    selection: Selection, variants: tuple[Variant, ...], keys: tuple[str, ...], problems: Problems
) -> tuple[str, ...]:
    """The columns and keys that go to the labels, each once."""
    every = (*all_columns(variants), *keys) if selection.keep == "all" else ()
    carried = tuple(dict.fromkeys((*selection.carried, *every)))
    for name in carried:
        setting = "data.id_columns" if name in selection.id_columns else "labels.keep"
        if name in keys or _is_column(name, setting, variants, keys, problems):
            check_one_type(name, setting, variants, problems)
    return carried


def _of_no_rows(
    variants: Sequence[Variant], selection: Selection, keys: tuple[str, ...]
) -> Variant:
    """The columns of a dataset without rows: those of any file, or else those that were asked for.

    Features and the weight get the null type, because a writer that has no values cannot know
    their type.
    """
    columns = all_columns(variants)
    features = (column_of(name, columns) for name in selection.features or ())
    computed = {*features, *filter(None, [selection.weight_column])}
    if not columns:
        columns = dict.fromkeys((*computed, *selection.carried), pa.null())
    untyped = dict.fromkeys(columns.keys() & computed, pa.null())
    files = (file for variant in variants for file in variant.files)
    return Variant(
        tuple((name, type_) for name, type_ in (columns | untyped).items() if name not in keys),
        tuple((name, columns.get(name, pa.null())) for name in keys),
        tuple(files),
    )


def _key_columns(footers: Sequence[Footer], problems: Problems) -> tuple[str, ...]:
    """Keys of the folders `key=value`, which must be the same for all files."""
    first = tuple(key.name for key in footers[0].keys)
    for footer in footers:
        keys, name = tuple(key.name for key in footer.keys), footer.name
        if len(set(keys)) < len(keys):
            line = f"{name}: a folder key appears twice in its path. Rename one folder."
            problems.add("files with a folder key twice", line)
        elif keys != first:
            line = (
                f"{name}: lies under the folder keys {_listed(keys)}, but "
                f"{footers[0].name} under {_listed(first)}. "
                "Give all files the same folders key=value."
            )
            problems.add("files under other folder keys", line)
    return tuple(dict.fromkeys(first))


def _check_names(variants: Iterable[Variant], problems: Problems) -> None:
    for variant in variants:
        counts = Counter(name for name, _ in variant.columns)
        for name, count in counts.items():
            for file in variant.files if count > 1 else ():
                line = (
                    f"{file}: the column name {name!r} appears {count} times. "
                    "Write the file with different names."
                )
                problems.add(f"files with two columns {name!r}", line)


def _features(
    variants: Iterable[Variant], selection: Selection, others: set[str], problems: Problems
) -> tuple[str, ...]:
    """The features named, or every column that is a number in any file and has no other role.

    Where there are none, the one column of lists of numbers. `others` are folder keys, and columns
    that were the index of a frame: not features by default.
    """
    if selection.features is not None:
        for name, count in Counter(selection.features).items():
            if count > 1:
                problems.add("twice", f"data.features: {name!r} is named {count} times.")
        if selection.weight_column in selection.features:
            line = (
                f"data.features: {selection.weight_column!r} is the weight, it cannot be a feature."
            )
            problems.add("two roles", line)
        return selection.features
    taken = {*selection.id_columns, *others, selection.weight_column}
    types = [
        (name, type_)
        for variant in variants
        for name, type_ in variant.columns
        if name not in taken and not pa.types.is_null(value_type(type_))
    ]
    names = dict.fromkeys(name for name, type_ in types if selection.is_number(type_))
    lists = dict.fromkeys(name for name, type_ in types if selection.is_number(value_type(type_)))
    if not names and len(lists) != 1:
        known = _listed(all_columns(variants))
        line = (
            "data.features: no column without another role is a number, and no single one a list "
            f"of numbers. The columns: {known}"
        )
        line += "".join(_would_be_numbers(types))
        problems.add("no features", line)
    return tuple(names) or tuple(lists)


def without_values(schema: Schema, selection: Selection) -> str | None:
    """What is said of columns that are no features by default, as no file has a value of them."""
    if selection.features is not None or not selection.to_fit:
        return None
    others = {*schema.key_columns, *selection.id_columns, selection.weight_column}
    names = [
        name
        for name, type_ in schema.columns
        if type_ == "null" and name not in (*schema.features, *others)
    ]
    if not names:
        return None
    hold, they = ("s {} hold", "are") if len(names) > 1 else (" {} holds", "is")
    return f"Column{hold.format(_listed(names))} no value in any file and {they} no feature."


def _would_be_numbers(types: Iterable[Column]) -> Iterator[str]:
    """A sentence for each setting of `data.cast` that would make features of some columns."""
    words = {name: cast_of(value_type(type_)) for name, type_ in types}
    for word in sorted(set(filter(None, words.values()))):
        names = [name for name in words if words[name] == word]
        yield f". With data.cast: [{word}] these are taken for numbers: {_listed(names)}"


def _check_name(name: str, problems: Problems) -> None:
    """Report a name that a model file cannot hold: none, or more than MAX_TEXT characters."""
    if not 0 < len(name) <= MAX_TEXT:
        what = f"a name of {len(name)} characters" if name else "no name"
        line = (
            f"data.features: a column has {what} ({name[:40]!r}). Rename it to at most {MAX_TEXT} "
            "characters, or leave it out of data.features."
        )
        problems.add("features with unusable names", line)


def _is_column(
    name: str,
    setting: str,
    variants: tuple[Variant, ...],
    keys: tuple[str, ...],
    problems: Problems,
) -> bool:
    """Whether a name is a column of all files."""
    lacking = [variant for variant in variants if name not in variant.types]
    if not lacking:
        return True
    if name in keys:
        remedy = "Write it into all files." if setting == OF_THE_MODEL else "Leave it out."
        line = f"{setting}: {name!r} is a folder key, not a column of all files. {remedy}"
        problems.add("folder keys in the place of columns", line)
    elif len(lacking) == len(variants):
        known = dict.fromkeys((*all_columns(variants), *keys))
        line = f"{setting}: no file has a column {name!r}.{_hint(name, known)} They have: "
        problems.add("columns that no file has", line + _listed(known))
    else:
        for variant in lacking:
            for file in variant.files:
                or_not = "" if setting == OF_THE_MODEL else f", or leave it out of {setting}"
                line = (
                    f"{file}: has no column {name!r}, as other files have."
                    f"{_hint(name, variant.types)} Write the column into the file{or_not}."
                )
                problems.add(f"files without the column {name!r}", line)
    return False


def _check_numbers(
    name: str,
    setting: str,
    variants: Sequence[Variant],
    selection: Selection,
    problems: Problems,
    in_lists: bool = False,
) -> None:
    wanted = "a list of numbers" if in_lists else "a number"
    for variant in variants:
        type_ = variant.types[name]
        value = value_type(type_) if in_lists else type_
        fits = is_list(type_) == in_lists or pa.types.is_null(type_)
        if selection.is_number(value) and fits:
            continue
        word = cast_of(value)
        remedy = f"set data.cast: [{word}]" if word else ""
        if not fits:
            remedy = "make it a list of numbers in all files, or in none"
            if setting != "data.features":
                remedy = f"make it {wanted} in each row"
        for file in variant.files:
            where, kind = f"{file}, column {name!r}", kind_of(value)
            without = None if setting == OF_THE_MODEL else f" of {setting}"
            line = refusal(where, f"is {type_}", kind, without, remedy, wanted)
            problems.add(f"files where the column {name!r} is not a number", line)
    if selection.to_fit and all(pa.types.is_null(variant.types[name]) for variant in variants):
        line = f"{setting}: the column {name!r} holds no value in any file. Leave it out."
        problems.add("columns without values", line)


def _cast(names: Iterable[str], variants: Sequence[Variant]) -> Iterator[tuple[str, str]]:
    """Columns that are taken for numbers because the settings ask for it, and their types."""
    for name in names:
        types = sorted(str(each) for each in _types_of(name, variants) if cast_of(value_type(each)))
        if types:
            yield name, ", ".join(types)


def _types_of(name: str, variants: Iterable[Variant]) -> set[pa.DataType]:
    return {variant.types[name] for variant in variants if name in variant.types}


def _widest(types: set[pa.DataType]) -> str:
    """The narrowest type of NumPy that holds the values of all the types."""
    numbers = [each.to_pandas_dtype() for each in types if is_number(each) and each != pa.null()]
    return str(pa.from_numpy_dtype(np.result_type(*numbers))) if numbers else "null"


def _hint(name: str, known: Iterable[str]) -> str:
    """The column that was probably meant."""
    known = list(known)
    for other in known:
        if other.strip().casefold() == name.strip().casefold():
            return f" Did you mean {other!r}? Upper and lower case and spaces count."
        if normalize("NFKC", other) == normalize("NFKC", name):
            return (
                f" Did you mean {other!a}? It looks like {name!a}, and is written with "
                "other characters (normal forms of Unicode)."
            )
    close = get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return (", ".join(names[:MAX_NAMES]) or "none") + more
