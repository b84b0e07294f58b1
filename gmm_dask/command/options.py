"""Options of the command line, made from the settings: every key of a section is one."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gmm_dask.sections import MAX_INTEGER
from gmm_dask.stage.settings import AnySettings, Settings, settings_from
from gmm_dask.stage.settings.complaints import Location, as_yaml
from gmm_dask.stage.settings.settings_file import override, put

Function = TypeVar("Function", bound=Callable[..., Any])
Keys = tuple[str, ...]  # a section of the settings and its key

_NUMBERS, _FAMILIES = ("fit", "n_components"), ("fit", "covariance_type")  # or candidates
_DATA, _CLUSTER, _ADDRESS = ("data", "path"), ("cluster", "kind"), ("cluster", "address")
_NAMES: dict[Keys, str] = {
    ("output", "path"): "out",
    _CLUSTER: "cluster",
    ("labels", "enabled"): "labels",
}
_METAVARS: dict[Keys, str] = {
    _DATA: "DATA",
    ("output", "path"): "OUT",
    ("model",): "OUT[@VERSION]",
    _CLUSTER: "threads|processes|ADDRESS|NAME",
    _NUMBERS: "K|FROM:TO|K,K",
}
_OF_FILES = {"refresh"}  # a section of a command that takes a settings file
_WITHOUT_OPTION = {
    _ADDRESS,  # in --cluster
    ("cluster", "options"),  # mappings, for --set
    ("data", "between"),
    ("select", "n_components"),  # in --n-components and --covariance-type
    ("select", "covariance_types"),
}
_REQUIRED = {_NUMBERS}  # beside what has no default
_OTHERS = {"help", "version", "progress", "debug", "set"}  # options that are no settings


@dataclass(frozen=True)
class _Setting:
    """A key of the settings as an option; `name` is without dashes."""

    keys: Keys
    field: FieldInfo
    name: str

    @property
    def variable(self) -> str:
        """The name under which the value comes to the command."""
        return "__".join(self.keys)

    @property
    def option(self) -> str:
        """The option's name on the command line; a flag turns the default round."""
        if self.keys == _DATA:
            return "DATA"
        return f"--no-{self.name}" if self.default is True else f"--{self.name}"

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that the value may have."""
        return tuple(_alternatives(self.field.annotation))

    @property
    def is_list(self) -> bool:
        """Whether the value may be a list."""
        return any(get_origin(each) is tuple for each in self.types)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the value, or an item of it, may be; none where any text will do."""
        items = (get_args(each)[0] if get_origin(each) is tuple else each for each in self.types)
        return tuple(
            word for each in items if get_origin(each) is Literal for word in get_args(each)
        )

    @property
    def is_required(self) -> bool:
        """Whether a call must give the option."""
        return self.field.is_required() or self.keys in _REQUIRED

    @property
    def default(self) -> Any:
        """The value where the option is not given; that of a list is nothing, or a word."""
        default = self.field.get_default()
        return None if self.is_required or default == () else default

    @property
    def values(self) -> str:
        """The allowed values for the table of settings: words, or a type and its range."""
        if self.words:
            return ", ".join(f"`{word}`" for word in self.words) + (", a list" * self.is_list)
        names = {bool: "true or false", int: "integer", float: "number", str: "text"}
        kind = next((name for cls, name in names.items() if cls in self.types), "mapping")
        signs = {"ge": "≥", "gt": ">", "le": "≤"}
        limits = [
            f"{sign} {getattr(each, name):g}"
            for name, sign in signs.items()
            for each in self.field.metadata
            if hasattr(each, name) and getattr(each, name) < MAX_INTEGER
        ]
        if self.is_list:
            return "text, or a list" if str in self.types else "a list"
        return ", ".join([kind, *limits])

    def parameter(self) -> inspect.Parameter:
        """The option as typer reads it off a function."""
        plain = () if self.keys == _NUMBERS else (bool, int, float)
        kinds = (each for each in plain if each in self.types)
        kind: Any = next(kinds, list[str] if self.is_list and self.default is None else str)
        how: dict[str, Any] = {"metavar": self._metavar(), "help": self._help()}
        if self.keys == _DATA:
            declared = typer.Argument(**how)
        else:
            panel = None if self.is_required else self.keys[0].capitalize()
            declared = typer.Option(self.option, rich_help_panel=panel, **how)
        default = False if kind is bool else self.default
        return inspect.Parameter(
            self.variable,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.is_required else default,
            annotation=Annotated[kind if self.is_required else kind | None, declared],
        )

    def _help(self) -> str:
        described = self.field.description or ""
        return f"Do not: {described}" if self.default is True else described

    def _metavar(self) -> str | None:
        if self.keys in _METAVARS:
            return _METAVARS[self.keys]
        if self.words:
            names = ["A,B"] if self.is_list and self.default is not None else []
            return ("," if self.is_list and not names else "|").join([*self.words, *names])
        return "A,B" if self.is_list else None

    def given(self, value: Any) -> Iterator[tuple[Keys, Any]]:
        """The settings that a value of the option stands for; none where it is the default."""
        if isinstance(self.default, bool):
            value = self.default != value
        if value is None or (value == self.default and not self.is_required):
            return
        if self.keys == _CLUSTER and "://" in value:
            yield from ((_CLUSTER, "address"), (_ADDRESS, value))
        elif self.keys == _DATA:
            yield self.keys, value
        elif self.keys == _NUMBERS:
            yield self.keys, _numbers(value)
        elif self.keys == _FAMILIES and "," in value:
            yield self.keys, [name.strip() for name in value.split(",")]
        elif self.is_list and value not in self.words:
            texts = [value] if isinstance(value, str) else value
            names = (name.strip() for text in texts for name in text.split(","))
            yield self.keys, [name for name in names if name]
        else:
            yield self.keys, value


