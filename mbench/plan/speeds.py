"""How fast a machine was on a model: measured by runs, kept in the store, used by plans."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from mbench.plan.fact_keys import speed_key
from mbench.plan.keys import ModelIdentity
from mbench.plan.tasks import TaskSize
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Store

GENERATED = 8.0
"""What a generated token is assumed to take, in tokens that are read, where neither is measured."""


@dataclass(frozen=True)
class TaskSpeed:
    """Seconds of one process."""

    read: float
    """For each token that is read at once, of a text to score or of a prompt."""
    generated: float = 0.0
    """For each token of the most that may be generated, so that answers which end early count."""

    def seconds(self, size: TaskSize) -> float:
        """Of one mask on a task of this size."""
        return self.read * (size.tokens - size.generated) + self.generated * size.generated


@dataclass(frozen=True)
class Speeds:
    """What was measured of a model on a machine."""

    load: float = 0.0
    """Seconds to load it."""
    profile: float | None = None
    """Seconds for a token of calibration text."""
    masks: Mapping[str, float] = field(default_factory=dict)
    """Method -> seconds for one mask, a search's forward passes left out."""
    tasks: Mapping[str, TaskSpeed] = field(default_factory=dict)
    """By the digest of the task's size."""

    def of(self, task: str, assumed: float) -> TaskSpeed:
        """Of a task by that digest; one that was not measured is like the others of the model.

        `assumed` are the seconds for a token that is read where nothing was measured.
        """
        if task in self.tasks:
            return self.tasks[task]
        read = [speed.read for speed in self.tasks.values()]
        generated = [speed.generated for speed in self.tasks.values() if speed.generated]
        per_read = sum(read) / len(read) if read else assumed
        per_generated = sum(generated) / len(generated) if generated else GENERATED * per_read
        return TaskSpeed(per_read, per_generated)

    def tell(self, tokens: int, generated: int) -> bool:
        """Whether `of` rests on measurements, for so many tokens, of which some are generated."""
        generating = not generated or any(each.generated for each in self.tasks.values())
        return bool(self.tasks) and generating if tokens else True

    def for_profiles(self, assumed: float) -> float:
        """Seconds for a token of calibration text."""
        return self.of("", assumed).read if self.profile is None else self.profile


def read_speeds(store: Store, model: ModelIdentity) -> Speeds:
    """Those measured on this machine; nothing where none were."""
    stored = store.read_json(speed_key(model, platform.node()))
    try:
        return Speeds() if stored is None else from_plain(Speeds, stored)
    except ValueError:  # of an earlier version of mbench
        return Speeds()


def write_speeds(store: Store, model: ModelIdentity, speeds: Speeds) -> None:
    """Remember them in place of the earlier ones."""
    store.write_json(speed_key(model, platform.node()), to_plain(speeds), replace=True)
