"""The local store: a name is absent or whole, one writer wins, every failure says what to do."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gmm_dask.errors import OutputError
from gmm_dask.storage.records.documents import MAX_BYTES
from gmm_dask.storage.store.local_store import LocalStore
from gmm_dask.storage.store.protocol import Store, create_once
from gmm_dask.storage.store.runs import open_store
from tests.object_service import files as service_files
from tests.storage.stores import FaultStore, MemoryStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "out"))


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    if request.param == "local":
        return request.getfixturevalue("store")
    return request.getfixturevalue("service").store()


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def everything(store: Store) -> list[str]:
    """All that lies there, hidden or not."""
    if isinstance(store, LocalStore):
        return files(Path(store.url))
    root = store.url.removeprefix("s3://") + "/"
    return sorted(key.removeprefix(root) for key in service_files().find(store.url))


def put_anywhere(store: Store, name: str) -> None:
    """Write under a name that the store itself would refuse."""
    if isinstance(store, LocalStore):
        path = Path(store.url, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"torn")
    else:
        service_files().pipe_file(f"{store.url}/{name}", b"torn")


# --- what each operation promises ------------------------------------------------------------


def test_creating_a_taken_name_is_refused_and_changes_nothing(any_store: Store) -> None:
    store = any_store
    assert store.put_if_absent("runs/a/x.json", b"first") is True
    assert store.put_if_absent("runs/a/x.json", b"second") is False
    assert store.get("runs/a/x.json") == b"first"


def test_creating_a_taken_name_does_not_touch_the_file(store: LocalStore) -> None:
    store.put("x", b"first")
    before = Path(store.path("x")).stat()
    assert store.put_if_absent("x", b"second") is False
    assert Path(store.path("x")).stat().st_mtime_ns == before.st_mtime_ns


def test_put_replaces_and_leaves_nothing_else(any_store: Store) -> None:
    store = any_store
    for data in (b"one", b"", b"two" * 100_000):
        store.put("LATEST", data)
        assert store.get("LATEST") == data
    store.put_if_absent("deep/er/x", b"x")
    assert everything(store) == ["LATEST", "deep/er/x"]


def test_a_store_that_was_never_written_is_empty(any_store: Store) -> None:
    store = any_store
    assert store.list("") == store.list("versions/") == []
    assert not store.exists("versions/00000001.json")
    with pytest.raises(OutputError, match=r"00000001\.json does not exist"):
        store.get("versions/00000001.json")
    assert not Path(store.url).exists()


def test_list_gives_sorted_names_by_prefix_and_hides_unfinished_files(any_store: Store) -> None:
    store = any_store
    names = ["runs/a/z", "runs/a/b/y", "runs/ab/x", "runs-old/w", "LATEST"]
    for name in names:
        store.put(name, b".")
    for hidden in ("runs/.unfinished-0123", "runs/.hidden/x"):
        put_anywhere(store, hidden)
    assert store.list("") == sorted(names)
    assert store.list("runs/") == ["runs/a/b/y", "runs/a/z", "runs/ab/x"]
    assert store.list("runs/a") == ["runs/a/b/y", "runs/a/z", "runs/ab/x"]
    assert store.list("runs/a/") == ["runs/a/b/y", "runs/a/z"]
    assert store.list("nothing/") == []


def test_a_folder_is_not_an_object(any_store: Store) -> None:
    any_store.put("runs/a/x", b".")
    assert any_store.exists("runs/a/x")
    assert not any_store.exists("runs/a")
    assert not any_store.exists("runs/a/x/y")
    with pytest.raises(OutputError):
        any_store.get("runs/a")


def test_no_file_takes_the_place_of_a_folder(store: LocalStore) -> None:
    store.put("runs/a/x", b".")
    with pytest.raises(OutputError, match="not a regular file"):
        store.get("runs/a")
    with pytest.raises(OutputError, match=r"[Mm]ove it away"):
        store.put("runs/a", b".")
    assert store.put_if_absent("runs/a", b".") is False


BAD_NAMES = ["", "/x", "x/", "a//b", "..", "../x", "a/../../x", "./x", ".x", "a/.x", "a\\b", "a\0b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out_of_the_store_or_to_an_unfinished_file(
    any_store: Store, name: str
) -> None:
    store = any_store
    for operation in (
        store.get,
        store.exists,
        store.path,
        lambda n: store.put(n, b""),
        lambda n: store.put_if_absent(n, b""),
    ):
        with pytest.raises(OutputError, match="cannot be the name of an object"):
            operation(name)


def test_no_symbolic_link_leads_out_of_the_store(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"secret")
    store.put("x", b".")
    Path(store.url, "runs").symlink_to(tmp_path / "elsewhere")
    Path(store.url, "model.json").symlink_to(tmp_path / "elsewhere" / "secret")
    for operation in (
        store.get,
        lambda n: store.put(n, b""),
        lambda n: store.put_if_absent(n, b""),
    ):
        with pytest.raises(OutputError, match="symbolic link"):
            operation("runs/secret")
    with pytest.raises(OutputError, match="symbolic link"):
        store.list("runs/")
    with pytest.raises(OutputError, match="symbolic link"):
        store.get("model.json")
    assert (tmp_path / "elsewhere" / "secret").read_bytes() == b"secret"


def test_the_store_itself_may_lie_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    store = LocalStore(str(tmp_path / "out"))
    store.put("runs/x", b"data")
    assert (store.get("runs/x"), store.list("")) == (b"data", ["runs/x"])


def test_a_pipe_in_place_of_a_file_does_not_block_a_reader(store: LocalStore) -> None:
    store.put("x", b".")
    os.mkfifo(Path(store.url, "model.json"))
    with pytest.raises(OutputError, match="not a regular file"):
        store.get("model.json")


def test_a_store_crosses_process_borders(any_store: Store) -> None:
    store = any_store
    store.put("x", b"data")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.get("x") == b"data"
    assert len(pickle.dumps(store)) < 500


def test_a_relative_folder_stays_the_same_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("out")
    store.put("x", b"data")
    monkeypatch.chdir("/")
    assert store.get("x") == b"data"
    assert store.url == str(tmp_path / "out")


# --- opening ---------------------------------------------------------------------------------


def test_file_urls_are_paths(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a%20b").url == f"{tmp_path}/a b"
    assert open_store(f"file://localhost{tmp_path}/out#1").url == f"{tmp_path}/out#1"
    assert open_store(f"{tmp_path}/100%25").url == f"{tmp_path}/100%25"
    assert open_store("~/out").url == str(Path.home() / "out")


@pytest.mark.parametrize("scheme", ["gs", "abfs", "http", "memory", "simplecache::s3"])
def test_other_schemes_are_refused_by_name_without_repeating_the_url(scheme: str) -> None:
    with pytest.raises(OutputError, match=f"{scheme}://") as raised:
        open_store(f"{scheme}://user:hunter2@host/out?token=hunter2")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["", "a\0b", "file://otherhost/out", "~no-such-user-here/out"])
def test_a_url_that_names_no_folder_is_refused(url: str) -> None:
    with pytest.raises(OutputError):
        open_store(url)


# --- several writers -------------------------------------------------------------------------


def test_of_many_writers_of_one_name_exactly_one_wins(any_store: Store) -> None:
    store = any_store
    start = threading.Barrier(8)

    def write(who: int) -> bool:
        start.wait(timeout=60)
        return store.put_if_absent("versions/00000001.json", b"%d" % who * 5000)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert store.get("versions/00000001.json") == b"%d" % won.index(True) * 5000
    assert everything(store) == ["versions/00000001.json"]


def test_writable_is_tried_and_nothing_left(any_store: Store) -> None:
    any_store.put("x", b"data")
    assert any_store.check_writable() is None
    assert everything(any_store) == ["x"]


def test_a_reader_of_a_replaced_object_sees_old_or_new_never_a_mixture(any_store: Store) -> None:
    store = any_store
    store.put("LATEST", b"0" * 10_000)
    done = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(store.get("LATEST"))
        return seen

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for i in range(60):
            store.put("LATEST", b"%d" % (i % 10) * 10_000)
        done.set()
        seen = reading.result(timeout=60)
    assert all(len(set(data)) == 1 and len(data) == 10_000 for data in seen)


def test_an_answer_exists_to_our_own_link_counts_as_created(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system repeats a request whose answer was lost, and then says `exists`."""
    link = os.link

    def repeating(source: Any, target: Any, **options: Any) -> None:
        link(source, target, **options)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", repeating)
    assert store.put_if_absent("x", b"data") is True
    assert store.put_if_absent("x", b"data") is False


