"""Content-addressed artefacts: written whole or not at all, verified whenever read.

    statistics/KEY/   one statistic of one model on one corpus
    masks/KEY.json    the mask of one cell
    evaluations/KEY.* per-item outcomes of one mask on one task
    probes/KEY.json   what one mask gave on calibration text, where a search tried it
    efficiency/KEY.json  what one budget saves, on the machine that it was measured on
    facts/KEY.json    what was learned of a model or task, so that a plan needs neither
    claims/           who does what at this moment (see `mbench.storage.claims`)
    damaged/          what turned out to be damaged, to be looked at or removed by people

A key is the hash of everything that the artefact depends on (see `mbench.plan.keys`). Each artefact
says what made it, under `made_by`, and carries a checksum (see `mbench.storage.artefacts`). One
that is damaged, or is another's, is reported, set aside and counts as absent. Failures are not
stored, so they are tried again. Many runs may use a store at once: what exists whole stays. It is
a folder, or a URL that fsspec reaches (see `mbench.storage.remote.object_store`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mbench.core.errors import Damaged, StoreError
from mbench.core.run_record import CorpusProfile
from mbench.storage import artefacts
from mbench.storage.artefacts import KINDS, Kind, canonical, digest_of, file_name
from mbench.storage.atomic import AlreadyThere
from mbench.storage.claims import LEASE, Claim
from mbench.storage.damaged_folder import DamagedFolder
from mbench.storage.location import backend_of
from mbench.storage.place import Entry, Place
from mbench.storage.sample_files import SampleFiles, layer_file

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

ENVIRONMENT_VARIABLE = "MBENCH_STORE"

ATTEMPTS = 5
"""Times that a name is tried which other runs take and set aside at the same time."""

SINGULAR: Mapping[Kind, str] = {
    "statistics": "statistic",
    "masks": "mask",
    "evaluations": "evaluation",
    "probes": "probe",
    "efficiency": "measurement",
    "facts": "fact",
}


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
        return cls(kind, digest_of(made_by), label, made_by)

    def record(self) -> dict[str, Any]:
        """What an artefact says of itself."""
        return {"label": self.label, **json.loads(canonical(self.made_by))}


def default_root() -> Path | str:
    """`$MBENCH_STORE`, a path or a URL, else the user's cache directory."""
    import platformdirs

    given = os.environ.get(ENVIRONMENT_VARIABLE)
    return given or Path(platformdirs.user_cache_dir("mbench"))


