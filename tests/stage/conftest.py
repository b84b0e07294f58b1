"""Settings of small runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.stage.settings import Settings, settings_from

IRIS = Path(__file__).parents[2] / "examples" / "iris"
FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]

MakeSettings = Callable[..., Settings]


@pytest.fixture
def iris_settings(tmp_path: Path) -> MakeSettings:
    """Settings for the Iris data; keyword arguments replace whole sections' keys."""

    def make(**sections: dict[str, Any]) -> Settings:
        document: dict[str, dict[str, Any]] = {
            "data": {"path": str(IRIS), "features": FEATURES, "id_columns": ["flower"]},
            "fit": {"n_components": 3},
            "output": {"path": str(tmp_path / "out")},
        }
        for name, section in sections.items():
            document[name] = document.get(name, {}) | section
        return settings_from(document)

    return make
