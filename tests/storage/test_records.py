"""Records of a run come back as they were written; those of another shape are refused by name."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_dask.errors import GmmDaskError, OutputError, PlaceTakenError
from gmm_dask.storage.records import model_file
from gmm_dask.storage.records.contents import FileContent, dump_contents, load_contents, states_of
from gmm_dask.storage.records.documents import (
    canonical_json,
    n_marks,
    parse_json,
    sealed,
    sha256_hex,
)
from gmm_dask.storage.records.manifest import read_manifest, verify
from gmm_dask.storage.records.model_file import dump_model, is_readable, load_model_file
from gmm_dask.storage.records.receipts import FileRows, LabelledPart, LabelSums, PartReceipt
from gmm_dask.storage.store.local_store import LocalStore, read_regular
from gmm_dask.storage.store.runs import RunFolder
from gmm_dask.storage.store.version_log import (
    Version,
    entry_name,
    latest,
    list_versions,
    read_version,
)
from tests.storage.stores import (
    OTHER,
    ROWS,
    RUN,
    MemoryStore,
    publish_run,
    published_rows,
    small_model,
)
from tests.strategies import covariance_types, random_mixture

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**63 - 1)
times = st.integers(-(10**29), 10**29)  # nanoseconds of seconds of 64 bits, before and after 1970
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
run_ids = st.text("0123456789abcdef", min_size=16, max_size=16)
floats = st.floats(allow_nan=False, allow_infinity=False)
moments = st.none() | st.datetimes().map(lambda at: f"{at.isoformat(timespec='milliseconds')}Z")


# --- what is written is read ------------------------------------------------------------------

files = st.builds(FileContent, texts, counts, times, times, st.none() | texts, hashes)
receipts = st.builds(
    PartReceipt,
    counts,
    texts.filter(bool),
    hashes,
    *[counts] * 3,
    texts,
    *[counts] * 2,
    hashes,
    st.lists(st.builds(FileRows, texts, counts, counts), max_size=2).map(tuple),
)
sums = st.builds(
    LabelSums, *[counts] * 3, st.floats(0, 1e308), floats, floats, st.lists(counts).map(tuple)
)


def through_contents(found: list[FileContent]) -> list[FileContent]:
    folder = RunFolder(MemoryStore(), RUN)
    folder.put("contents.json", dump_contents(found))
    return list(load_contents(folder) or ())


def through_run(found: list[FileContent]) -> list[FileContent]:
    document = {"plan": {"partitions": [{**vars(each), "index": 0} for each in found]}}
    states = states_of(parse_json(canonical_json(document), "run.json"), "run.json")
    return [replace(each, sha256=was.sha256) for each, was in zip(states, found, strict=True)]


def through_entry(version: Version) -> Version:
    return read_version(MemoryStore({version.name: version.to_json()}), version.number)


def through_receipt(labelled: tuple[PartReceipt, tuple[str, ...], LabelSums]) -> tuple[Any, ...]:
    folder = RunFolder(MemoryStore(), RUN)
    LabelledPart(*labelled).note(folder)
    back, receipt = LabelledPart.noted(folder, labelled[0].index)
    return receipt, back.contents, back.sums


def through_manifest(document: dict[str, Any]) -> dict[str, Any]:
    data = canonical_json(document)
    store = MemoryStore({f"runs/{RUN}/MANIFEST.json": data})
    head = {name: document[name] for name in ("format", "format_version")}
    back = head | read_manifest(store, Version(1, RUN, sha256_hex(data), document["rows"]))
    return back | {"labels": list(back["labels"])}


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    lengths = draw(st.lists(st.integers(0, 2**60), max_size=3))
    first_rows = [0, *np.cumsum(lengths, dtype=object)[:-1]] if lengths else []
    parts = {
        f"labels/part-{i}": {"bytes": 1, "sha256": "0" * 64, "first_row": first, "rows": n}
        for i, (first, n) in enumerate(zip(first_rows, lengths, strict=True))
    }
    others = st.fixed_dictionaries({"bytes": counts, "sha256": hashes})
    return {
        "format": "gmm_dask.manifest",
        "format_version": 2,
        "run_id": RUN,
        "published": draw(moments),
        "rows": sum(lengths),
        "model_sha256": draw(st.none() | hashes),
        "labels": list(parts),
        "files": draw(st.dictionaries(texts, others, max_size=3)) | parts,
    }


RECORDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "version": (
        st.builds(Version, st.integers(1, 10**12), run_ids, hashes, counts, moments),
        through_entry,
    ),
    "contents": (st.lists(files, max_size=3), through_contents),
    "run": (st.lists(files, max_size=3), through_run),
    "receipt": (st.tuples(receipts, st.lists(hashes).map(tuple), sums), through_receipt),
    "manifest": (manifests(), through_manifest),
}


@pytest.mark.parametrize("record", RECORDS)
@given(data=st.data())
def test_a_record_comes_back_as_it_was_written(record: str, data: st.DataObject) -> None:
    values, through = RECORDS[record]
    value = data.draw(values)
    back = through(value)
    assert back == value
    assert in_full(back) == in_full(value)  # also -0.0


def in_full(value: Any) -> Any:
    return canonical_json(value) if isinstance(value, dict) else repr(value)


def test_a_model_is_planned_only_if_its_file_is_read() -> None:
    assert is_readable("full", 16, ["x"] * 64, ["double"] * 64, 1_000_000)
    assert is_readable("diag", 1000, ["x"] * 768, ["float"] * 768, 100)
    assert not is_readable("full", 1000, ["x"] * 768, ["float"] * 768, 100)
    assert not is_readable("spherical", 10**18, ["x"], ["double"], 100)
    assert not is_readable("spherical", 2, ['"[{'[:3] * 300] * 2000, ["double"] * 2000, 100)


@given(covariance_types, st.integers(1, 6), st.integers(1, 6), st.data())
@settings(max_examples=50)
def test_a_model_takes_no_more_than_is_planned_for(
    covariance_type: str, k: int, d: int, data: st.DataObject
) -> None:
    names = data.draw(st.lists(texts.filter(bool), min_size=d, max_size=d, unique=True))
    passes = data.draw(st.integers(0, 50))
    model = replace(
        small_model(),
        parameters=random_mixture(covariance_type, k, d, 0),
        feature_names=tuple(names),
        feature_types=("double",) * d,
        lower_bounds=(-1.2345678901234567e-300,) * passes,
        n_passes=passes,
        n_rows=2**63 - 1,
    )
    file = dump_model(model)
    with pytest.MonkeyPatch.context() as patch:
        for limit, needed in (
            ("MAX_MODEL_BYTES", len(file)),
            ("MAX_MARKS", n_marks(file)),
        ):
            patch.setattr(model_file, limit, needed - 1)
            assert not is_readable(covariance_type, k, names, ("double",) * d, passes)
            patch.undo()


# --- what has another shape is refused by name ------------------------------------------------

WRONG = (None, True, -1, 0, 10**20, 1.5, "", "x", [], ["x"], [[]], {}, {"x": {}}, [{}])


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value in a document, of the lists the first item alone."""
    inside = value.items() if isinstance(value, dict) else ()
    for key, each in [*inside, *(enumerate(value[:1]) if isinstance(value, list) else ())]:
        yield (*place, key)
        yield from places(each, (*place, key))


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value there; without the field where it is `...`."""
    key, *rest = place
    copy = dict(document) if isinstance(document, dict) else list(document)
    if not rest and value is ...:
        del copy[key]
    else:
        copy[key] = changed(document[key], tuple(rest), value) if rest else value
    return copy


def readers(store: MemoryStore) -> dict[str, tuple[dict[str, Any], Callable[[Any], object]]]:
    """The records of a run, and how each is read once it has the right checksum."""
    publish_run(store)
    folder = RunFolder(store, RUN)
    state = FileContent("a.parquet", 5, 1, 2, None, "0" * 64)
    LabelledPart(
        PartReceipt(0, "labels/x", "0" * 64, 1, 4, 0, "a", 0, 4, "1" * 64),
        ("2" * 64,),
        LabelSums(4, 0, 0, 4.0, -1.5, -0.5, (2, 2)),
    ).note(folder)

    def with_object(name: str, data: bytes) -> MemoryStore:
        return MemoryStore(store.objects | {name: data})

    def of_run(name: str, data: Any) -> RunFolder:
        return RunFolder(with_object(f"runs/{RUN}/{name}", canonical_json(data)), RUN)

    def manifest(document: Any) -> object:
        data = canonical_json(document)
        other = with_object(f"runs/{RUN}/MANIFEST.json", data)
        version = replace(read_version(store, 1), manifest_sha256=sha256_hex(data))
        if problems := verify(other, version):
            raise OutputError("\n".join(problems))
        return None

    documents = {
        "version": parse_json(store.get(entry_name(1)), "x"),
        "manifest": parse_json(folder.get("MANIFEST.json"), "x"),
        "contents": parse_json(dump_contents([state]), "x"),
        "run": {"plan": {"partitions": [vars(state)]}},
        "receipt": folder.get_json("receipts/00000.json"),
        "model": parse_json(dump_model(small_model()), "x"),
    }
    reads: dict[str, Callable[[Any], object]] = {
        "version": lambda d: latest(with_object(entry_name(1), canonical_json(_sealed(d)))),
        "manifest": manifest,
        "contents": lambda d: load_contents(of_run("contents.json", _sealed(d))),
        "run": lambda d: states_of(d, "run.json"),
        "receipt": lambda d: LabelledPart.noted(of_run("receipts/00000.json", _sealed(d)), 0),
        "model": lambda d: load_model_file(canonical_json(_model(d))),
    }
    return {name: (documents[name], reads[name]) for name in documents}


def _sealed(document: dict[str, Any]) -> dict[str, Any]:
    return sealed({key: value for key, value in document.items() if key != "checksum"})


def _model(document: dict[str, Any]) -> dict[str, Any]:
    body = {key: value for key, value in document.items() if key != "sha256"}
    return body | {"sha256": sha256_hex(canonical_json(body))}


@pytest.mark.parametrize("record", ["version", "manifest", "contents", "run", "receipt", "model"])
def test_a_record_of_another_shape_is_read_or_refused_and_never_a_defect(record: str) -> None:
    document, read = readers(MemoryStore())[record]
    read(document)
    n_refused = 0
    for place in list(places(document)):
        for value in (*WRONG, ...):
            try:
                read(changed(document, place, value))
            except GmmDaskError:
                n_refused += 1
    assert n_refused > 50


# --- what lies where a record should be ---------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(str(tmp_path / "out"))
    publish_run(store)
    return store


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(60 << 30)  # it has no blocks


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"?")


IN_PLACE = [a_pipe, a_socket, a_large_file, a_loop, Path.mkdir, a_folder_with_a_file]


@pytest.mark.parametrize("put", IN_PLACE)
@pytest.mark.parametrize(
    "name", ["model.json", "MANIFEST.json", "run.json", "labels/", "metrics.json"]
)
def test_nothing_in_place_of_a_file_of_a_run_holds_a_reader_up(
    name: str, put: Callable[[Path], None], store: LocalStore
) -> None:
    (path,) = [Path(store.path(each)) for each in store.list(f"runs/{RUN}/{name}")[:1]]
    path.unlink()
    put(path)
    problems = verify(store, read_version(store, 1))
    assert path.name in problems[0]
    assert len(problems) == 1
    with pytest.raises(OutputError, match=path.name):
        store.get(f"runs/{RUN}/{path.relative_to(Path(store.path(f'runs/{RUN}'))).as_posix()}")


@pytest.mark.parametrize("put", [a_pipe, a_socket, a_large_file, a_loop])
def test_nothing_in_place_of_a_version_entry_holds_a_reader_up(
    put: Callable[[Path], None], store: LocalStore
) -> None:
    put(Path(store.path(entry_name(2))))
    with pytest.raises(OutputError, match=r"00000002\.json"):
        latest(store)
    assert read_version(store, 1).run_id == RUN


@pytest.mark.parametrize(
    "name",
    ["000000002.json", "0000000000000000000002.json", "00000002.json/", "00000002.json/x",
     "2.json", "٠٠٠٠٠٠٠٢.json", "00000002.json\n", "-0000002.json", "00000002.JSON",
     "00000000.json", "a\udcffb", "9" * 19 + ".json"],
)  # fmt: skip
def test_what_is_no_entry_stands_in_the_way_of_none(name: str, store: LocalStore) -> None:
    first = read_version(store, 1)
    path = Path(store.url, "versions", name)
    if name.endswith("/"):
        path.mkdir()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    assert list_versions(store) == [first]
    second = publish_run(store, OTHER)
    assert second.number == (3 if path.parent.name == "00000002.json" or name.endswith("/") else 2)
    assert list_versions(store) == [first, second]
    assert published_rows(store, second) == ROWS


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1 << 21])
def test_a_file_is_read_up_to_a_size(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    assert read_regular(path, max(size, 8)) == bytes(size)
    if size > 8:
        with pytest.raises(OutputError, match=f"file has {size} bytes, at most 8 belong there"):
            read_regular(path, 8)


def test_a_device_is_no_file() -> None:
    with pytest.raises(PlaceTakenError, match=r"/dev/zero is not a regular file"):
        read_regular(Path("/dev/zero"), 8)
