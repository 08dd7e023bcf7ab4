"""The Ray cluster that a run uses: which one it is, what an actor takes of it, and what it has.

It is Ray's own affair: one that `RAY_ADDRESS` names or that runs here already, else one of this
machine alone.
"""

from __future__ import annotations

import atexit
import importlib
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from mbench.core.errors import MbenchError, SuiteError, one_line
from mbench.core.interruption import handlers_kept, stop_if_asked

CONNECTING = 5.0
"""Seconds in which a machine that can be reached takes a connection."""

SILENCE = 20.0
"""Seconds without a word of the machine that keeps the cluster together, before a run ends; after
60, Ray would end the process."""

MACHINE = "ray.io/node-id"
"""The label that Ray gives each machine."""

T = TypeVar("T")


def library() -> Any:
    """Ray, most of whose functions have no types."""
    import ray

    return ray


@contextmanager
def connected(*, start: bool = True) -> Iterator[bool]:
    """Be connected to the cluster in a block, to one of this machine where there is none.

    Yields False where there is none and none is to be started. Raises `MbenchError` where the one
    that is named cannot be reached, or none can be started.
    """
    ray = library()
    if ray.is_initialized():
        yield True
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    named = os.environ.get("RAY_ADDRESS")
    there = True
    try:
        with handlers_kept():
            ray.init(address=named or "auto", **quiet)
    except Exception as error:  # of many kinds, by how far the connection got
        if named or not isinstance(error, ConnectionError):
            raise MbenchError(f"the Ray cluster {named or 'here'}: {one_line(error)}") from None
        there = start
        if start:
            _start(ray, quiet)
    with _unprinted():
        try:
            yield there
        finally:
            if there:
                _leave(ray)


def _leave(ray: Any) -> None:
    """End the connection, or leave it to the end of this process: Ray waits for a head that hangs,
    and would again when the process ends."""
    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(CONNECTING if sys.exception() else SILENCE)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)


@contextmanager
def _unprinted() -> Iterator[None]:
    """Keep Ray from printing to standard output what befalls its machines, which no option does: a
    run says what of it matters, and its output is for programs."""
    worker: Any = importlib.import_module("ray._private.worker")
    name = "print_to_stdstream"
    before = getattr(worker, name, None)
    if before is None:  # in another version
        yield
        return
    setattr(worker, name, lambda *words, **options: None)
    try:
        yield
    finally:
        setattr(worker, name, before)


def _start(ray: Any, options: dict[str, Any]) -> None:
    try:
        with handlers_kept():
            ray.init(include_dashboard=False, **options)
    except Exception as error:  # e.g. a machine that is too busy to start it in time
        raise MbenchError(f"Ray starts no cluster on this machine: {one_line(error)}") from None


class HeadLost(MbenchError):
    """The machine that keeps the cluster together cannot be reached, or does not answer."""

    def __init__(self) -> None:
        """Say how to go on."""
        super().__init__(
            f"the head of the Ray cluster has not answered for {SILENCE:g} s; run the same command"
            " again to go on, with a cluster that runs"
        )


class Head:
    """The machine that keeps the cluster together, which is not waited for in vain.

    Without it, most of what Ray is asked waits for a minute and then ends this process.
    """

    def __init__(self) -> None:
        """It has just been heard of."""
        self._heard = time.monotonic()
        self._lost = False

    def hears(self) -> bool:
        """Whether it can be asked anything; raises `HeadLost` once it could not for too long."""
        if head_takes_connections():
            self._heard = time.monotonic()
            return True
        self._lost_after(self._heard)
        return False

    def ask(self, question: Callable[[], T]) -> T:
        """What the cluster answers; raises `HeadLost` where that is nothing for too long.

        What it did not answer before, it is not asked.
        """
        if self._lost:
            raise HeadLost
        answer: Future[T] = Future()

        def ask() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        asked = time.monotonic()
        threading.Thread(target=ask, daemon=True).start()
        while not wait([answer], timeout=1.0).done:
            stop_if_asked()
            self.hears()
            # One that hangs takes connections.
            self._lost_after(asked)
        return answer.result()

    def _lost_after(self, since: float) -> None:
        if time.monotonic() - since > SILENCE:
            self._lost = True
            raise HeadLost


def head_takes_connections() -> bool:
    """Whether the machine that keeps the cluster together can be reached."""
    host, _, port = str(library().get_runtime_context().gcs_address).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Share:
    """What one actor takes of a machine."""

    gpus: int
    cpus: int = 1

    @classmethod
    def of(cls, gpus: int | None) -> Share:
        """That of an actor; `gpus` None: one where the cluster has any.

        Raises `SuiteError` where no machine of the cluster has as much.
        """
        machines = _machines()
        if gpus is None:
            gpus = int(any(each.get("GPU", 0) >= 1 for each in machines))
        share = cls(gpus)
        if share.room() == 0:
            asked = f"--gpus {gpus}" if gpus else "--executor ray"
            raise SuiteError(
                f"{asked}: an actor takes {share}, which no machine of the Ray cluster has:"
                f" {_listed(machines)}"
            )
        return share

    def __str__(self) -> str:
        """For people."""
        return _words({"CPU": self.cpus, "GPU": self.gpus})

    def options(self, without: Collection[str] = ()) -> dict[str, Any]:
        """As Ray wants it, for an actor on none of these machines."""
        options: dict[str, Any] = {"num_gpus": self.gpus, "num_cpus": self.cpus}
        if without:
            strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
            elsewhere = {MACHINE: strategies.NotIn(*without)}
            options["scheduling_strategy"] = strategies.NodeLabelSchedulingStrategy(elsewhere)
        return options

    def room(self, without: Collection[str] = ()) -> int:
        """Actors that the cluster has room for while nobody else uses it; machines come and go."""
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            min(int(each.get(name, 0) // count) for name, count in asked.items() if count)
            for each in _machines(without)
        )

    def waiting(self, without: Collection[str] = ()) -> str:
        """Why an actor may be waiting: what it takes, what there is, what of it is free."""
        there = _listed(_machines(without)) or "no machine"
        if without:
            there += f" beside {len(without)} that cannot be used"
        else:
            there += f"; {_words(library().available_resources())} of all are free"
        return f"waiting for Ray to start an actor, which takes {self}: the cluster has {there}"


def _machines(without: Collection[str] = ()) -> list[Mapping[str, float]]:
    """What each machine has, whoever uses it."""
    nodes = [each for each in library().nodes() if each["Alive"]]
    return [each["Resources"] for each in nodes if each["NodeID"] not in without]


def _listed(machines: list[Mapping[str, float]]) -> str:
    kinds = Counter(_words(each) for each in machines)
    return ", ".join(
        f"{count} {'machine' if count == 1 else 'machines'} with {words}"
        for words, count in kinds.items()
    )


def _words(resources: Mapping[str, float]) -> str:
    counts = ((resources.get(name, 0), name) for name in ("CPU", "GPU"))
    return " and ".join(f"{count:g} {name}{'s' * (count != 1)}" for count, name in counts)
