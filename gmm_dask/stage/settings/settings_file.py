"""Settings files: YAML that is read strictly, so that nothing in it is dropped without a word."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gmm_dask.errors import SettingsError
from gmm_dask.redaction import redacted
from gmm_dask.stage import text
from gmm_dask.stage.settings.complaints import Location

MAX_SETTINGS_BYTES = 1 << 20  # a settings file is read by people; anything larger is not one


def read_settings_file(path: Path) -> dict[str, Any]:
    """The sections of a settings file.

    Raises
    ------
    SettingsError
        Not readable, not YAML, a key given twice, or no sections.
    """
    document = parse_yaml(_text_of(path), str(path))
    if not isinstance(document, dict):
        raise SettingsError(f"{path} must hold sections such as data:, fit: and output:")
    return document


def parse_yaml(written: str, name: str) -> Any:
    """The value of a YAML text; raises SettingsError, in which `name` says where it is from."""
    try:
        return yaml.load(written, _StrictLoader)
    except SettingsError as error:
        raise SettingsError(f"{name}, {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{name} is not valid YAML: {_where_and_what(error)}") from None
    except RecursionError:
        raise SettingsError(f"{name} is nested too deeply to be settings.") from None
    except ValueError as error:  # a date that there is none of, an integer of too many digits
        raise SettingsError(f"{name} is not valid YAML: {error}") from error


def override(document: dict[str, Any], overrides: Sequence[str]) -> dict[Location, str]:
    """Put values of `section.key=value` into a document; returns which option each is from.

    Raises
    ------
    SettingsError
        One of them is not of that form, or its value is no YAML.
    """
    origins: dict[Location, str] = {}
    for given in overrides:
        dotted, equals, value = given.partition("=")
        keys = tuple(dotted.strip().split("."))
        option = f"--set {redacted(text.bounded(given))}"
        if not equals or not all(keys):
            raise SettingsError(f"{option}: it takes section.key=value, as in --set fit.tol=1e-4")
        try:
            put(document, keys, parse_yaml(value, option))
        except KeyError as error:
            raise SettingsError(f"{option}: {error.args[0]!r} is not a section") from None
        origins[keys] = option
    return origins


def put(document: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Put a value where the keys say, in sections that are made where there are none.

    Raises
    ------
    KeyError
        One of the keys holds something else than a section.
    """
    for key in keys[:-1]:
        if document.get(key) is None:
            document[key] = {}
        document = document[key]
        if not isinstance(document, dict):
            raise KeyError(key)
    document[keys[-1]] = value


def _where_and_what(error: yaml.YAMLError) -> str:
    """The complaint without the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    said = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    what = ": ".join(filter(None, said)) or type(error).__name__
    if isinstance(error, yaml.constructor.ConstructorError | yaml.composer.ComposerError):
        what = re.sub(r"'[^']*'", "'...'", what)  # a tag or a name that the file has
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return redacted(where + what)


def _text_of(path: Path) -> str:
    try:
        # A pipe must not hold us up before we see that it is one.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SettingsError(f"{path} is not a regular file; write the settings into one.")
            content = file.read(MAX_SETTINGS_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"The settings file {path} cannot be read: {reason}.") from error
    if len(content) > MAX_SETTINGS_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_SETTINGS_BYTES} bytes; is it settings?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """Plain data only; a key given twice is an error, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse what the plain loader would drop or spread."""
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise SettingsError(
                    f"line {line}: the merge key << is not used in settings. Write the keys out."
                )
            if isinstance(key, yaml.ScalarNode):
                if key.value in first:
                    raise _twice(key.value, first[key.value], line)
                first[key.value] = line
        return super().construct_mapping(node, deep=deep)


def _twice(key: str, first: int, line: int) -> SettingsError:
    return SettingsError(
        f"line {line}: the key {key!r} is given twice, first in line {first}. Remove one of them."
    )


# Numbers as in YAML 1.2, and as everybody means them: YAML 1.1 takes 1e-3 for text, 2:12 for the
# 132 minutes of two hours and twelve, and 010 for the 8 of an octal number.
_NUMBERS = {
    "int": r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$",
    "float": r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$",
}
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rpartition(":")[2] not in _NUMBERS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _rule in _NUMBERS.items():
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(_rule), list("-+.0123456789")
    )
