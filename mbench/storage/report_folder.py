"""The folder of a report, replaced as a whole: nobody ever finds files of two runs in it.

The new folder is filled beside the old one, gets what is not ours from it, and takes its place in
one step. What a killed process leaves behind is hidden, and the next one clears it away.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mbench.core.errors import StoreError
from mbench.storage.atomic import sweep, unfinished, write_atomically

PAGE = "index.html"
LOCK = "suite.lock"

VERDICT = "verdict.json"
"""What the index of a folder of reports shows of each."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors that replacing the files one by one would meet as well."""


@dataclass
class Replacement:
    """A folder that is being filled, see `replacing`."""

    folder: Path
    one_by_one: str = ""
    """Why the files were replaced one after another; empty where all were at once, as usual."""


@contextlib.contextmanager
def replacing(
    directory: Path, ours: Collection[str], folders: Collection[str] = ()
) -> Iterator[Replacement]:
    """Yield a new folder that takes the place of `directory` at the end of the block.

    Files named in `ours`, and those in `folders` that the block makes, come from the block alone;
    all else in `directory` stays. After an error in the block, or here, `directory` is as it was.
    Where a folder cannot be exchanged, e.g. because a disk is mounted there, its files are replaced
    one by one.

    Raises `StoreError` where something cannot be written.
    """
    place = Path(os.path.realpath(directory))
    with _beside(directory, place) as replacement:
        yield replacement
        _refuse_folders(place, ours)
        if not replacement.one_by_one:
            replacement.one_by_one = _exchange_all(place, replacement.folder, ours)
        if replacement.one_by_one:
            _replace_files(place, replacement.folder, ours, folders)


def check_replaceable(directory: Path) -> None:
    """Raise `StoreError` where nothing can be written, before hours of work rather than after."""
    with _beside(directory, Path(os.path.realpath(directory))) as replacement:
        (replacement.folder / "probe").touch()


@contextlib.contextmanager
def _beside(directory: Path, place: Path) -> Iterator[Replacement]:
    """A new folder on the same disk; what has its name at the end is removed."""
    reason = _fixed(place)
    with unfinished(place / "report" if reason else place, os.mkdir) as folder:
        try:
            sweep(folder.parent)
            _put_back(place)
            if place.exists() and not place.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            yield Replacement(folder, reason)
        except StoreError as error:
            # What the user knows by name is the folder that it was to become.
            raise StoreError(str(error).replace(str(folder), str(directory))) from error
        except OSError as error:
            raise StoreError(f"cannot write {directory}: {error.strerror or error}") from error


def _put_back(place: Path) -> None:
    """Give a folder its name again, which a process was killed without doing."""
    moved = _moved(place)
    if moved.exists():
        if place.exists():
            shutil.rmtree(moved, ignore_errors=True)
        else:
            moved.rename(place)


def _moved(place: Path) -> Path:
    """Where a folder is for a moment, if two cannot be exchanged in one step."""
    return place.with_name(f".{place.name}.replaced")


def _fixed(place: Path) -> str:
    """Why a folder cannot be exchanged, as far as that shows before trying; empty if it can."""
    if os.path.ismount(place):
        return "another file system is mounted there"
    if place.exists() and not os.access(place.parent, os.W_OK | os.X_OK):
        return "the folder around it is read-only"
    try:
        inside = Path.cwd().is_relative_to(place)
    except OSError:  # somebody removed it
        inside = False
    return "it is the working directory" if inside else ""


def _refuse_folders(place: Path, ours: Collection[str]) -> None:
    """A folder of the user that is named like a file of ours is not removed."""
    for name in ours:
        if (place / name).is_dir() and not (place / name).is_symlink():
            raise IsADirectoryError(errno.EISDIR, f"{name}: {os.strerror(errno.EISDIR)}")


def _exchange_all(place: Path, folder: Path, ours: Collection[str]) -> str:
    """Put `folder` in the place of `place`; returns why that cannot be done, or an empty text."""
    try:
        if not place.exists():
            folder.rename(place)
            return ""
        _carry_over(place, folder, ours)
        shutil.copystat(place, folder)
        with contextlib.suppress(PermissionError):
            os.chown(folder, -1, place.stat().st_gid)
        _exchange(place, folder)
    except OSError as error:
        if error.errno in _FULL:
            raise
        return error.strerror or str(error)
    return ""


def _carry_over(source: Path, target: Path, leave: Collection[str] = ()) -> None:
    """Give `target` what it lacks of `source`; files are the same on disk, not copies."""
    for entry in os.scandir(source):
        made = target / entry.name
        if entry.name in leave or os.path.lexists(made):
            continue
        if entry.is_symlink():
            made.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            made.mkdir()
            _carry_over(Path(entry.path), made)
            shutil.copystat(entry.path, made)
        else:
            try:
                os.link(entry.path, made)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise
                shutil.copy2(entry.path, made)


def _exchange(place: Path, folder: Path) -> None:
    """Exchange two folders, in one step where the system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        here, there = os.fsencode(folder), os.fsencode(place)
        if rename(_AT_FDCWD, here, _AT_FDCWD, there, _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_EXCHANGE:
            raise OSError(number, os.strerror(number))
    old = _moved(place)
    place.rename(old)
    try:
        folder.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _replace_files(
    place: Path, folder: Path, ours: Collection[str], folders: Collection[str]
) -> None:
    made = sorted(path for path in folder.iterdir() if path.name in ours)
    for inner in (folder / name for name in folders if (folder / name).is_dir()):
        (place / inner.name).mkdir(exist_ok=True)
        for path in sorted(inner.iterdir()):
            write_atomically(place / inner.name / path.name, partial(shutil.copyfile, path))
    for path in made:
        # Copied, because a rename may not reach there.
        write_atomically(place / path.name, partial(shutil.copyfile, path))
    for name in set(ours) - {path.name for path in made}:
        (place / name).unlink(missing_ok=True)