# --- unknown outcomes ------------------------------------------------------------------------


def test_a_lost_reply_is_resolved_by_reading_back() -> None:
    memory = MemoryStore()
    assert create_once(FaultStore(memory, 0, "lost reply"), "x", b"ours") == b"ours"
    assert memory.objects == {"x": b"ours"}


def test_a_lost_reply_to_the_loser_gives_the_content_of_the_winner() -> None:
    memory = MemoryStore({"x": b"theirs"})
    assert create_once(FaultStore(memory, 0, "lost reply"), "x", b"ours") == b"theirs"
    assert create_once(memory, "x", b"ours") == b"theirs"
    assert memory.objects == {"x": b"theirs"}


def test_a_creation_that_did_not_happen_is_the_error_it_was() -> None:
    memory = MemoryStore()
    with pytest.raises(OutputError, match="did not answer"):
        create_once(FaultStore(memory, 0, "error before"), "x", b"ours")
    assert memory.objects == {}


def test_a_creation_whose_outcome_is_open_is_asked_for_until_the_store_stands_by_it() -> None:
    class Unflushed(MemoryStore):
        fails = 1

        def put_if_absent(self, name: str, data: bytes) -> bool:
            created = super().put_if_absent(name, data)
            self.fails -= 1
            if self.fails >= 0:
                raise OutputError("the name was not flushed")
            return created

    assert create_once(Unflushed(), "x", b"ours") == b"ours"
    never = Unflushed()
    never.fails = 1000
    with pytest.raises(OutputError, match="not flushed"):
        create_once(never, "x", b"ours")
    assert never.objects == {"x": b"ours"}


