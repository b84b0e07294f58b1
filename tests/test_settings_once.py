"""A setting is declared once: class, YAML, command line and documentation say the same of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from gmm_dask import GaussianMixture
from gmm_dask.command.options import settings_table, takes
from gmm_dask.engine import ClusterSpec
from gmm_dask.errors import SettingsError
from gmm_dask.fitting import ACCELERATIONS, INIT_METHODS, ComponentPolicy
from gmm_dask.mixture import COVARIANCE_FAMILIES
from gmm_dask.sections import FitSettings
from gmm_dask.stage.settings import ClusterSettings, DataSettings, Settings, settings_from

NOT_OF_THE_CLASS = {"random_state", "init_rows", "weight_concentration_prior_type"}
OF_A_FIT = sorted(FitSettings.model_fields.keys() - NOT_OF_THE_CLASS)
WORDS = {
    "covariance_type": COVARIANCE_FAMILIES,
    "init_params": INIT_METHODS,
    "acceleration": ACCELERATIONS,
    "component_policy": map(str, ComponentPolicy),
}
DOCUMENTED = " ".join((GaussianMixture.__doc__ or "").split())
WRONG: dict[str, Any] = {"weight_concentration_prior": 0.5, "covariance_prior": 0, "max_iter": -1}


def section(**fit: Any) -> dict[str, Any]:
    return {"data": {"path": "x"}, "output": {"path": "out"}, "fit": fit}


@pytest.mark.parametrize("name", [*OF_A_FIT, "missing"])
def test_the_class_has_default_and_words_of_the_declaration(name: str) -> None:
    schema = DataSettings if name == "missing" else FitSettings
    field = schema.model_fields[name]
    assert inspect.signature(GaussianMixture).parameters[name].default == field.default
    assert " ".join((field.description or "").split()) in DOCUMENTED


@pytest.mark.parametrize("name", OF_A_FIT)
def test_class_and_schema_refuse_the_same(name: str) -> None:
    value = WRONG.get(name, -1)
    with pytest.raises(ValueError, match=name):
        GaussianMixture(**{name: value}).fit([[0.0], [1.0]])
    with pytest.raises(SettingsError, match=rf"fit\.{name}"):
        settings_from(section(**{name: value}))


@pytest.mark.parametrize("name", list(WORDS))
def test_the_words_are_those_that_the_method_knows(name: str) -> None:
    for word in WORDS[name]:
        assert getattr(settings_from(section(**{name: word})).fit, name) == word


IN_OTHERS = {  # mappings, and what options of other settings give
    *(("cluster", "address"), ("cluster", "options"), ("data", "between")),
    *(("select", "n_components"), ("select", "covariance_types")),
}


def test_every_setting_is_an_option_but_mappings_and_what_a_refresh_takes_from_a_file() -> None:
    @takes(Settings)
    def command(**given: Any) -> None:
        """As a command of the command line."""

    options = inspect.signature(command).parameters
    for name, part in Settings.model_fields.items():
        kind: Any = part.annotation
        for key in kind.model_fields:
            is_option = f"{name}__{key}" in options
            assert is_option == (name != "refresh" and (name, key) not in IN_OTHERS)


def test_a_backend_is_opened_from_the_section_of_the_settings_as_it_is() -> None:
    assert issubclass(ClusterSettings, ClusterSpec)
    found, plain = ClusterSettings(), ClusterSpec()
    for name in ClusterSettings.model_fields:
        assert getattr(found, name) == getattr(plain, name)


def test_the_table_of_settings_is_the_one_in_the_docs() -> None:
    table = Path(__file__).parents[1] / "docs" / "settings.md"
    assert table.read_text() == settings_table()
