"""Content-addressed artefacts on disk: written whole or not at all, never changed afterwards.

    statistics/KEY/   one statistic of one model on one corpus
    masks/KEY.json    the mask of one cell
    evaluations/KEY.* per-item outcomes of one mask on one task
    efficiency/KEY.json  what one budget saves, on the machine that it was measured on
    facts/KEY.json    what was learned of a model or task, so that a plan needs neither

A key is the hash of everything the artefact depends on; paths, order, device and batch size are
never part of it, but for measurements of speed. Failures are not stored, so they are tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

ENVIRONMENT_VARIABLE = "MBENCH_STORE"


def key_of(parts: Mapping[str, Any]) -> str:
    """sha256 of canonical JSON: key order and spacing do not matter."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def default_root() -> Path:
    """`$MBENCH_STORE`, else the user's cache directory."""
    import platformdirs

    given = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(given) if given else Path(platformdirs.user_cache_dir("mbench"))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then move it there; raises `StoreError`."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        # mkstemp makes files that only their owner can read.
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file in UTF-8, as `write_atomically` does; line ends stay as they are."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode())

    write_atomically(path, write)


class Store:
    """A directory of artefacts."""

    def __init__(self, root: Path) -> None:
        """Use `root`, made if absent; raises `StoreError` where it cannot be written."""
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot use the store {root}: {error.strerror}") from None
        if not os.access(root, os.W_OK):
            raise StoreError(f"cannot use the store {root}: not writable")

    def read_json(self, kind: str, key: str) -> Any | None:
        """An artefact's JSON, or None if it is absent or damaged."""
        try:
            return json.loads((self.root / kind / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None

    def write_json(self, kind: str, key: str, value: Any) -> None:
        """Store a JSON artefact."""
        text = json.dumps(value, sort_keys=True)
        write_atomically(self.root / kind / f"{key}.json", lambda path: _write(path, text))

    def has_items(self, key: str) -> bool:
        """Whether an evaluation's per-item outcomes are stored."""
        return (self.root / "evaluations" / f"{key}.parquet").is_file()

    def read_items(self, key: str) -> pd.DataFrame | None:
        """Per-item outcomes of an evaluation, or None if they are absent or damaged."""
        import pandas as pd

        path = self.root / "evaluations" / f"{key}.parquet"
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError):
            return None

    def write_items(self, key: str, items: pd.DataFrame) -> None:
        """Store per-item outcomes."""
        path = self.root / "evaluations" / f"{key}.parquet"
        write_atomically(path, lambda temporary: items.to_parquet(temporary, index=False))

    def has_statistic(self, key: str) -> bool:
        """Whether a statistic is stored whole."""
        return (self.root / "statistics" / key / "meta.json").is_file()

    def write_statistic(
        self,
        key: str,
        meta: Mapping[str, Any],
        sums: Mapping[str, np.ndarray],
        samples: Mapping[str, list[np.ndarray]],
    ) -> None:
        """Store a statistic's sums [shards, layers, ...] and samples per layer [t, ...]."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        final = self.root / "statistics" / key
        partial: Path | None = None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=final.parent, prefix="."))
            save_file(
                {name: np.ascontiguousarray(array) for name, array in sums.items()},
                partial / "sums.safetensors",
            )
            for layer in range(len(next(iter(samples.values()), []))):
                arrays = {name: np.ascontiguousarray(of[layer]) for name, of in samples.items()}
                save_file(arrays, partial / f"layer-{layer:03d}.safetensors")
            _write(partial / "meta.json", json.dumps(meta, sort_keys=True))
            if final.exists():
                shutil.rmtree(final)
            partial.replace(final)
        except OSError as error:
            raise StoreError(f"cannot write {final}: {error.strerror or error}") from error
        except SafetensorError as error:
            raise StoreError(f"cannot write {final}: {error}") from error
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)

    def read_statistic_meta(self, key: str) -> dict[str, Any]:
        """What was stored beside a statistic's arrays."""
        meta: dict[str, Any] = json.loads(
            (self.root / "statistics" / key / "meta.json").read_text()
        )
        return meta

    def read_sums(self, key: str) -> dict[str, np.ndarray]:
        """A statistic's sums [shards, layers, ...] by array name."""
        return self._load(self.root / "statistics" / key / "sums.safetensors")

    def read_samples(self, key: str, layer: int) -> dict[str, np.ndarray]:
        """A statistic's samples [t, ...] in one layer by array name."""
        return self._load(self.root / "statistics" / key / f"layer-{layer:03d}.safetensors")

    def _load(self, path: Path) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            folder = path.parent
            raise StoreError(
                f"{path} is damaged ({error}); delete {folder} and run again"
            ) from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