class Store:
    """A place with artefacts."""

    def __init__(self, root: Path | str, *, make: bool = True) -> None:
        """Use the folder or the URL `root`; raises `StoreError` where it cannot be read.

        A folder is made if it is absent, which is an error instead where `make` is false.
        """
        self._backend = backend_of(root)
        if not make and not self._backend.exists():
            raise StoreError(f"there is no store at {self.root}")
        self.asked: set[Key] = set()
        """Everything that was read, found or not, or written."""
        self._damaged = DamagedFolder(self._backend)
        self._set_aside: set[Key] = set()
        self._backend.open(KINDS)
        for kind in self._backend.misplaced(KINDS):
            self._damaged.take(kind, f"folder {kind!r}", Damaged("it is no folder"))

    @property
    def root(self) -> Place:
        """Where it is; as text, what `Store` takes."""
        return self._backend.root

    @property
    def writable(self) -> bool:
        """Whether anything can be stored."""
        return self._backend.writable

    def listen(self, report: Callable[[str], None]) -> None:
        """Have every damaged artefact reported as one line, those found by now at once."""
        self._damaged.listen(report)

    def require_writable(self, lacking: str) -> None:
        """Raise `StoreError` where nothing can be stored; `lacking` says what is to be."""
        if not self.writable:
            raise StoreError(
                f"the store {self.root} cannot be written, and lacks {lacking}: take another with"
                " --store, e.g. a copy that `mbench store copy` makes"
            )

    def claim(self, name: str, lease: float = LEASE) -> Claim | None:
        """Claim a piece of work, see `mbench.storage.claims`; None where a living owner has it."""
        return self._backend.claims.take(name, lease)

    def sweep(self) -> None:
        """Remove what killed runs left unfinished."""
        if self.writable:
            self._backend.sweep(KINDS)

    def path(self, key: Key) -> Place:
        """The file or folder of an artefact."""
        return self._backend.place(_name(key))

    def entries(self, folder: str) -> list[Entry]:
        """What is in one of the store's folders, by name."""
        return self._backend.entries(folder)

    def remove(self, name: str) -> None:
        """Remove what has this name within the store; raises `StoreError`."""
        self._backend.remove(name)

    def was_set_aside(self, key: Key) -> bool:
        """Whether the artefact was damaged when it was read, since this store was opened."""
        return key in self._set_aside

    def read_json(self, key: Key) -> Any | None:
        """An artefact's JSON, or None if it is absent or damaged."""
        stored = self._read(key, artefacts.read_json)
        return None if stored is None else stored.content

    def write_json(self, key: Key, content: Any, *, replace: bool = False) -> Any:
        """Store a JSON artefact, over an older one only with `replace`; returns what is stored."""
        before = self.read_json(key)
        if before is not None and not replace:
            return before
        if key.kind == "facts" and not self.writable:
            return content  # only a shortcut
        data = artefacts.json_bytes(key.record(), content)
        if replace:
            self._backend.write(_name(key), data)
            return content
        return content if self.publish_file(key, data) else self.read_json(key)

    def forget(self, key: Key) -> None:
        """Remove an artefact of one file that is wrong, or contained in another, if possible."""
        with contextlib.suppress(StoreError):
            self._backend.remove(_name(key))

    def has_items(self, key: Key) -> bool:
        """Whether there is a file of an evaluation's outcomes, which is not read."""
        self.asked.add(key)
        return self._backend.has_file(_name(key))

    def read_items(self, key: Key) -> pd.DataFrame | None:
        """Per-item outcomes of an evaluation, or None if absent or damaged."""
        stored = self._read(key, artefacts.read_table)
        return None if stored is None else stored.items

    def write_items(self, key: Key, items: pd.DataFrame) -> pd.DataFrame:
        """Store per-item outcomes, over older ones only if those are of other items or columns.

        Returns what is stored.
        """
        before = self.read_items(key)
        if before is not None and _same_items(before, items):
            return before
        data = artefacts.table_bytes(key.record(), items)
        if before is not None:
            self._backend.write(_name(key), data)
        elif not self.publish_file(key, data):
            return self.write_items(key, items)
        return items

    def has_statistic(self, key: Key) -> bool:
        """Whether a statistic is stored; its arrays are verified when they are read."""
        return self.read_profile(key) is not None

    def read_profile(self, key: Key) -> CorpusProfile | None:
        """What the pass of a statistic counted, or None if it is absent or damaged."""
        stored = self._read(key, artefacts.read_statistic)
        return None if stored is None else stored.profile

    def write_statistic(
        self,
        key: Key,
        profile: CorpusProfile,
        sums: Mapping[str, np.ndarray],
        samples: Mapping[str, Sequence[np.ndarray]],
    ) -> None:
        """Store a statistic, unless there is a whole one.

        Args:
            key: of the statistic.
            profile: what the pass that collected it counted.
            sums: [shards, layers, N, ...] by array name.
            samples: by array name, one array [t, ...] per layer. Those of `new_sample` are
                neither read nor copied.

        Raises:
            StoreError: the folder cannot be written, e.g. because the disk is full.
        """
        self.publish_folder(
            key,
            lambda folder: artefacts.write_statistic(folder, key.record(), profile, sums, samples),
        )

    def new_sample(self, rows: int | None = None) -> SampleFiles:
        """The files of a sample that is to be collected, where they get into the store uncopied.

        Args:
            rows: tokens that every layer will have, where that is known before.

        Raises:
            StoreError: the folder cannot be written.
        """
        return SampleFiles(self._backend.scratch_folder("statistics/sample"), rows)

    def read_sums(self, key: Key) -> dict[str, np.ndarray]:
        """A statistic's sums [shards, layers, ...] by array name; raises `Damaged` without them."""
        return self._arrays(key, artefacts.SUMS)

    def read_samples(self, key: Key, layer: int) -> dict[str, np.ndarray]:
        """A statistic's samples [t, ...] of a layer by array name, read-only; raises `Damaged`."""
        return self._arrays(key, layer_file(layer))

    def publish_file(self, key: Key, content: bytes) -> bool:
        """Store the file of an artefact; False where there is a whole one by then.

        Raises `StoreError` where it cannot be written, or what is there is damaged and stays.
        """
        return self._publish(key, lambda: self._backend.write_new(_name(key), content))

    def publish_folder(self, key: Key, fill: Callable[[Path], object]) -> bool:
        """The same for a folder, which `fill` fills on this machine."""

        def write() -> None:
            with self._backend.new_folder(_name(key)) as folder:
                fill(folder)

        return self._publish(key, write)

    def _publish(self, key: Key, write: Callable[[], None]) -> bool:
        for _ in range(ATTEMPTS):
            try:
                write()
                return True
            except AlreadyThere:
                if self.verify(key) is not None:
                    return False
        raise StoreError(f"cannot write {self.path(key)}: what is there cannot be moved")

    def verify(self, key: Key) -> Mapping[str, Any] | None:
        """Read every byte of an artefact; returns what made it, or None if absent or damaged."""
        return self._read(key, partial(artefacts.verify, key.kind))

    def _arrays(self, key: Key, name: str) -> dict[str, np.ndarray]:
        arrays = self._read(key, lambda path, digest: artefacts.read_arrays(path, digest, name))
        if arrays is None:
            raise Damaged(f"the stored {key.label} is damaged or gone; run again")
        return arrays

    def _read(self, key: Key, read: Callable[[Place, str], T]) -> T | None:
        """What `read` makes of an artefact; one that is damaged is set aside."""
        self.asked.add(key)
        what = f"{SINGULAR[key.kind]} {key.label!r}"
        for _ in range(ATTEMPTS):
            path = self.path(key)
            try:
                return read(path, key.digest)
            except FileNotFoundError:
                return None
            except Damaged as damage:
                name = _name(key)
                taken = self._damaged.take(name, what, damage, lambda at: read(at, key.digest))
                if taken == "look again":
                    continue
                if taken == "moved" or self._backend.overwrite(name):
                    self._set_aside.add(key)
                return None
        return None


def _name(key: Key) -> str:
    """The file or folder of an artefact, within its store."""
    return f"{key.kind}/{file_name(key.kind, key.digest)}"


def _same_items(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether both tables have the same columns and are of the same items."""
    same_columns = list(one.columns) == list(other.columns)
    return same_columns and one["item"].tolist() == other["item"].tolist()
