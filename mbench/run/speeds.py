"""What a run learns of its machine's speed on a model, for its own forecast and for later plans."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from mbench.core.evaluation import GenerationWork
from mbench.plan.keys import ModelIdentity
from mbench.plan.speeds import Speeds, TaskSpeed, read_speeds, write_speeds
from mbench.plan.tasks import TaskSize
from mbench.storage.store import Store


def expected_length(ended: int, tokens: int, limit: float) -> float:
    """Tokens of an answer on average, where `ended` answers were seen to end and `tokens` to come.

    As if an answer were as likely to end after any of its tokens; none is longer than `limit`.
    Less than one where more answers ended, at the token that reading a prompt gives, than came.
    """
    each = ended / tokens
    return (1 - max(0.0, 1 - each) ** limit) / each if ended else limit


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


@dataclass
class _Evaluated:
    """By task."""

    read: dict[str, _Sum] = field(default_factory=lambda: defaultdict(_Sum))
    generated: dict[str, _Sum] = field(default_factory=lambda: defaultdict(_Sum))

    def speeds(self) -> dict[str, TaskSpeed]:
        """Averages."""
        generated = {task: of.each for task, of in self.generated.items()}
        return {
            task: TaskSpeed(of.each or 0.0, generated.get(task) or 0.0)
            for task, of in self.read.items()
        }


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
        self._evaluated: dict[bool, _Evaluated] = {False: _Evaluated(), True: _Evaluated()}
        """Without and with pruning."""
        self._begun: dict[str, list[TaskSpeed]] = defaultdict(list)

    def knows(self, task: str) -> bool:
        """Whether the task, by the digest of its size, was measured under masks on this machine."""
        return (
            task in self._known.tasks or task in self._evaluated[True].read or task in self._begun
        )

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
        self, task: str, size: TaskSize, seconds: float, reading: float = 0.0, pruned: bool = True
    ) -> None:
        """A mask was evaluated on a task, or on a part of this size.

        Of a task that generates, so many of the seconds went into `reading` its prompts. Without
        pruning (`pruned` false) a model is slower, and its answers have other lengths.
        """
        sums, read = self._evaluated[pruned], size.tokens - size.generated
        if not size.generated:
            sums.read[task].add(seconds, read)
            return
        sums.read[task].add(reading, read)
        sums.generated[task].add(seconds - reading, size.generated)

    def begun(self, task: str, work: GenerationWork) -> None:
        """Some answers of a task were begun under a mask."""
        if not work.prompt_tokens or (not work.answer_tokens and work.begun < work.limits):
            return
        generated = 0.0
        if work.answer_tokens:
            limit = work.limits / work.begun
            length = expected_length(work.ended, work.answer_tokens, limit)
            generated = work.answer_seconds / work.answer_tokens * length / limit
        read = work.prompt_seconds / work.prompt_tokens
        self._begun[task].append(TaskSpeed(read, generated))

    def speeds(self) -> Speeds:
        """What was measured in this run, else what was stored."""
        tasks = {**self._evaluated[False].speeds(), **self._known.tasks}
        for task, begun in self._begun.items():
            read, generated = [each.read for each in begun], [each.generated for each in begun]
            tasks[task] = TaskSpeed(sum(read) / len(read), sum(generated) / len(generated))
        tasks |= self._evaluated[True].speeds()
        masks = {name: each for name, of in self._masks.items() if (each := of.each) is not None}
        return Speeds(
            load=self._load.each or self._known.load,
            profile=self._profile.each or self._known.profile,
            masks={**self._known.masks, **masks},
            tasks=tasks,
        )

    def write(self) -> None:
        """Remember what was measured, where the store can be written and anything was."""
        measured = (
            self._load.count or self._profile.count or self._masks or self._evaluated[True].read
        )
        if measured and self._store.writable:
            write_speeds(self._store, self._model, self.speeds())
