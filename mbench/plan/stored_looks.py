"""What early verdicts have evaluated of tasks, where not all items are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbench.plan.tasks import TaskSize
from mbench.storage.artefacts import digest_of
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Key, Store


@dataclass(frozen=True)
class Look:
    """What one look at a task adds, as the store keeps it."""

    size: TaskSize
    names: str
    """Digest of its items' names."""

    @classmethod
    def of(cls, size: TaskSize, names: Sequence[str]) -> Look:
        """A look at these items."""
        return cls(size, digest_of({"items": list(names)}))

    def key(self, evaluation: Key, number: int) -> Key:
        """Of one mask's outcomes: those of an evaluation, and which of its items they are."""
        made_by = {**evaluation.made_by, "kind": "look", "look of": evaluation.digest}
        label = f"{evaluation.label}, look {number + 1}"
        return Key.of("evaluations", label, {**made_by, "items": self.names})


@dataclass(frozen=True)
class Looks:
    """All looks at a task; none where it is evaluated as a whole."""

    looks: tuple[Look, ...]

    def stored(self, store: Store, evaluation: Key) -> list[TaskSize]:
        """Sizes of the looks that are there of a mask's evaluation; the files are not read."""
        found = []
        for number, look in enumerate(self.looks):
            if not store.has_items(look.key(evaluation, number)):
                break
            found.append(look.size)
        return found


def task_looks_key(size: Key) -> Key:
    """The looks at the task whose size has this key."""
    label = size.label.replace("size of", "looks at", 1)
    return Key.of("facts", label, {**size.made_by, "kind": "task looks"})


def write_looks(store: Store, size: Key, looks: Sequence[Look]) -> None:
    """Remember the looks at a task, so that a plan knows them without building it."""
    store.write_json(task_looks_key(size), to_plain(Looks(tuple(looks))))


def read_looks(store: Store, size: Key) -> Looks:
    """The looks at a task; none where nobody has built it."""
    stored = store.read_json(task_looks_key(size))
    return Looks(()) if stored is None else from_plain(Looks, stored)
