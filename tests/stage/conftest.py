"""Settings of small runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.stage.settings import Settings, settings_from

IRIS = Path(__file__).parents[2] / "examples" / "iris"
FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]

MakeSettings = Callable[..., Settings]


def settings_of_iris(out: Path, **sections: dict[str, Any]) -> Settings:
    """Settings for the Iris data; keyword arguments replace whole sections' keys."""
    document: dict[str, dict[str, Any]] = {
        "data": {"path": str(IRIS), "features": FEATURES, "id_columns": ["flower"]},
        "fit": {"n_components": 3},
        "output": {"path": str(out)},
    }
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    return settings_from(document)


@pytest.fixture
def iris_settings(tmp_path: Path) -> MakeSettings:
    """Settings of runs into a folder of the test's own."""
    return partial(settings_of_iris, tmp_path / "out")
