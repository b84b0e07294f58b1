"""What is wrong with settings, in plain words: what is expected, what is there, what to write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from gmm_dask.sections import LOW_RANK
from gmm_dask.stage import text

_OF_PYDANTIC = ("literal[", "constrained-str", "[key]")  # which form of a value, and of a mapping

Location = tuple[int | str, ...]  # of a value: keys, and places in lists

MAX_PROBLEMS = 20  # a list people can read; the rest is counted

# By pydantic's name for the error; others say themselves what "Input should be".
_EXPECTED = {
    "bool_parsing": "true or false is expected",
    "bool_type": "true or false is expected",
    "dict_type": "keys and values are expected",
    "float_parsing": "a number is expected",
    "float_type": "a number is expected",
    "int_from_float": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_type": "a whole number is expected",
    "invalid_key": "a key is text: put it in quotes",
    "model_attributes_type": "a section of keys and values is expected",
    "model_type": "a section of keys and values is expected",
    "string_too_short": "it must not be empty",
    "too_short": "at least one is needed; leave it out for its default",
}
_UNQUOTED = {False: "no, off or false", True: "yes, on or true"}
_OF_THE_OTHER_KIND = {
    "model": "settings with a model label and fit nothing: give them to the flow `label` or to "
    "`gmm-dask run`",
    "fit": "settings with a model label and fit nothing: leave fit or model out",
}


def complaints(error: ValidationError, schema: type[BaseModel]) -> list[tuple[Location, str]]:
    """Each problem that pydantic found: where, and what is wrong there."""
    return [
        (_location(item), _complaint(item, schema))
        for item in error.errors()
        if item["type"] != "too_short" or not item["input"]  # else its items are no good
        if not _is_other_form(item)
    ]


def refusal(
    problems: Sequence[tuple[Location, str]],
    document: Mapping[str, Any],
    source: str,
    origins: Mapping[Location, str],
) -> list[str]:
    """All problems, a line each, with where its value comes from: an option, or the document."""
    places = [_origin(location, document, origins) for location, _ in problems]
    if not any(places):
        lines = [f"{_dotted(location)}: {what}" for location, what in problems]
        return [f"{source or 'The settings'} cannot be used:", *_bounded(lines)]
    file = f"{source}, " if source else ""
    lines = [
        f"{place or file + _dotted(location)}: {what}"
        for place, (location, what) in zip(places, problems, strict=True)
    ]
    if len(lines) == 1:
        return lines
    return ["The settings cannot be used:", *_bounded(lines)]


def texts(values: Sequence[Any]) -> Sequence[str]:
    """The values, all of which must be texts; raises PydanticCustomError for the first that is not.

    YAML takes some names without quotes for other values, and the error tells how to write them.
    """
    for value in values:
        if not isinstance(value, str):
            raise PydanticCustomError("no_text", "{said}", {"said": _said_of_no_text(value)})
    return values


def as_yaml(value: Any) -> str:
    """A value as YAML has it, on a short line."""
    if value is None or isinstance(value, bool):
        return {None: "null", False: "false", True: "true"}[value]
    return str(value) if isinstance(value, date) else text.bounded(value)


def _origin(
    location: Location, document: Mapping[str, Any], origins: Mapping[Location, str]
) -> str | None:
    """The option that a value comes from, or those that all of a section comes from."""
    for n in range(len(location), 0, -1):
        if location[:n] in origins:
            within = location[n:]
            return origins[location[:n]] + (f", {_dotted(within)}" if within else "")
    below = list(_below(location, document))
    if all(keys in origins for keys in below):
        return ", ".join(dict.fromkeys(origins[keys] for keys in below)) or None
    return None


def _below(location: Location, document: Mapping[str, Any]) -> Iterator[Location]:
    """The keys of every value of a section; none where it holds none."""
    section: Any = document
    for key in location:
        section = section.get(key) if isinstance(section, Mapping) else None
    for key, value in section.items() if isinstance(section, Mapping) else ():
        here = (*location, key)
        yield from _below(here, document) if isinstance(value, Mapping) and value else (here,)


def _dotted(location: Location) -> str:
    """Keys with dots between them, and places in lists as people count."""
    keys = [text.bounded(part).strip("'") for part in location if isinstance(part, str)]
    items = [f"item {part + 1}" for part in location if isinstance(part, int)]
    return ", ".join([*filter(None, [".".join(keys)]), *items]) or "settings"


def _bounded(lines: list[str]) -> list[str]:
    more = len(lines) - MAX_PROBLEMS
    bounded = lines if more <= 0 else [*lines[:MAX_PROBLEMS], f"... and {more} more."]
    return [f"  {line}" for line in bounded]


def _is_other_form(item: Any) -> bool:
    """Whether a value has several forms, and the complaint is about another than the first."""
    return bool(item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] == LOW_RANK)


def _location(item: Any) -> Location:
    if item["type"] == "no_candidates":  # of the whole document, but about one value
        return tuple(item["ctx"]["place"])
    keys = [key for key in item["loc"] if not str(key).startswith(_OF_PYDANTIC)]
    location: Location = tuple(keys)
    is_of_key = item["type"] == "invalid_key"  # which is called by its number
    return (*location[:-1], as_yaml(item["input"])) if is_of_key else location


def _said_of_no_text(value: Any) -> str:
    if isinstance(value, bool):
        return (
            f"text is expected; {_UNQUOTED[value]} without quotes is read as {as_yaml(value)}: put "
            "the name in quotes"
        )
    if value is None:
        return "text is expected; nothing, ~ or null without quotes is read as no value"
    if isinstance(value, list | tuple):
        return f"text is expected, and no list (got {as_yaml(value)})"
    if isinstance(value, Mapping):
        return f"text is expected (got {as_yaml(value)}); put a name with a colon in quotes"
    return f"text is expected; it is read as {as_yaml(value)} without quotes: put it in quotes"


def _complaint(item: Any, schema: type[BaseModel]) -> str:
    kind, value, location = item["type"], item["input"], _location(item)
    if kind == "extra_forbidden":
        return _unknown_key(location, schema)
    if kind == "missing":
        return "is required"
    if kind == "string_type":
        return _said_of_no_text(value)
    if kind in ("no_text", "no_candidates"):
        return str(item["msg"])
    if kind == "model_type" and value is None:
        return f"{_EXPECTED[kind]}; leave it out where it has none"
    if kind == "tuple_type":
        return _no_list(str(location[-1]), value)
    said = str(item["msg"]).removeprefix("Value error, ").replace("Input should", "it must")
    if location[-1:] == ("covariance_type",):
        said = said.replace(" or ", ", ") + " or 'low_rank:5', by a number of factors"
    if kind == "value_error" and isinstance(value, Mapping):
        return said  # of several settings, which it names
    meant = _word_meant(value, said) if kind == "literal_error" else ""
    return f"{_EXPECTED.get(kind, said)} (got {as_yaml(value)}){meant}"


def _word_meant(value: Any, said: str) -> str:
    close = get_close_matches(str(value).lower(), re.findall("'([^']+)'", said), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _no_list(key: str, value: Any) -> str:
    if value is None:
        return f"a list is expected: {key}: [a, b]; leave it out for its default"
    if isinstance(value, str):
        return f"a list is expected: {key}: {_as_list(text.bounded(value)[1:-1])}"
    said = f"a list is expected: {key}: [a, b] (got {as_yaml(value)})"
    if isinstance(value, bool):
        said += f"; {_UNQUOTED[value]} without quotes is read so: put a name in quotes"
    return said


def _as_list(names: str) -> str:
    """Names between commas as YAML has a list of them, in quotes where they need it."""
    parts = [name.strip() for name in names.split(",")]
    plain = f"[{', '.join(parts)}]"
    try:
        needs_none = yaml.safe_load(plain) == parts
    except yaml.YAMLError:
        needs_none = False
    return plain if needs_none else str(parts)


def _unknown_key(location: Location, schema: type[BaseModel]) -> str:
    *section, key = map(str, location)
    every = list(_keys(schema))
    known = [keys[-1] for keys in every if list(keys[:-1]) == section]
    close = [*get_close_matches(key, known, n=1)]
    same = [keys for keys in every if keys[-1] == key]
    if not section and not close and key in _OF_THE_OTHER_KIND:
        return f"unknown key; {_OF_THE_OTHER_KIND[key]}"
    meant = [(*section, each) for each in close] or same
    if meant:
        return f"unknown key; did you mean {' or '.join(map('.'.join, meant))}?"
    return f"unknown key; known here: {', '.join(known)}"


def _keys(schema: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a schema, with those of the sections that it lies in."""
    for name, field in schema.model_fields.items():
        yield (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, (*above, name))
