"""Reads files that people write by hand: text of limited size, and nothing that could block."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Unreadable(Exception):
    """Why a file cannot be read, in words; `FileNotFoundError` is left as it is."""


def read_small_file(path: Path, most_bytes: int) -> str:
    """The text of a UTF-8 file, its byte order mark left out.

    Raises `FileNotFoundError`, or `Unreadable` for what is no regular file, too large, not UTF-8 or
    not to be opened.
    """
    try:
        # A pipe would otherwise wait for its writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable("it is no regular file")
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if len(content) > most_bytes:
        raise Unreadable(f"it has more than {most_bytes:,} bytes".replace(",", " "))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"not UTF-8 text (line {line})") from None
