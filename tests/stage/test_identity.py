"""Data that look the same are told apart by what they hold, and data that are the same are not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gmm_dask import read_labels
from gmm_dask.errors import InputChangedError, OutputError
from gmm_dask.stage import identity
from gmm_dask.stage.outputs import Published
from gmm_dask.stage.run import run, score
from gmm_dask.stage.settings import ScoreSettings, Settings, settings_from
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage.input.planning import plan_dataset
from gmm_dask.storage.records import contents

GROUP = 40
PLAIN = {"compression": "none", "use_dictionary": False}


def rows(mixed: bool) -> pa.Table:
    """Two clusters; `mixed` deals values of y out to other rows, but for the bounds of a group."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=50), rng.normal(8, 1, 50)])
    y = x.copy()
    for group in np.split(y, range(GROUP, len(y), GROUP)) if mixed else ():
        inner = np.flatnonzero((group > group.min()) & (group < group.max()))
        group[inner] = group[rng.permutation(inner)]
    return pa.table({"x": x, "y": y, "id": np.arange(100)})


def write(folder: Path, mixed: bool, name: str = "b.parquet") -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(rows(mixed), folder / name, row_group_size=GROUP, **PLAIN)
    return folder / name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data", False, "a.parquet")
    write(tmp_path / "data", False)
    return tmp_path / "data"


def settings(data: Path, **sections: dict[str, object]) -> Settings:
    document: dict[str, dict[str, object]] = {
        "data": {"path": str(data), "features": ["x", "y"], "id_columns": ["id"]},
        "fit": {"n_components": 2},
        "memory": {"chunk_bytes": 16 * 30},  # row groups of 40 rows are cut into two chunks
        "output": {"path": str(data.parent / "out")},
    }
    return settings_from(
        {name: section | sections.get(name, {}) for name, section in document.items()}
    )


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def log_densities(published: Published) -> np.ndarray:
    ref = f"{published.folder.store.url}@{published.version.number}"
    return read_labels(ref)["log_density"].compute(scheduler="sync").to_numpy()


def test_the_footer_does_not_tell_these_data_apart(data: Path) -> None:
    before = plan_dataset(data).fingerprint
    write(data, True)
    assert plan_dataset(data).fingerprint == before


def test_rewritten_values_between_the_same_bounds_are_other_data(data: Path) -> None:
    first = run(settings(data))
    write(data, True)
    second = run(settings(data))
    assert (second.new, second.version.number) == (True, 2)
    assert second.run_id != first.run_id
    assert not np.array_equal(log_densities(first), log_densities(second))
    fresh = run(settings(data, output={"path": str(data.parent / "fresh")}))
    np.testing.assert_array_equal(log_densities(second), log_densities(fresh))
    before = listing(data.parent / "out")
    assert run(settings(data)).version == second.version
    assert listing(data.parent / "out") == before
    write(data, False)
    third = run(settings(data))
    assert (third.version.number, third.run_id, third.earlier) == (3, first.run_id, first.version)
    before_runs = {path: time for path, time in before.items() if "/out/runs/" in path}
    assert listing(data.parent / "out").items() >= before_runs.items()
    np.testing.assert_array_equal(log_densities(third), log_densities(first))


