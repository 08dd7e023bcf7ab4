"""Third-party code that a page carries, read from the installed packages."""

from __future__ import annotations

import base64
import functools
import gzip
from importlib.metadata import distribution
from pathlib import Path

TABLES = "itables"
"""Bundles DataTables; only its files are read, the package itself is slow to import."""


@functools.cache
def packed(name: str) -> str:
    """A file of the tables' bundle, compressed, in base64: a third of its size.

    Base64 needs no escaping and cannot end the element that holds it.
    """
    path = Path(str(distribution(TABLES).locate_file(f"{TABLES}/html/{name}")))
    return compressed(path.read_bytes())


def compressed(content: bytes) -> str:
    """Compressed, in base64; equal content gives an equal text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def credit() -> str:
    """A sentence on the third-party code of the page and its licence."""
    return (
        f"Its tables are sorted, filtered and exported by DataTables, as bundled in {TABLES} "
        f"{distribution(TABLES).version} (MIT licence)."
    )
