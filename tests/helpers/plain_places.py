"""Places that offer less than object storage does, as fsspec file systems in memory."""

from __future__ import annotations

from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


def denied(self, path, *arguments, **options):
    """Instead of any method that changes something."""
    raise PermissionError(13, "Permission denied")


class Plain(MemoryFileSystem):
    """Writes over what is there whatever it is asked, as a file server without conditions."""

    protocol = "plain"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("plain://", "memory://"))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, mode="overwrite", **kwargs)


class Keeping(MemoryFileSystem):
    """Lets nobody remove or copy anything."""

    protocol = "keeping"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("keeping://", "memory://"))

    rm_file = cp_file = denied


def register() -> None:
    """Make them known by their protocols, with nothing in them."""
    for kind in (Plain, Keeping):
        kind.store.clear()
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
