"""Evaluation by actors of a Ray cluster, each a process of its own with the model on its GPUs.

An actor needs the model's files and the tasks' data at the places that they have here, and nothing
of the store: masks go to it and tables of items come back. It ends when the model is done. What an
actor had that is lost, e.g. with its machine, another does.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbench.core.errors import MbenchError, SuiteError, one_line
from mbench.core.interruption import stop_if_asked
from mbench.plan.plan import Plan
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.executor import threads_of
from mbench.run.masked_models import Pending
from mbench.run.processes import Processes
from mbench.run.ray_actor import Actor, Answered, Machine, inputs_of
from mbench.run.ray_cluster import Head, Share, connected, library
from mbench.storage.store import Store

TRIES = 3
"""Actors that a mask may take down before it counts as failed, and that may fail to get ready on a
machine before no more are started there."""

PATIENCE = 5.0
"""Seconds without any actor that works or loads, before that is told."""

SLOW, LEAST = 5.0, 60.0
"""So many times as long as any other by its tokens, and seconds, until a mask is told to be slow
and begun by another actor, too: one that hangs is known by nothing else."""

NOWHERE = Machine("", "a machine of the cluster")
"""Where an actor was that could not say."""


class OnRay:
    """As many actors as the cluster has room for."""

    hours = None

    def __init__(self, plan: Plan, store: Store, gpus: int | None = None) -> None:
        """`gpus` is how many an actor takes; None: one where the cluster has any.

        Raises `SuiteError` where Ray is not installed, no machine of the cluster has as much as an
        actor takes, or plugins exist in this process alone.
        """
        try:
            import ray  # noqa: F401
        except ImportError:
            raise SuiteError(
                "--executor ray needs Ray, which is not installed: pip install 'mbench[ray]'"
            ) from None
        plan.registry.refuse_given("actor of Ray")
        self._plan = plan
        self._store = store
        self._gpus = gpus
        with connected(start=bool(gpus)) as there:
            if there:  # asked now and not after hours of profiling
                Share.of(gpus)

    @property
    def side_by_side(self) -> None:
        """As many as the cluster has room for by then."""

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Hand out masks to actors until all have an outcome or a reason for having none."""
        import torch

        if not pending:
            return
        with threads_of(self._plan):
            threads = torch.get_num_threads()
        # Its place on this machine's GPU is an actor's.
        stage.session.unload()
        with connected(), stage.session.timed("evaluate"):
            order = Processes(self._plan, self._store).order(stage.model_name, 0).to_json()
            arguments = order, threads, Path.cwd(), inputs_of(stage)
            _Pool(arguments, Share.of(self._gpus)).run(stage, pending)


@dataclass(frozen=True, eq=False)
class _Ready:
    """An actor that can be given masks."""

    handle: Any
    machine: Machine


@dataclass(eq=False)
class _Work:
    """A mask that an actor has."""

    actor: _Ready
    item: Pending
    tokens: int
    slow: bool = False
    """Whether that was told."""
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.monotonic() - self.begun


