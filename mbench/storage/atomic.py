"""Files and folders that are there whole or not at all, whoever else writes beside them.

What is not finished has a name that says whose it is, `.NAME.HOST.PID.NUMBER.partial`, so that
`sweep` can remove what killed processes left. All get the modes that the user's umask, or a shared
folder's group, gives to any other file. Everything is on the disk before it gets its name, so that
a power cut leaves no empty file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from mbench.core.errors import StoreError

ABANDONED = 7 * 24 * 3600
"""Seconds after which a temporary is nobody's, also where its process cannot be looked up."""

_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.\d+\.partial")
_SCRATCH = re.compile(r"mbench-.+\.(?P<host>[^.]+)\.(?P<pid>\d+)")
_THERE = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_numbers = itertools.count()
_ours: set[Path] = set()
"""Temporaries that this process has not finished yet."""


class AlreadyThere(StoreError):
    """Something has the name that was to be taken: somebody else was first."""


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it becomes `path`, or disappears after an error.

    Raises `AlreadyThere` where there is something by then, which stays; `StoreError` where the
    folder cannot be written.
    """
    with unfinished(path, os.mkdir) as folder:
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                _to_disk(file)
        try:
            folder.rename(path)
        except OSError as error:
            if error.errno in _THERE and os.path.lexists(path):
                raise AlreadyThere(f"{path} exists already") from None
            raise


def temporary_folder(path: Path) -> Path:
    """A new folder beside `path`, until `discard`, or until `sweep` after this process has ended.

    Raises `StoreError` where it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = _free_name(path)
        _ours.add(folder)
        folder.mkdir()
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return folder


def discard(folder: Path) -> None:
    """Remove a temporary folder."""
    _discard(folder)
    _ours.discard(folder)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there; raises `StoreError`."""
    with unfinished(path, _make_file) as temporary:
        write(temporary)
        _to_disk(temporary)
        temporary.replace(path)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file in UTF-8, as `write_atomically` does; line ends stay as they are."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_new(path: Path, content: bytes) -> None:
    """Write a file where there is none.

    Raises `AlreadyThere` where there is something by then, which stays; `StoreError` where it
    cannot be written.
    """
    with unfinished(path, _make_file) as temporary:
        temporary.write_bytes(content)
        _to_disk(temporary)
        take_name(temporary, path)


def take_name(source: Path, path: Path) -> None:
    """Rename a file, but over nothing: raises `AlreadyThere` where there is something."""
    try:
        os.link(source, path, follow_symlinks=False)
    except FileExistsError:
        raise AlreadyThere(f"{path} exists already") from None
    except OSError as error:
        # A file system without hard links: whole all the same, though the last of two may win.
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise AlreadyThere(f"{path} exists already") from None
        source.rename(path)
        return
    source.unlink()


def remove(path: Path) -> None:
    """Remove a file or folder so that others see all of it or nothing; raises `StoreError`."""
    try:
        doomed = _free_name(path)
        path.rename(doomed)
        _discard(doomed)
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error


def sweep(folder: Path) -> int:
    """Remove the temporaries of processes that are gone from a folder; returns how many."""
    swept = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PARTIAL.fullmatch(entry.name)
            if match is not None and _abandoned(Path(entry.path), match):
                _discard(Path(entry.path))
                swept += not os.path.lexists(entry.path)
    return swept


def scratch_folder(purpose: str) -> Path:
    """A new folder among the system's temporaries; those that killed processes left are removed."""
    place = tempfile.gettempdir()
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            match = _SCRATCH.fullmatch(entry.name)
            # However old it is, a model in a process that still runs may be read from it.
            if match and match["host"] == _host() and not _alive(int(match["pid"])):
                _discard(Path(entry.path))
    owner = f".{_host()}.{os.getpid()}"
    return Path(tempfile.mkdtemp(prefix=f"mbench-{purpose}-", suffix=owner, dir=place))


def _abandoned(path: Path, match: re.Match[str]) -> bool:
    if path in _ours:
        return False
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    if match["host"] != _host():
        return age > ABANDONED
    pid = int(match["pid"])
    return age > ABANDONED or pid == os.getpid() or not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@cache
def _host() -> str:
    """Where process numbers mean the same: the machine's name, its boot and the container.

    The name alone does not tell apart machines that are clones of one another.
    """
    name = re.sub(r"[^\w-]", "-", platform.node())[:60] or "-"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        return f"{name}-{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return name


def _free_name(path: Path) -> Path:
    while True:
        number = next(_numbers)
        name = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{number}.partial")
        if not os.path.lexists(name):
            return name


@contextlib.contextmanager
def unfinished(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield what `make` makes beside `path`; whatever has its name at the end is removed.

    Raises `StoreError` for whatever cannot be read or written in the block.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _free_name(path)
        _ours.add(temporary)
        make(temporary)
        yield temporary
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            _discard(temporary)
            _ours.discard(temporary)


def _make_file(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _discard(path: Path) -> None:
    """Remove a file or folder if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
