"""A store in a folder of a POSIX file system; a crash leaves a name absent or whole, never torn."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gmm_dask.errors import OutputError, PlaceTakenError
from gmm_dask.storage.records.documents import MAX_BYTES
from gmm_dask.storage.store.protocol import Names, absent, name_parts, too_large

UNFINISHED = ".unfinished-"  # with which the name of a file begins that is being written
READ_BYTES = 1 << 20  # at once, of a file whose size says less than it holds


_NO_FOLDER = "a file is where a folder should be: move it away, or choose another output folder"


_REMEDIES = {
    errno.EACCES: "give this user permission there, or choose another output folder",
    errno.EPERM: "give this user permission there, or choose another output folder",
    errno.EROFS: "choose an output folder on a file system that is not read-only",
    errno.ENOSPC: "free some space and run again; what is finished is kept",
    errno.EDQUOT: "free some of the quota and run again; what is finished is kept",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "a folder is where a file should be: move it away",
    errno.ENAMETOOLONG: "choose an output folder with a shorter path",
    errno.ELOOP: "replace the symbolic link by the file or folder itself",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f), and run again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


_ANY_REMEDY = "see that the file system is mounted and healthy, then run again"


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class LocalStore:
    """Objects as files below one folder; several processes may write at once.

    A file is written under a name that starts with a dot, flushed to the disk, and only then
    linked (or moved) to its own name in the same folder, which is flushed too.

    Parameters
    ----------
    url : str
        The folder; made absolute. It is created by the first write.
    private : bool
        Whether what is created can be read by this user alone; else the umask decides.
    """

    url: str
    private: bool = False

    def __post_init__(self) -> None:
        if not self.url or "\0" in self.url:
            raise OutputError("The output folder has no usable name: set output.path.")
        with _explained(Path(self.url), "used"):
            object.__setattr__(self, "url", str(Path(self.url).absolute()))

    def path(self, name: str) -> str:
        """Where the object lies, for people and for libraries."""
        return str(self._located(name))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Create the object; False where the name was taken, whose content is untouched."""
        path = self._inside(name)
        with _explained(path, "written"):
            _make_folder(path.parent, self._folder_mode)
            created = False
            if not os.path.lexists(path):
                with _temporary(path.parent, data, self._file_mode) as temporary:
                    created = _link(temporary, path)
                    _flush_folder(path.parent)
            else:
                # Its writer may have died before flushing; nobody may build on it before.
                _flush_folder(path.parent)
        return created

    def put(self, name: str, data: bytes) -> None:
        """Create or replace the object; readers see the old content or the new."""
        path = self._inside(name)
        with _explained(path, "written"):
            _make_folder(path.parent, self._folder_mode)
            _replace(path, data, self._file_mode)

    def get(self, name: str, at_most: int = MAX_BYTES) -> bytes:
        """The whole content; raises OutputError where there is none, or more bytes than that."""
        path = self._inside(name)
        with _explained(path, "read"):
            try:
                return read_regular(path, at_most, os.O_NOFOLLOW)  # a link must not lead elsewhere
            except FileNotFoundError:
                raise OutputError(absent(path)) from None
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise PlaceTakenError(
                    f"{path} is a symbolic link where a file should be: {_REMEDIES[errno.ELOOP]}."
                ) from error

    def exists(self, name: str) -> bool:
        """Whether there is such an object; not being allowed to look is an error."""
        path = self._inside(name)
        with _explained(path, "read"):
            try:
                return stat.S_ISREG(path.lstat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def size(self, name: str) -> int:
        """Bytes of the content; raises OutputError where there is none."""
        path = self._inside(name)
        with _explained(path, "read"):
            try:
                return path.lstat().st_size
            except FileNotFoundError:
                raise OutputError(absent(path)) from None

    def delete(self, name: str) -> None:
        """Remove the object, if there is one."""
        path = self._inside(name)
        with _explained(path, "removed"):
            path.unlink(missing_ok=True)

    def list(self, prefix: str) -> Names:
        """Sorted names that start with the prefix; unfinished files are left out."""
        top = self._inside(prefix + "x").parent
        names = []
        with _explained(top, "listed"):
            for parent, folders, files in os.walk(top, onerror=_unless_absent):
                folders[:] = [each for each in folders if not each.startswith(".")]
                relative = Path(parent).relative_to(self.url).as_posix()
                inside = "" if relative == "." else relative + "/"
                names += [inside + file for file in files if not file.startswith(".")]
        return sorted(name for name in names if name.startswith(prefix))

    def check_writable(self) -> None:
        """Try every operation that publishing needs, leaving nothing behind; raises OutputError."""
        folder = Path(self.url)
        with _explained(folder, "written"):
            while not os.path.lexists(folder):
                folder = folder.parent
            if not folder.is_dir():
                raise OutputError(f"{folder} is a file, not a folder: choose another output.path.")
            with _temporary(folder, b"probe\n", self._file_mode) as first:
                second = _temporary_name(folder)
                try:
                    _link(first, second)
                finally:
                    with suppress(OSError):
                        second.unlink()

    @property
    def _file_mode(self) -> int:
        return 0o600 if self.private else 0o666

    @property
    def _folder_mode(self) -> int:
        return 0o700 if self.private else 0o777

    def _located(self, name: str) -> Path:
        return Path(self.url, *name_parts(name, self.url))

    def _inside(self, name: str) -> Path:
        path = self._located(name)
        top, parent = os.path.realpath(self.url), os.path.realpath(path.parent)
        if not Path(parent).is_relative_to(top):
            raise OutputError(
                f"{path} lies outside {self.url}, behind a symbolic link: "
                "replace the link by the folder itself."
            )
        return path


def write_file(path: Path, data: bytes) -> None:
    """Write a file that a user asks for; where that fails, what was there is as it was.

    Into what is no regular file, such as /dev/stdout, the bytes are written straight.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}. Create it.")
    with _explained(path, "written"):
        if path.is_file() or not os.path.lexists(path):
            _replace(Path(os.path.realpath(path)), data, 0o666)
        else:
            path.write_bytes(data)


def read_regular(path: Path, at_most: int, flags: int = 0) -> bytes:
    """The content of a regular file of at most so many bytes; its size is looked at first.

    Raises
    ------
    PlaceTakenError
        There is a folder, a pipe or a device.
    OutputError
        It has more bytes.
    OSError
        As the system says.
    """
    taken = f"{path} is not a regular file: something took its place. Move it away."
    try:
        # A pipe put in place of the file must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise PlaceTakenError(taken) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PlaceTakenError(taken)
        if status.st_size > at_most:
            raise OutputError(too_large(str(path), status.st_size, at_most))
        blocks, wanted = [], status.st_size + 1  # mostly all of it, and one block is not copied
        while block := os.read(descriptor, wanted):
            blocks.append(block)
            at_most, wanted = at_most - len(block), READ_BYTES
            if at_most < 0:
                raise OutputError(f"{path} grows while it is read: see what writes to it.")
        return b"".join(blocks)
    finally:
        os.close(descriptor)


def _place(filename: str | Path) -> str:
    """What a user knows of a file that could not be reached: of an unfinished one, the folder."""
    path = Path(filename)
    return str(path.parent if path.name.startswith(UNFINISHED) else path)


@contextmanager
def _explained(path: Path, done: str) -> Iterator[None]:
    """Turn errors of the operating system into an OutputError with path, reason and remedy."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        place = _place(error.filename or path)
        where = "" if place in (str(path), str(path.parent)) else f" ({place})"
        remedy = _REMEDIES.get(error.errno or 0, _ANY_REMEDY)
        raise OutputError(f"{path} cannot be {done}: {reason}{where}; {remedy}.") from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    with _temporary(path.parent, data, mode) as temporary:
        temporary.replace(path)
        _flush_folder(path.parent)


@contextmanager
def _temporary(folder: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A flushed file under a hidden name of its own, gone at the end of the block."""
    path = _temporary_name(folder)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        # One left behind by a crash is invisible to readers and in nobody's way.
        with suppress(OSError):
            path.unlink()


def _temporary_name(folder: Path) -> Path:
    return folder / f"{UNFINISHED}{secrets.token_hex(8)}"


def _link(temporary: Path, path: Path) -> bool:
    """Give the file its name unless it is taken; the one step that decides between writers."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        # A network file system may answer "exists" to its own repeated request.
        return os.path.samestat(temporary.lstat(), path.lstat())
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise OutputError(
            f"{path} cannot be created: this file system has no hard links, by which one of "
            "several writers wins; choose an output folder on another file system."
        ) from error
    return True


def _make_folder(folder: Path, mode: int) -> None:
    """Create the folder and those above it; each is on the disk before it is used."""
    if folder.is_dir():
        _flush_above(folder)
        return
    _make_folder(folder.parent, mode)
    try:
        folder.mkdir(mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
    _flush_folder(folder.parent)


@lru_cache(maxsize=256)
def _flush_above(folder: Path) -> None:
    """Flush the names of a folder that was found and of those above it, once in a process.

    Whoever made them may have died before. Nobody makes what is mounted, or where writing is not
    allowed.
    """
    if not os.path.ismount(folder) and os.access(folder.parent, os.R_OK | os.W_OK):
        _flush_above(folder.parent)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder and say so in this way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
