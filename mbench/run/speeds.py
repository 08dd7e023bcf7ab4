"""What a run learns of its machine's speed on a model, for its own forecast and for later plans."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from mbench.core.evaluation import GenerationWork
from mbench.plan.keys import ModelIdentity
from mbench.plan.speeds import Speeds, TaskSpeed, read_speeds, write_speeds
from mbench.plan.tasks import TaskSize
from mbench.storage.store import Store


@dataclass
class _Sum:
    """Seconds, and what they were spent on."""

    seconds: float = 0.0
    count: float = 0

    def add(self, seconds: float, count: float) -> None:
        self.seconds += seconds
        self.count += count

    @property
    def each(self) -> float | None:
        return self.seconds / self.count if self.count else None


class SpeedMeter:
    """Adds up what one model took; what was not measured in this run stays as it was stored."""

    def __init__(self, store: Store, model: ModelIdentity) -> None:
        """Nothing is measured yet."""
        self._store = store
        self._model = model
        self._known = read_speeds(store, model)
        self._load = _Sum()
        self._profile = _Sum()
        self._masks: dict[str, _Sum] = defaultdict(_Sum)
        self._read: dict[str, _Sum] = defaultdict(_Sum)
        self._generated: dict[str, _Sum] = defaultdict(_Sum)
        self._begun: dict[str, TaskSpeed] = {}

    def knows(self, task: str) -> bool:
        """Whether the task, by the digest of its size, was ever measured on this machine."""
        return task in self._known.tasks or task in self._read or task in self._begun

    def loaded(self, seconds: float) -> None:
        """The model was loaded."""
        self._load.add(seconds, 1)

    def profiled(self, seconds: float, tokens: int) -> None:
        """A pass over calibration text ended."""
        self._profile.add(seconds, tokens)

    def made(self, method: str, seconds: float) -> None:
        """A mask was made, in so many seconds beside forward passes."""
        self._masks[method].add(seconds, 1)

    def evaluated(
        self, task: str, size: TaskSize, seconds: float, share: float = 1.0, reading: float = 0.0
    ) -> None:
        """A mask, or a `share` of the task, was evaluated.

        Of a task that generates, so many of the seconds went into `reading` its prompts.
        """
        read = (size.tokens - size.generated) * share
        if not size.generated:
            self._read[task].add(seconds, read)
            return
        self._read[task].add(reading, read)
        self._generated[task].add(seconds - reading, size.generated * share)

    def begun(self, task: str, work: GenerationWork) -> None:
        """Some tokens of answers were generated; how long answers are is not known by then."""
        if work.prompt_tokens and work.answer_tokens:
            self._begun[task] = TaskSpeed(
                work.prompt_seconds / work.prompt_tokens, work.answer_seconds / work.answer_tokens
            )

    def speeds(self) -> Speeds:
        """What was measured in this run, else what was stored."""
        tasks = {**self._known.tasks, **self._begun}
        for task, read in self._read.items():
            generated = self._generated[task].each if task in self._generated else None
            tasks[task] = TaskSpeed(read.each or 0.0, generated or 0.0)
        masks = {name: each for name, of in self._masks.items() if (each := of.each) is not None}
        return Speeds(
            load=self._load.each or self._known.load,
            profile=self._profile.each or self._known.profile,
            masks={**self._known.masks, **masks},
            tasks=tasks,
        )

    def write(self) -> None:
        """Remember what was measured, where the store can be written and anything was."""
        measured = self._load.count or self._profile.count or self._masks or self._read
        if measured and self._store.writable:
            write_speeds(self._store, self._model, self.speeds())
