"""What a file of text is: its format and its compression, and its content without the latter.

Both follow from the name, and from the content where that leaves no doubt. A file whose name
promises another content is refused.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from mbench.core.errors import CorpusError, one_line
from mbench.storage.text_files.values import Object

Format = Literal[
    "plain text", "JSON lines", "JSON list", "CSV", "TSV", "parquet", "Arrow file", "Arrow stream"
]

FORMATS: dict[str, Format] = {
    ".txt": "plain text",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON lines",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "parquet",
    ".arrow": "Arrow file",
    ".feather": "Arrow file",
}
"""By the end of a name. A file of any other name is plain text unless it looks like JSON lines."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
"""By the end of a name."""

FOREIGN = {
    codecs.BOM_UTF32_LE: "UTF-32 text: convert it to UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32 text: convert it to UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16 text: convert it to UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text: convert it to UTF-8",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"%PDF-": "a PDF document",
}
"""What is not read, by its first bytes; the longer first."""

HEAD = 2**16
"""Bytes that tell what a file is."""

CHUNK = 2**20
"""Bytes that are read at once."""

_OPEN: dict[str, Callable[[Path], Any]] = {
    "gzip": gzip.open,
    "xz": lzma.open,
    "bzip2": bz2.open,
}

JSON = json.JSONDecoder(object_pairs_hook=Object)


@dataclass(frozen=True)
class TextFile:
    """A file whose format is known."""

    path: Path
    format: Format
    compression: str | None = None
    """One of `COMPRESSIONS`."""
    marked: bool = False
    """Whether it begins with a byte order mark, which is no part of the text."""
    seems: Format | None = None
    """What plain text seems to be instead, though its name does not say so."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The content, decompressed; raises `CorpusError` where it cannot be read."""
        import pyarrow

        with one_line_errors(self.path):
            if self.compression is None:
                raw: Any = self.path.open("rb", buffering=0)
            elif self.compression == "zstd":
                raw = pyarrow.CompressedInputStream(pyarrow.OSFile(str(self.path)), "zstd")
            else:
                raw = _OPEN[self.compression](self.path)
            with io.BufferedReader(raw, CHUNK) as stream:
                yield stream


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Raise what the libraries that read files raise as a `CorpusError` that names the file."""
    import pyarrow

    try:
        yield
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        pyarrow.ArrowException,
        ValueError,  # a name that is damaged
        MemoryError,  # a length that is damaged
    ) as error:
        known = isinstance(error, OSError) and error.strerror
        reason = known or f"damaged or cut short ({one_line(error)})"
        raise CorpusError(f"{path}: cannot be read: {reason}") from None


def recognise(path: Path) -> TextFile:
    """Find out what a file is; raises `CorpusError` for what is no file, or of no known format."""
    head, tail = _ends(path)
    promised = COMPRESSIONS.get(path.suffix.lower())
    compression = _compression(head)
    if promised not in (None, compression):
        raise CorpusError(f"{path}: named like {promised}, but its content is not {promised}")
    if compression:
        with TextFile(path, "plain text", compression).opened() as stream:
            head, tail = stream.read(HEAD), b""
        if _compression(head):
            raise CorpusError(f"{path}: compressed twice: decompress it")
    table = _table(head, tail)
    if table and compression:
        raise CorpusError(f"{path}: {table} in {compression}: decompress it")
    name = Path(path.stem) if promised else path
    found = table or _text_format(path, name.suffix.lower(), head)
    seems: Format | None = None
    if found == "plain text" and _begins_with_object(head):
        seems = "JSON lines"
    return TextFile(path, found, compression, head.startswith(codecs.BOM_UTF8), seems)


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first bytes and the last four."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CorpusError(f"{path}: a folder: name its files")
        # Opening a pipe would wait for somebody to write into it.
        if not stat.S_ISREG(mode):
            raise CorpusError(f"{path}: no regular file")
        with path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(max(0, file.seek(0, io.SEEK_END) - 4))
            return head, file.read()
    except FileNotFoundError:
        raise CorpusError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"{path}: cannot be read: {reason}") from None


def _compression(head: bytes) -> str | None:
    starts = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0"}
    for name, start in starts.items():
        if head.startswith(start):
            return name
    bzip2 = head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")
    return "bzip2" if bzip2 else None


def _table(head: bytes, tail: bytes) -> Format | None:
    if head.startswith(b"PAR1") and tail == b"PAR1":
        return "parquet"
    if head.startswith(b"ARROW1\0\0"):
        return "Arrow file"
    return "Arrow stream" if head.startswith(b"\xff\xff\xff\xff") else None


def _text_format(path: Path, suffix: str, head: bytes) -> Format:
    for start, what in FOREIGN.items():
        if head.startswith(start):
            raise CorpusError(f"{path}: {what}")
    promised = FORMATS.get(suffix)
    if promised in ("parquet", "Arrow file"):
        raise CorpusError(f"{path}: named like {promised}, but its content is not {promised}")
    if promised == "JSON lines":
        return "JSON list" if _begin(head).startswith(b"[") else promised
    if promised is None and _begins_with_object(head):
        words = "looks like JSON lines: name it .jsonl, or .txt to have it read as plain text"
        raise CorpusError(f"{path}: {words}")
    return promised or "plain text"


def _begin(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8).lstrip()


def _begins_with_object(head: bytes) -> bool:
    line = _begin(head).partition(b"\n")[0]
    try:
        return isinstance(JSON.decode(line.decode()), Object)
    except (ValueError, RecursionError):
        return False
