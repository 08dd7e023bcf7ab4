"""Content-addressed artefacts on disk: written whole or not at all, never changed afterwards.

    statistics/KEY/   one statistic of one model on one corpus
    masks/KEY.json    the mask of one cell
    evaluations/KEY.* per-item outcomes of one mask on one task
    efficiency/KEY.json  what one budget saves, on the machine that it was measured on
    facts/KEY.json    what was learned of a model or task, so that a plan needs neither

A key is the hash of everything that the artefact depends on (see `mbench.plan.keys`). Each artefact
says what made it: a JSON file under `made_by`, beside its `content`; a table in its metadata, under
`mbench`; a statistic in its `meta.json`. What was made by anything else than the key says counts as
absent. Failures are not stored, so they are tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mbench.core.errors import StoreError
from mbench.core.provenance import CorpusProfile
from mbench.storage.atomic import new_folder, write_atomically, write_text_atomically
from mbench.storage.records import from_plain, to_plain

if TYPE_CHECKING:
    import pandas as pd

ENVIRONMENT_VARIABLE = "MBENCH_STORE"

METADATA = b"mbench"
"""Where the metadata of a parquet file say what made it."""


Kind = Literal["statistics", "masks", "evaluations", "efficiency", "facts"]
"""The folders of a store."""


@dataclass(frozen=True)
class Key:
    """Where an artefact is kept, and what made it."""

    kind: Kind
    digest: str
    """sha256 of `made_by` as canonical JSON: order and spacing do not matter."""
    label: str = field(compare=False)
    """What it is, for people who look at the store."""
    made_by: Mapping[str, Any] = field(compare=False, repr=False)
    """Everything that decides it, as plain JSON values."""

    @classmethod
    def of(cls, kind: Kind, label: str, made_by: Mapping[str, Any]) -> Key:
        """The key of what these values decide."""
        return cls(kind, hashlib.sha256(_canonical(made_by).encode()).hexdigest(), label, made_by)

    def record(self) -> dict[str, Any]:
        """What an artefact says of itself."""
        return {"label": self.label, **json.loads(_canonical(self.made_by))}

    def made(self, record: Any) -> bool:
        """Whether an artefact's record is that of this key."""
        if not isinstance(record, dict):
            return False
        return _canonical({k: v for k, v in record.items() if k != "label"}) == _canonical(
            self.made_by
        )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def default_root() -> Path:
    """`$MBENCH_STORE`, else the user's cache directory."""
    import platformdirs

    given = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(given) if given else Path(platformdirs.user_cache_dir("mbench"))


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

    def path(self, key: Key) -> Path:
        """The file or folder of an artefact."""
        suffix = {"statistics": "", "evaluations": ".parquet"}.get(key.kind, ".json")
        return self.root / key.kind / f"{key.digest}{suffix}"

    def read_json(self, key: Key) -> Any | None:
        """An artefact's JSON, or None if it is absent, damaged or made by something else."""
        try:
            stored = json.loads(self.path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(stored, dict) or not key.made(stored.get("made_by")):
            return None
        return stored.get("content")

    def write_json(self, key: Key, content: Any) -> None:
        """Store a JSON artefact."""
        text = json.dumps({"made_by": key.record(), "content": content}, sort_keys=True)
        write_text_atomically(self.path(key), text)

    def has_items(self, key: Key) -> bool:
        """Whether an evaluation's per-item outcomes are stored."""
        return self.path(key).is_file()

    def read_items(self, key: Key) -> pd.DataFrame | None:
        """Per-item outcomes of an evaluation, or None if absent, damaged or made otherwise."""
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(self.path(key))
            record = json.loads((table.schema.metadata or {})[METADATA])
        except (OSError, ValueError, KeyError):
            return None
        return table.to_pandas() if key.made(record) else None

    def write_items(self, key: Key, items: pd.DataFrame) -> None:
        """Store per-item outcomes."""
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pandas(items, preserve_index=False)
        record = json.dumps(key.record(), sort_keys=True).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: record})
        write_atomically(self.path(key), lambda path: pyarrow.parquet.write_table(table, path))

    def has_statistic(self, key: Key) -> bool:
        """Whether a statistic is stored whole, and made by what the key says."""
        return self._profile(key) is not None

    def write_statistic(
        self,
        key: Key,
        profile: CorpusProfile,
        sums: Mapping[str, np.ndarray],
        samples: Mapping[str, list[np.ndarray]],
    ) -> None:
        """Store a statistic.

        Args:
            key: of the statistic.
            profile: what the pass that collected it counted.
            sums: [shards, layers, N, ...] by array name.
            samples: by array name, one array [t, ...] per layer.

        Raises:
            StoreError: the folder cannot be written, e.g. because the disk is full.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        final = self.path(key)
        try:
            with new_folder(final) as partial:
                save_file(
                    {name: np.ascontiguousarray(array) for name, array in sums.items()},
                    partial / "sums.safetensors",
                )
                for layer in range(len(next(iter(samples.values()), []))):
                    arrays = {name: np.ascontiguousarray(of[layer]) for name, of in samples.items()}
                    save_file(arrays, partial / f"layer-{layer:03d}.safetensors")
                meta = {"made_by": key.record(), "profile": to_plain(profile)}
                text = json.dumps(meta, sort_keys=True)
                (partial / "meta.json").write_text(text, encoding="utf-8")
                if final.exists():
                    shutil.rmtree(final)
        except SafetensorError as error:
            raise StoreError(f"cannot write {final}: {error}") from error

    def read_profile(self, key: Key) -> CorpusProfile:
        """What the pass of a statistic counted; raises `StoreError` if it is not there."""
        profile = self._profile(key)
        if profile is None:
            raise StoreError(f"{self.path(key)} is damaged or gone; run again")
        return profile

    def _profile(self, key: Key) -> CorpusProfile | None:
        try:
            stored = json.loads((self.path(key) / "meta.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(stored, dict) or not key.made(stored.get("made_by")):
            return None
        try:
            return from_plain(CorpusProfile, stored.get("profile"))
        except ValueError:
            return None

    def read_sums(self, key: Key) -> dict[str, np.ndarray]:
        """A statistic's sums [shards, layers, ...] by array name."""
        return self._load(self.path(key) / "sums.safetensors")

    def read_samples(self, key: Key, layer: int) -> dict[str, np.ndarray]:
        """A statistic's samples [t, ...] in one layer by array name."""
        return self._load(self.path(key) / f"layer-{layer:03d}.safetensors")

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
