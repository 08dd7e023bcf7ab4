"""What a run takes from elsewhere: hub repositories, each resolved to a commit once.

Nothing is loaded from the hub: files are fetched, compared with what their commit says of them, and
read from disk. What they contain is known by hash, most of it before they are fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mbench.storage.hub.answers import HubRefusal, Say
from mbench.storage.hub.dataset_files import DatasetFiles, dataset_files
from mbench.storage.hub.fetch import Advance, fetch, missing, sha256_of
from mbench.storage.hub.repository import Kind, Repository, resolve
from mbench.storage.store import Key, Store


class Fetchable(Protocol):
    """Files that a run may need on disk."""

    def missing(self) -> int:
        """Bytes that are not there yet."""

    def fetch(self, advance: Advance) -> None:
        """Have all of them on disk.

        What goes wrong is raised where they are read, so that it costs what needs them and no more.
        """

    def refuse_missing(self) -> None:
        """Raise an `MbenchError` where fetching went wrong."""


@dataclass(frozen=True)
class Reading:
    """How a subset of a dataset is read."""

    name: str
    revision: str | None
    asked: Mapping[str, object]
    """Subset, files and options, as plain values."""
    files: DatasetFiles


@dataclass(frozen=True)
class Pins:
    """Everything that a plan took from the hub, so that another plan takes the same."""

    repositories: tuple[Repository, ...] = ()
    """With the files that the plan needs, all with their sha256."""
    readings: tuple[Reading, ...] = ()


class Inputs:
    """The hub as one plan sees it: what was resolved stays, whatever is pushed meanwhile."""

    def __init__(
        self, store: Store, say: Say = lambda line: None, pins: Pins | None = None
    ) -> None:
        """Nothing is asked yet.

        Args:
            store: remembers what the hub answered, and hashes.
            say: is told of waits, and of repositories that are not what the hub says now.
            pins: what another plan took; the hub is then asked for nothing else.
        """
        self.store = store
        self._say = say
        self._pins = pins
        self._resolved: dict[tuple[Kind, str, str | None], Repository] = {}
        self._used: dict[tuple[Kind, str, str | None], dict[str, str]] = {}
        self._readings: list[Reading] = []

    @property
    def pinned(self) -> bool:
        """Whether it takes what another plan took, whatever the hub has now."""
        return self._pins is not None

    def repository(self, kind: Kind, name: str, revision: str | None) -> Repository:
        """What `revision` stands for; raises `HubRefusal` where nobody knows."""
        asked = (kind, name, revision)
        if asked not in self._resolved:
            self._resolved[asked] = self._resolve(kind, name, revision)
        return self._resolved[asked]

    def _resolve(self, kind: Kind, name: str, revision: str | None) -> Repository:
        if self._pins is None:
            repository = resolve(kind, name, revision, self.store, say=self._say)
            if repository.note:
                self._say(f"note: {repository}: {repository.note}")
            return repository
        for pinned in self._pins.repositories:
            if (pinned.kind, pinned.name, pinned.revision) == (kind, name, revision):
                return pinned
        raise HubRefusal(f"{kind} {name}: not among the repositories of the lock")

    def reading(
        self,
        repository: Repository,
        subset: str | None,
        *,
        data_files: Any = None,
        data_dir: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> DatasetFiles:
        """How `datasets.load_dataset` reads a dataset with these arguments; raises `HubRefusal`."""
        asked: dict[str, Any] = {"subset": subset, "data_files": data_files, "data_dir": data_dir}
        asked["options"] = dict(options or {})
        asked = json.loads(json.dumps(asked, sort_keys=True))
        place = (repository.name, repository.revision, asked)
        known = [*self._readings, *(self._pins.readings if self._pins else ())]
        files = next((r.files for r in known if (r.name, r.revision, r.asked) == place), None)
        if files is None and self._pins is not None:
            raise HubRefusal(f"{repository}: not read as in the lock")
        if files is None:
            arguments = {"data_files": data_files, "data_dir": data_dir, "options": options}
            files = dataset_files(repository, subset, self.store, say=self._say, **arguments)
        reading = Reading(*place, files)
        if reading not in self._readings:
            self._readings.append(reading)
        return files

    def sha256(self, repository: Repository, name: str) -> str:
        """The hash of a file's content; one that the hub does not state is fetched for it, once.

        Raises `HubRefusal` where it cannot be fetched.
        """
        asked = (repository.kind, repository.name, repository.revision)
        used = self._used.setdefault(asked, {})
        if name not in used:
            used[name] = self._sha256(repository, name)
        return used[name]

    def _sha256(self, repository: Repository, name: str) -> str:
        file = repository.file(name)
        if file.sha256 is not None:
            return file.sha256
        made_by = {"kind": "content of a git blob", "git": file.git, "size": file.size}
        key = Key.of("facts", f"hash of {name} of {repository}", made_by)
        known = self.store.read_json(key)
        if known is None:
            self.fetch(repository, [name])
            known = {"sha256": sha256_of(repository, name, self.store)}
            self.store.write_json(key, known)
        return str(known["sha256"])

    def missing(self, repository: Repository, names: Iterable[str]) -> int:
        """Bytes of these files that are not on disk."""
        return missing(repository, names)

    def fetch(
        self, repository: Repository, names: Iterable[str], advance: Advance = lambda size: None
    ) -> Path:
        """A folder with these files, and perhaps others; raises `HubRefusal`."""
        return fetch(repository, names, self.store, say=self._say, advance=advance)

    def pins(self) -> Pins:
        """What was taken so far, sorted."""
        repositories = []
        for asked, repository in self._resolved.items():
            listed = map(repository.file, sorted(self._used.get(asked, {})))
            files = tuple(replace(f, sha256=self._used[asked][f.name]) for f in listed)
            repositories.append(replace(repository, files=files, note=""))
        repositories.sort(key=lambda each: (each.kind, each.name, each.revision or ""))
        readings = sorted(
            self._readings, key=lambda each: (each.name, each.revision or "", str(each.asked))
        )
        return Pins(tuple(repositories), tuple(readings))
