"""One of several processes that do a suite's work together, and write no report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbench.api.request import Request
from mbench.core.errors import SuiteError
from mbench.plan.admission.admit import admit, refuse

if TYPE_CHECKING:
    from mbench.run.progress import Progress
    from mbench.run.session import Outcome

TASK, FIRST, STEP, COUNT = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "STEP", "COUNT"))
"""What SLURM tells a task of a job array about itself."""


@dataclass(frozen=True)
class Shard:
    """Which of how many workers a process is: where it begins, not all that it does."""

    number: int = 0
    """From 0."""
    of: int = 1

    def __str__(self) -> str:
        """As it is given."""
        return f"{self.number + 1}/{self.of}"

    @classmethod
    def read(cls, text: str) -> Shard:
        """`2/8` is the second of eight; raises `SuiteError` for anything else."""
        number, _, of = text.partition("/")
        numbers = f"{number}{of}".isascii() and number.isdigit() and of.isdigit()
        if not (numbers and 1 <= int(number) <= int(of)):
            raise SuiteError(
                f"--shard {text}: expected I/N with I from 1 to N, e.g. 2/8; in a job array"
                " of SLURM, leave it out"
            )
        return cls(int(number) - 1, int(of))

    @classmethod
    def chosen(cls, given: str | None) -> tuple[Shard, str]:
        """The one that is given, else that of SLURM, else the only one; and what contradicts it."""
        if given is None:
            return cls.of_slurm() or cls(), ""
        shard, slurm = cls.read(given), None
        with contextlib.suppress(SuiteError):
            slurm = cls.of_slurm()
        if slurm in (None, shard):
            return shard, ""
        return shard, f"--shard {given} is used, though SLURM says {slurm} of its job array"

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str] = os.environ) -> Shard | None:
        """Which task of a SLURM job array this is; None: of none.

        Raises `SuiteError` for variables that SLURM does not set so.
        """
        if TASK not in environment:
            return None
        least = {TASK: 0, COUNT: 1, FIRST: 0, STEP: 1}
        given = {name: environment.get(name, "") for name in least}
        # An array may have been started without what newer versions of SLURM tell.
        given = {**given, **{name: given[name] or str(least[name]) for name in (FIRST, STEP)}}
        for name, value in given.items():
            if not (value.isascii() and value.isdigit() and int(value) >= least[name]):
                raise SuiteError(
                    f"{name} is {value!r}, which no SLURM job array has: say --shard I/N"
                )
        task, count, first, step = (int(given[name]) for name in least)
        return cls((task - first) // step % count, count)


def work(asked: Request, shard: Shard, progress: Progress) -> Outcome:
    """Do all of a planned suite that is not stored and that no other worker does.

    Returns once everything is stored, or cannot be done.

    Raises `AdmissionError` for inputs that would measure something else, and `SuiteError` where
    workers could take different things from the hub.
    """
    from mbench.run.runner import Runner
    from mbench.run.sharing import Shared

    _refuse_moving(asked)
    refuse(admit(asked.plan, asked.store), asked.source)

    def note(text: str) -> None:
        progress.event("note", text=text)

    sharing = Shared(asked.store, shard.number, shard.of, tell=progress.warning, note=note)
    return Runner(asked.plan, asked.store, progress, sharing=sharing).run()


def _refuse_moving(asked: Request) -> None:
    """A branch may move between the starts of two workers."""
    if asked.plan.inputs.pinned:
        return
    for repository in asked.plan.inputs.pins().repositories:
        if repository.revision != repository.commit:
            raise SuiteError(
                f"{asked.path}: {repository.kind} {repository.name} is at"
                f" {repository.revision or 'its newest commit'}, which may move between two"
                " workers: write a lock with `mbench lock`, and give it in the place of the suite"
            )