def _numbers(text: str) -> Any:
    """What `4`, `2:12` and `2,4,8` stand for in the settings; what is no number stays text."""
    if found := re.fullmatch(r"(\d{1,6}):(\d{1,6})", text, re.ASCII):
        return {"from": int(found[1]), "to": int(found[2])}
    words = [word.strip() for word in text.split(",")]
    numbers = [int(word) if re.fullmatch(r"-?\d{1,18}", word, re.ASCII) else word for word in words]
    return numbers if len(numbers) > 1 else numbers[0]


def takes(schema: type[AnySettings]) -> Callable[[Function], Function]:
    """Have a command take every key of the settings, and --set, beside its own options."""

    def decorated(function: Function) -> Function:
        own = inspect.signature(function, eval_str=True).parameters.values()
        named = [each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD]
        settings = (each.parameter() for each in _settings(schema))
        every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*settings, *named)]
        function.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        return function

    return decorated


def settings_of(
    schema: type[AnySettings], given: Mapping[str, Any], overrides: Sequence[str] | None
) -> Any:
    """The settings that a call of such a command gives; raises SettingsError, naming options."""
    document: dict[str, Any] = {}
    origins: dict[Location, str] = {}
    for setting in _settings(schema):
        for keys, value in setting.given(given[setting.variable]):
            put(document, keys, value)
            origins[keys] = setting.option
    origins |= override(document, overrides or ())
    return settings_from(document, schema, origins=origins)


def explained(schema: type[AnySettings]) -> Callable[[str], str]:
    """A function that adds to a message the options of the settings that the message names."""

    def with_options(message: str) -> str:
        named = [
            f"{'.'.join(each.keys)} is {each.option}"
            for each in _settings(schema)
            if len(each.keys) > 1  # a word may be one by chance
            and re.search(rf"(?<![\w.']){re.escape('.'.join(each.keys))}(?!\w)", message)
        ]
        return f"{message}\nOn the command line {', '.join(named)}." if named else message

    return with_options


def _settings(schema: type[AnySettings]) -> list[_Setting]:
    """Every key that is an option; two of one name have that of their section before it."""
    fields = {
        keys: field
        for keys, field in _fields(schema)
        if keys not in _WITHOUT_OPTION and keys[0] not in _OF_FILES
    }
    names = {keys: _NAMES.get(keys, keys[-1].replace("_", "-")) for keys in fields}
    counts = Counter(names.values())
    return [
        _Setting(keys, field, name if counts[name] == 1 and name not in _OTHERS else "-".join(keys))
        for (keys, field), name in zip(fields.items(), names.values(), strict=True)
    ]


def _fields(schema: type[BaseModel], above: Keys = ()) -> Iterator[tuple[Keys, FieldInfo]]:
    for name, field in schema.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _fields(section, (*above, name))
        else:
            yield (*above, name), field


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types of a union, without None and without what pydantic is told beside them."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    elif annotation is not type(None):
        yield annotation


def settings_table() -> str:
    """docs/settings.md: every setting with its option, its default, its values and its help."""
    lines = [
        "# Settings",
        "",
        "Made by `python -m gmm_dask.command.options > docs/settings.md`; a test compares.",
        "Each setting is a key of the YAML file, a field of Prefect's form and, but for mappings",
        "and the section `refresh`, an option of `gmm-dask fit`. `data.missing` and those of",
        "`fit`, but for `init_rows`, are arguments of `GaussianMixture` too.",
        "",
        "| setting | option | default | values | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    options = {each.keys: each for each in _settings(Settings)}
    for keys, field in _fields(Settings):
        setting = options.get(keys) or _Setting(keys, field, "")
        option = f"`{setting.option}`" if keys in options else ""
        cells = (f"`{'.'.join(keys)}`", option, _default(field), setting.values, field.description)
        lines.append(f"| {' | '.join(cell or '' for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{plain if isinstance(value, str) else as_yaml(plain)}`"


if __name__ == "__main__":
    sys.stdout.write(settings_table())
