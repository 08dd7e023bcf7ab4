"""Streams that print clean text, and fail nobody where it cannot be read."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from mbench.core.clean_text import redacted, visible

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a stream whose reader has ended, e.g. `head`, or a terminal that was closed."""

_lost: list[str] = []
"""Why something could not be printed although somebody may read it, e.g. a full disk."""


class OutputStream(io.TextIOBase):
    """A stream that never fails: a run is worth more than a line about it; see `lost_output`."""

    def __init__(self, stream: TextIO, *, clean: bool = True) -> None:
        """Print to `stream`; `clean`: with control characters visible, and redacted."""
        self.stream = stream
        self._clean = clean

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Print text."""
        printed = redacted(visible(text)) if self._clean else text
        with self._forgiving():
            try:
                self.stream.write(printed)
            except UnicodeEncodeError as error:  # a terminal that knows less than Unicode
                known = printed.encode(error.encoding, "backslashreplace")
                self.stream.write(known.decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._forgiving():
            self.stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self.stream.isatty()
        return False

    def fileno(self) -> int:
        """That of the stream."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:  # a slow reader misses a line
            pass
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in _GONE:
                _lost.append(error.strerror or str(error))
            self._drop()

    def _drop(self) -> None:
        """Let go of what is buffered: Python would complain of it once more at its end."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@contextmanager
def clean_output() -> Iterator[None]:
    """Clean whatever is printed to standard output and error in this block, plugins' too."""
    with (
        contextlib.redirect_stdout(output_stream(sys.stdout)),
        contextlib.redirect_stderr(output_stream(sys.stderr)),
    ):
        yield


def output_stream(stream: TextIO, *, clean: bool = True) -> TextIO:
    """An `OutputStream`, which is one of Python's text streams in all but its ancestry."""
    return cast(TextIO, OutputStream(stream, clean=clean))


def behind(stream: TextIO) -> TextIO:
    """The stream that an `OutputStream` prints to, or `stream` itself."""
    while isinstance(stream, OutputStream):
        stream = stream.stream
    return stream


def lost_output() -> str:
    """Why something since the last call could not be printed; empty if nobody wanted to read it."""
    reasons = [*_lost, ""]
    _lost.clear()
    return reasons[0]