def test_a_rewrite_that_hides_its_time_is_found(data: Path) -> None:
    first = run(settings(data))
    state = (data / "b.parquet").stat()
    write(data, True)
    os.utime(data / "b.parquet", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(settings(data)).run_id != first.run_id


def touch(data: Path) -> Path:
    os.utime(data / "a.parquet")
    return data


def write_again(data: Path) -> Path:
    write(data, False)
    return data


@pytest.mark.parametrize(
    "treat",
    [
        lambda data: data,
        touch,
        write_again,
        lambda data: shutil.copytree(data, data.parent / "copy"),
        lambda data: data.rename(data.parent / "moved"),
    ],
    ids=["left alone", "touched", "written again", "copied", "moved"],
)
def test_the_same_data_are_the_same_run_and_write_nothing(
    data: Path, treat: Callable[[Path], Path]
) -> None:
    first = run(settings(data))
    before = listing(data.parent / "out")
    again = run(settings(treat(data)))
    assert (again.new, again.version) == (False, first.version)
    assert listing(data.parent / "out") == before


def test_data_are_read_again_only_where_their_state_is_another(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings(data))
    read: list[str] = []
    real = contents.chunk_content

    def noting(source: contents.ChunkSource, columns: object) -> str:
        read.append(source.name)
        return real(source, columns)

    monkeypatch.setattr(contents, "chunk_content", noting)
    run(settings(data))
    assert read == []
    os.utime(data / "a.parquet")
    run(settings(data))
    assert set(read) == {"a.parquet"}


@pytest.mark.parametrize("phase", ["fit", "label", "publish"])
def test_an_unfinished_run_is_not_finished_with_other_data(data: Path, phase: str) -> None:
    class Stop(Watcher):
        def phase(self, name: str, detail: str) -> None:
            if name == phase:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings(data), Stop())
    write(data, True)
    published = run(settings(data))
    fresh = run(settings(data, output={"path": str(data.parent / "fresh")}))
    assert published.model.sha256 == fresh.model.sha256
    np.testing.assert_array_equal(log_densities(published), log_densities(fresh))


def test_a_change_while_a_run_is_labelled_is_an_error(data: Path) -> None:
    class Rewrite(Watcher):
        def phase(self, name: str, detail: str) -> None:
            if name == "label":
                write(data, True)

    with pytest.raises(InputChangedError, match=r"b\.parquet: changed after it was planned"):
        run(settings(data), Rewrite())


def test_a_change_that_an_earlier_attempt_did_not_see_is_an_error(data: Path) -> None:
    """A rewrite in place that sets the time back is seen when the notes of attempts differ."""
    folder = run(settings(data)).folder
    plan = plan_dataset(data, features=["x", "y"])
    others = contents.file_contents(plan, ["0" * 64] * len(plan.chunks))
    with pytest.raises(InputChangedError, match=r"a\.parquet: an attempt .* read other data"):
        identity.note_contents(folder, others)


def test_labels_of_rewritten_data_are_new_labels(data: Path) -> None:
    run(settings(data))
    document = {
        "data": {"path": str(data)},
        "model": str(data.parent / "out"),
        "output": {"path": str(data.parent / "scored")},
    }
    first = score(settings_from(document, ScoreSettings))
    write(data, True)
    second = score(settings_from(document, ScoreSettings))
    assert second.new
    assert not np.array_equal(log_densities(first), log_densities(second))


@pytest.mark.parametrize("name", ["contents.json", "run.json"])
def test_notes_that_are_damaged_are_named(data: Path, name: str) -> None:
    path = Path(run(settings(data)).path("folder")) / name
    path.write_text(path.read_text().replace('"mtime_ns":', '"mtime":'))
    with pytest.raises(OutputError, match=name):
        run(settings(data))


@pytest.mark.parametrize("chunk_bytes", [1, 16 * 7, 16 * 40, 1 << 20])
def test_every_page_of_the_columns_is_in_exactly_one_hash(
    data: Path, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_dataset(data, features=["x", "y"], id_columns=["id"], chunk_bytes=chunk_bytes)
    ranges: list[tuple[int, int]] = []
    real = contents._update
    monkeypatch.setattr(
        contents,
        "_update",
        lambda digest, stream, *where: (ranges.append(where), real(digest, stream, *where)),
    )
    contents.read_contents_of(plan, ("x", "id"))
    metadata = pq.read_metadata(data / "a.parquet")
    expected = [
        (column.data_page_offset, column.data_page_offset + column.total_compressed_size)
        for group in range(metadata.num_row_groups)
        for column in (metadata.row_group(group).column(0), metadata.row_group(group).column(2))
    ]
    assert sorted(ranges) == sorted(expected * 2)
