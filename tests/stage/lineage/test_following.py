"""A run follows the version that it found when it began, and finds the same whenever it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gmm_dask.errors import SettingsError
from gmm_dask.stage.lineage.changes import Kind
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run
from tests.stage.conftest import MakeSettings


def means(published: Published) -> np.ndarray:
    return published.model.parameters.means


def test_the_next_fit_has_the_numbers_of_the_one_before(iris_settings: MakeSettings) -> None:
    first = run(iris_settings())
    assert first.changes is not None
    assert first.changes.follows is None
    second = run(iris_settings(fit={"random_state": 1, "tol": 1e-6}))
    assert second.changes is not None
    assert second.changes.follows is not None
    assert second.changes.follows.version == 1
    assert second.changes.follows.model_sha256 == first.model.sha256
    away = np.abs(means(second)[:, None] - means(first)).max(axis=2)
    assert away.argmin(axis=1).tolist() == [0, 1, 2]
    identities = [each.identity for each in first.changes.components]
    assert [each.identity for each in second.changes.components] == identities


def test_it_is_another_order_than_that_of_weights(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    """The data of the second run have more rows of the component that was the smallest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    for name, counts in (("one", (300, 200, 100)), ("two", (100, 200, 300))):
        x = np.concatenate([rng.normal(20.0 * j, size=n) for j, n in enumerate(counts)])
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"x": x}), tmp_path / name / "part.parquet")
    out = {}
    for follows in ("latest", "none"):
        output = {"path": str(tmp_path / follows), "follows": follows}
        for name in ("one", "two"):
            data = {"path": str(tmp_path / name), "features": ["x"], "id_columns": []}
            out[name, follows] = run(iris_settings(data=data, output=output))
    expected = [[0.0], [20.0], [40.0]]
    np.testing.assert_allclose(means(out["one", "latest"]), expected, atol=0.5)
    np.testing.assert_allclose(means(out["two", "latest"]), expected, atol=0.5)
    np.testing.assert_allclose(means(out["two", "none"]), expected[::-1], atol=0.5)
    assert out["two", "latest"].run_id != out["two", "none"].run_id


def test_a_run_that_goes_on_follows_what_it_began_with(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    first = run(iris_settings())
    settings = iris_settings(fit={"n_components": 2})
    again = run(settings)
    folder = Path(again.path("folder"))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    # All but the plan is lost, and another version is the latest by then.
    for path in folder.iterdir():
        if path.name not in ("run.json", "contents.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(iris_settings(fit={"n_components": 4}))
    (tmp_path / "out" / "versions" / "00000002.json").unlink()
    finished = run(settings)
    assert finished.changes is not None
    assert finished.changes.follows is not None
    assert finished.changes.follows.run_id == first.run_id
    for name in ("model.json", "changes.json", "parameters.parquet"):
        assert (folder / name).read_bytes() == before[name], name


def test_a_version_of_other_features_is_not_followed_and_that_is_said(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    run(iris_settings())
    features = {"features": ["petal_length", "petal_width"]}
    second = run(iris_settings(data=features))
    assert second.changes is not None
    assert second.changes.follows is None
    assert "Version 1 has other features" in second.metrics["caution"]
    with pytest.raises(SettingsError, match="Version 1 has other features"):
        run(iris_settings(data=features, output={"follows": f"{tmp_path / 'out'}@1"}))


def test_an_alias_that_is_not_there_is_not_followed_and_that_is_said(
    iris_settings: MakeSettings,
) -> None:
    """A misspelt alias followed nothing, night after night, in silence; the first has none yet."""
    follows = {"follows": "champoin"}
    assert run(iris_settings(output=follows)).metrics["caution"] is None
    second = run(iris_settings(fit={"random_state": 1}, output=follows))
    assert "has no alias 'champoin' yet; its aliases: none" in second.metrics["caution"]


def test_features_in_another_order_are_the_same_features(iris_settings: MakeSettings) -> None:
    first = run(iris_settings())
    names = list(reversed(first.model.feature_names))
    second = run(iris_settings(data={"features": names}))
    assert second.changes is not None
    assert [each.previous for each in second.changes.components] == [0, 1, 2]
    np.testing.assert_allclose(means(second)[:, ::-1], means(first), atol=0.05)


def test_the_version_of_another_folder_is_followed_where_it_is_named(
    iris_settings: MakeSettings, tmp_path: Path
) -> None:
    first = run(iris_settings())
    other = {"path": str(tmp_path / "other"), "follows": f"{tmp_path / 'out'}@1"}
    second = run(iris_settings(output=other))
    assert second.changes is not None
    assert second.changes.follows is not None
    assert second.changes.follows.output == first.folder.store.url


def test_what_happened_is_in_the_folder_the_metrics_and_the_report(
    iris_settings: MakeSettings,
) -> None:
    run(iris_settings())
    second = run(iris_settings(fit={"n_components": 4}))
    assert second.changes is not None
    born = [each for each in second.changes.changes if each.kind in (Kind.BORN, Kind.SPLIT)]
    assert born
    said = born[0].message
    assert said in [event["message"] for event in second.metrics["events"]]
    assert said in Path(second.path("report")).read_text()
    written = json.loads((Path(second.path("folder")) / "changes.json").read_text())
    assert said in [each["message"] for each in written["changes"]]


@pytest.mark.parametrize("rule", ["out@", "no.alias", "7", ""])
def test_what_can_be_no_version_is_refused(iris_settings: MakeSettings, rule: str) -> None:
    with pytest.raises(SettingsError, match=r"output\.follows"):
        iris_settings(output={"follows": rule})