def test_where_reading_back_fails_too_the_first_error_is_raised_and_nothing_deleted() -> None:
    class Mute(MemoryStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            super().put_if_absent(name, data)
            raise OutputError("the answer was lost")

        def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
            raise OutputError("cannot read")

    mute = Mute()
    with pytest.raises(OutputError, match="the answer was lost"):
        create_once(mute, "x", b"ours")
    assert mute.objects == {"x": b"ours"}


# --- who may read ----------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in paths}


def test_what_is_private_is_for_this_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(str(tmp_path / "far" / "out"), private=True)
        store.check_writable()
        store.put("LATEST", b"data")
        store.put_if_absent("runs/a/x", b"data")
    finally:
        os.umask(before)
    found = modes(tmp_path / "far")
    files_of = {"out/LATEST", "out/runs/a/x"}
    assert {name: found.pop(name) for name in files_of} == dict.fromkeys(files_of, 0o600)
    assert set(found) == {".", "out", "out/runs", "out/runs/a"}
    assert set(found.values()) == {0o700}


def test_what_is_not_private_is_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        open_store(str(tmp_path / "out")).put("runs/x", b"data")
    finally:
        os.umask(before)
    assert modes(tmp_path / "out") == {".": 0o750, "runs": 0o750, "runs/x": 0o640}


def test_what_was_removed_is_gone_and_may_be_removed_again(any_store: Store) -> None:
    any_store.put("runs/x/checkpoints/00000.json", b"data")
    assert any_store.size("runs/x/checkpoints/00000.json") == 4
    any_store.delete("runs/x/checkpoints/00000.json")
    any_store.delete("runs/x/checkpoints/00000.json")
    with pytest.raises(OutputError, match="does not exist"):
        any_store.size("runs/x/checkpoints/00000.json")


@pytest.mark.parametrize("size", [0, 1, 8])
def test_an_object_is_read_up_to_a_size(size: int, any_store: Store) -> None:
    any_store.put("x", bytes(size))
    assert any_store.get("x", size) == any_store.get("x", 100) == any_store.get("x") == bytes(size)
    if size:
        with pytest.raises(OutputError, match=f"x has {size} bytes, at most {size - 1} belong"):
            any_store.get("x", size - 1)
