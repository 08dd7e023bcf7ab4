"""Makes a folder whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mbench.core.errors import StoreError


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it becomes `path`, or disappears after an error.

    Raises `StoreError` where it cannot be written.
    """
    folder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        # mkdtemp makes folders that only their owner can read.
        folder.chmod(0o777 & ~umask)
        folder.rename(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
