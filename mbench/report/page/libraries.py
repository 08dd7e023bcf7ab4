"""Code of others that a page carries, read from the packages that bring it."""

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

    What is packed cannot end the element that holds it, and needs no escaping.
    """
    content = Path(str(distribution(TABLES).locate_file(f"{TABLES}/html/{name}"))).read_bytes()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def credit() -> str:
    """Whose code the page carries, in one sentence."""
    return (
        f"Its tables are sorted, filtered and exported by DataTables, as bundled in {TABLES} "
        f"{distribution(TABLES).version} (MIT licence)."
    )