class _Pool:
    """Actors, and what each is doing."""

    def __init__(self, arguments: tuple[Any, ...], share: Share) -> None:
        """`arguments` are those of each `Actor`."""
        # What Ray says of its types does not go with arguments that are put together.
        self._remote = library().remote(max_restarts=0)(Actor)
        self._arguments = arguments
        self._share = share
        self._starting: dict[Any, Any] = {}
        """What is awaited -> the actor that gets ready: it may wait for room in the cluster."""
        self._working: dict[Any, _Work] = {}
        """What is awaited -> what is done."""
        self._idle: list[_Ready] = []
        self._waiting: deque[Pending] = deque()
        self._left: set[Hashable] = set()
        """Masks without an outcome."""
        self._slowest = 0.0
        """Most seconds a token."""
        self._lost: Counter[Hashable] = Counter()
        """Actors that ended at a mask."""
        self._broken: Counter[str] = Counter()
        """Actors that could not get ready on a machine."""
        self._reasons: list[tuple[Machine, str]] = []
        """Why, each once."""
        self._placed: dict[Any, Any] = {}
        """The same -> the machine that is awaited until Ray has started that actor's process."""
        self._unneeded: list[Any] = []
        """Actors to be ended once the cluster can be asked to."""
        self._head = Head()
        self._worked = time.monotonic()
        """When an actor was last seen to work, or that none does was told."""

    def run(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Return once every mask has an outcome, or a reason for having none."""
        self._waiting += [item for item in pending if stage.prepared(item)]
        self._left = {item.masked.identity for item in self._waiting}
        try:
            while self._left:
                self._hand_out(stage)
                if self._head.hears():
                    self._head.ask(self._start)
                    if not self._working and not self._starting:
                        self._give_up(stage)
                        return
                for ready in self._ended():
                    if ready in self._starting:
                        self._got_ready(stage, ready)
                    else:
                        self._answered(stage, ready)
                self._tell_waiting(stage)
                self._tell_slow(stage)
                stop_if_asked()
        finally:
            ready = [*self._idle, *(work.actor for work in self._working.values())]
            self._unneeded += [*self._starting.values(), *(actor.handle for actor in ready)]
            # What ended this is told, and not that actors could not be; they end with this process.
            with contextlib.suppress(Exception):
                self._head.ask(self._kill)

    def _kill(self) -> None:
        """End the actors that are not needed any more."""
        while self._unneeded:
            library().kill(self._unneeded.pop())

    def _ended(self) -> Sequence[Any]:
        """What came to an end of what is awaited, if anything does within a second."""
        awaited = [*self._working, *self._starting]
        if not awaited:
            time.sleep(1.0)
            return []
        ended: Sequence[Any] = library().wait(awaited, num_returns=1, timeout=1.0)[0]
        return ended

    def _give_up(self, stage: EvaluationStage) -> None:
        """No machine is left that an actor could be on."""
        machine, why = self._reasons[-1]
        for item in self._waiting:
            error = MbenchError(f"no actor of Ray is ready; on {machine.name}: {why}")
            stage.fail(item.masked, stage.prepared(item), error)

    def _tell_waiting(self, stage: EvaluationStage) -> None:
        """Say once what is asked and what there is, where nobody works and Ray starts no actor."""
        placed = [self._placed[ready] for ready in self._starting]
        if self._working or not placed or library().wait(placed, timeout=0)[0]:
            self._worked = time.monotonic()
        elif time.monotonic() - self._worked > PATIENCE:
            waiting = self._head.ask(lambda: self._share.waiting(self._unusable()))
            stage.session.progress.warning(waiting)
            self._worked = math.inf

    def _tell_slow(self, stage: EvaluationStage) -> None:
        """Say once of each mask that takes far too long, and have another actor do it, too."""
        for work in self._working.values():
            usual = self._slowest * work.tokens
            if usual and not work.slow and work.seconds > max(LEAST, SLOW * usual):
                work.slow = True
                self._waiting.append(work.item)
                stage.session.progress.warning(
                    f"{work.item.masked.label} has taken {work.seconds:.0f} s, where the slowest of"
                    f" the others would take {usual:.0f} s: {work.actor.machine} may hang; another"
                    " actor does it, too, as soon as one is free"
                )

    def _hand_out(self, stage: EvaluationStage) -> None:
        """Masks to actors that are ready."""
        while self._waiting and self._idle:
            item = self._waiting.popleft()
            if item.masked.identity in self._left:
                tasks, actor = stage.prepared(item), self._idle.pop()
                done = actor.handle.evaluate.remote(item.masked, [task.name for task in tasks])
                tokens = sum(map(stage.tasks.tokens, tasks))
                self._working[done] = _Work(actor, item, tokens)

    def _unusable(self) -> list[str]:
        """Machines that get no more actors."""
        return [machine for machine, count in self._broken.items() if count >= TRIES]

    def _start(self) -> None:
        """Have as many actors get ready as there is work for, where they may."""
        self._kill()
        broken = self._unusable()
        if NOWHERE.id in broken:
            return
        # Where there is no room at this moment, a machine may yet come.
        room = self._share.room(broken) or int(not broken)
        busy = len(self._working) + len(self._starting)
        remote = self._remote.options(**self._share.options(broken))
        for _ in range(min(room, len(self._waiting) + len(self._working)) - busy):
            actor = remote.remote(*self._arguments)
            placed, ready = actor.machine.remote(), actor.get_ready.remote()
            self._starting[ready], self._placed[ready] = actor, placed

    def _got_ready(self, stage: EvaluationStage, ready: Any) -> None:
        ray, actor, placed = library(), self._starting.pop(ready), self._placed.pop(ready)
        try:
            ray.get(ready)
        except ray.exceptions.RayError as error:
            self._unneeded.append(actor)
            # Of an error that the actor itself raised, the cause is that error.
            cause = getattr(error, "cause", None) or error
            machine = NOWHERE
            with contextlib.suppress(ray.exceptions.RayError):
                machine = ray.get(placed)
            # What a machine lacks, it will lack at the next try.
            self._broken[machine.id] += TRIES if isinstance(cause, MbenchError) else 1
            reason = machine, one_line(cause)
            if reason not in self._reasons:
                self._reasons.append(reason)
                told = f"an actor of Ray is not ready on {machine.name}: {reason[1]}"
                stage.session.progress.warning(told)
        else:
            self._idle.append(_Ready(actor, ray.get(placed)))

    def _answered(self, stage: EvaluationStage, ready: Any) -> None:
        ray, work = library(), self._working.pop(ready)
        item, actor = work.item, work.actor
        label, left = item.masked.label, item.masked.identity in self._left
        try:
            answered: Answered = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            self._idle.append(actor)
            if left:
                self._fail(stage, item, one_line(error.cause))
        except ray.exceptions.RayError as error:
            # Its process or machine is gone, maybe with an answer that lay there; what it had is
            # another's.
            self._unneeded.append(actor.handle)
            self._broken.pop(NOWHERE.id, None)
            self._lost[item.masked.identity] += 1
            if left and self._lost[item.masked.identity] >= TRIES:
                self._fail(stage, item, f"{TRIES} actors of Ray ended at it: {one_line(error)}")
            elif left:
                if not work.slow:  # or another has it already
                    self._waiting.append(item)
                told = f"an actor of Ray was lost, {actor.machine}; another does {label}"
                stage.session.progress.warning(told)
        else:
            self._idle.append(actor)
            if left:
                self._left.remove(item.masked.identity)
                self._slowest = max(self._slowest, work.seconds / max(work.tokens, 1))
                stage.take(item, answered.tables, answered.problems, answered.scoring)
                for text in answered.warnings:
                    stage.session.progress.warning(text)

    def _fail(self, stage: EvaluationStage, item: Pending, why: str) -> None:
        self._left.remove(item.masked.identity)
        stage.fail(item.masked, stage.prepared(item), MbenchError(why))
