"""A checksum inside a file, over the whole file, so that no damaged byte is taken for a figure.

A JSON file stays JSON and a parquet file stays parquet: the checksum is a text of fixed width in
it, and what is hashed is the file with zeros in its place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from mbench.core.errors import Damaged, StoreError
from mbench.storage.place import Place, RemotePlace

_MARK = b"mbench-sha256:"
_ZEROS = b"0" * 64

_SEAL = re.compile(_MARK + b"([0-9a-f]{64})")

OPEN_SEAL = (_MARK + _ZEROS).decode()
"""What a file holds where its checksum is to be."""

_NOT_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)
"""Why a sound file may not be readable at the moment."""


def sealed(content: bytes) -> bytes:
    """The file with its checksum; `content` holds `OPEN_SEAL` before anything that is like it."""
    place = _place(content)
    if place is None:
        raise ValueError("the content has no place for its checksum")
    return content[:place] + _digest(content, place) + content[place + 64 :]


def check(content: bytes) -> None:
    """Raise `Damaged` unless a file's content is, bit for bit, what was sealed."""
    if not content:
        raise Damaged("it is empty")
    place = _place(content)
    if place is None:
        raise Damaged("it has no checksum, as what an older mbench wrote")
    if content[place : place + 64] != _digest(content, place):
        raise Damaged("its checksum does not match")


def check_sha256(content: bytes, expected: str) -> None:
    """Raise `Damaged` unless the content has this sha256."""
    if hashlib.sha256(content).hexdigest() != expected:
        raise Damaged("its checksum does not match")


def read_file(path: Place) -> bytes:
    """The content of a regular file.

    Raises `FileNotFoundError` where nothing has this name; `Damaged` where it is anything else or
    cannot be read; `StoreError` where it cannot be read at the moment, e.g. for lack of memory.
    """
    if isinstance(path, RemotePlace):
        return path.read()
    with _regular_file(path) as file:
        return file.read()


def check_file_sha256(path: Path, expected: str) -> None:
    """Raise `Damaged` unless a file has this sha256, else what `read_file` raises; in pieces."""
    with _regular_file(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise Damaged("its checksum does not match")


@contextlib.contextmanager
def _regular_file(path: Path) -> Iterator[io.BufferedReader]:
    try:
        # A pipe or a device must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path):
            raise Damaged("it is a link that leads nowhere") from None
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise Damaged("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> Damaged | StoreError:
    if error.errno in _NOT_DAMAGE:
        return StoreError(f"cannot read {path}: {error.strerror}")
    return Damaged(f"it cannot be read: {error.strerror}")


def _place(content: bytes) -> int | None:
    """Where the 64 digits are, or None."""
    match = _SEAL.search(content)
    return None if match is None else match.start(1)


def _digest(content: bytes, place: int) -> bytes:
    view = memoryview(content)
    total = hashlib.sha256(view[:place])
    total.update(_ZEROS)
    total.update(view[place + 64 :])
    return total.hexdigest().encode()
