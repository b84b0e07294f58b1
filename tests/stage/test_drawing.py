"""Pictures that are drawn beside the labels are those of the report, and cost no error."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import DataError
from gmm_dask.stage import drawing, publish
from gmm_dask.stage import run as run_module
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, settings_from
from tests.stage.conftest import FEATURES, IRIS, MakeSettings

EACH = {"max_iter": 3, "acceleration": "none"}


@pytest.fixture
def drawn_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that drew, of a run that is long enough to draw beside its labels."""
    threads: list[str] = []
    draw = publish.draw

    def noted(data: Any) -> Any:
        threads.append(threading.current_thread().name)
        return draw(data)

    monkeypatch.setattr(drawing, "WORTH", 1)
    monkeypatch.setattr(publish, "draw", noted)
    return threads


def pictures(published: Published) -> list[str]:
    page = Path(published.path("report")).read_text()
    return re.findall(r"data:image/png;base64,[^\"]*", page)


def test_they_are_the_same_pictures(
    iris_settings: MakeSettings,
    drawn_in: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    beside = run(iris_settings(fit=EACH))
    assert len(drawn_in) == 1
    assert drawn_in[0].startswith("pictures")
    monkeypatch.setattr(drawing, "WORTH", 1 << 20)
    after = run(iris_settings(fit=EACH, output={"path": str(tmp_path / "after")}))
    assert len(drawn_in) == 1
    assert pictures(beside) == pictures(after)
    assert len(pictures(beside)) == 2


def test_a_run_that_only_labels_draws_no_curve(
    iris_settings: MakeSettings, drawn_in: list[str], tmp_path: Path
) -> None:
    model = Path(run(iris_settings(fit=EACH)).folder.path("model.json"))
    document = {
        "data": {"path": str(IRIS), "features": FEATURES},
        "model": str(model),
        "output": {"path": str(tmp_path / "labelled")},
    }
    labelled = score(settings_from(document, ScoreSettings))
    assert len(drawn_in) == 2
    assert len(pictures(labelled)) == 1


def test_an_error_of_the_labels_is_the_error_of_the_run(
    iris_settings: MakeSettings, drawn_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise DataError("as told")

    monkeypatch.setattr(run_module, "label", failing)
    with pytest.raises(DataError, match="as told"):
        run(iris_settings(fit=EACH))
    assert not [each for each in threading.enumerate() if each.name.startswith("pictures")]


def test_an_error_of_the_pictures_is_the_error_of_the_run_which_goes_on_later(
    iris_settings: MakeSettings, drawn_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(data: Any) -> None:
        raise OSError("no font")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "draw", failing)
        with pytest.raises(OSError, match="no font"):
            run(iris_settings(fit=EACH))
    published = run(iris_settings(fit=EACH))
    assert published.version.number == 1
    assert len(pictures(published)) == 2
