"""One model's share of a run: its weights, loaded at most once, and where its stages report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mbench.core.batch_limit import BatchLimit, give_back_memory, out_of_memory
from mbench.core.cell_results import CellKey, SearchCost, TaskStatus
from mbench.core.early import EarlyFigure
from mbench.core.errors import ModelNotFound
from mbench.core.evaluation import Evaluation
from mbench.core.interfaces import ExpertMask
from mbench.core.interruption import stop_if_asked
from mbench.core.model_facts import StoredSize
from mbench.core.recognised import Recognised
from mbench.core.run_record import CorpusProfile, Forecast
from mbench.core.savings import Saving
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.run.progress import Progress
from mbench.run.sharing import Alone, Sharing
from mbench.run.speeds import SpeedMeter
from mbench.storage.checkpoints import naming_place
from mbench.storage.store import Key, Store

if TYPE_CHECKING:
    import pandas as pd

    from mbench.moe.load import LoadedModel


T = TypeVar("T")


@dataclass
class Outcome:
    """What a run knows at any moment; a report can be made of it even if it was interrupted."""

    masks: dict[Key, ExpertMask] = field(default_factory=dict)
    """Of the cells that have one."""
    scores: dict[tuple[str, str], Mapping[str, np.ndarray]] = field(default_factory=dict)
    """(model, method) -> by corpus, what its scorer gave, float64 [layers, N]."""
    stabilities: dict[CellKey, float | None] = field(default_factory=dict)
    """Of the cells that have a mask; see `mbench.run.stability`."""
    recognised: dict[CellKey, Recognised] = field(default_factory=dict)
    """Of the cells that are published checkpoints."""
    sizes: dict[str, StoredSize] = field(default_factory=dict)
    """Model -> what its tensors take in its files."""
    searches: dict[CellKey, SearchCost] = field(default_factory=dict)
    """Of the cells whose mask was searched for."""
    mask_problems: dict[CellKey, TaskStatus] = field(default_factory=dict)
    """Why a cell has no mask."""
    evaluations: dict[Key, Evaluation] = field(default_factory=dict)
    evaluation_problems: dict[Key, TaskStatus] = field(default_factory=dict)
    """Why a mask has no outcome on a task."""
    early: dict[Key, EarlyFigure] = field(default_factory=dict)
    """What is known of a mask on a task after some of its items."""
    looked: dict[Key, pd.DataFrame] = field(default_factory=dict)
    """The items that early figures rest on, and all of the unpruned model's; see `CellResult`."""
    task_problems: dict[tuple[str, str], TaskStatus] = field(default_factory=dict)
    """(model, task) -> why the task could not be built."""
    begun: float = field(default_factory=time.monotonic)
    """When the run began, on the monotonic clock."""
    forward_tokens: int = 0
    """Tokens of the forward passes of this run; 0 where everything was in the store."""
    made_masks: int = 0
    """By this process itself."""
    made_evaluations: int = 0
    """Likewise."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of this run by stage."""
    profiles: dict[tuple[str, str], CorpusProfile] = field(default_factory=dict)
    """(model, corpus) -> what a reader should know, e.g. how many experts were never selected."""
    scoring: dict[tuple[str, str], str] = field(default_factory=dict)
    """(model, task) -> how this run computed its log-likelihoods."""
    forecasts: list[Forecast] = field(default_factory=list)
    """By model, once its speeds were measured."""
    batch_limits: dict[tuple[str, str], BatchLimit] = field(default_factory=dict)
    """(model, task or text) -> how many tokens went through the model at once."""
    efficiency: list[Saving] = field(default_factory=list)
    """By model and budget, where the suite asks for it."""
    interrupted: bool = False


class ModelSession:
    """A model of the plan with everything its stages share."""

    def __init__(
        self,
        plan: Plan,
        model: PlannedModel,
        store: Store,
        progress: Progress,
        outcome: Outcome,
        meanwhile: Callable[[Outcome], object] = lambda outcome: None,
        sharing: Sharing | None = None,
    ) -> None:
        """Nothing is loaded yet; see `Runner` for `meanwhile` and `sharing`."""
        self.plan = plan
        self.model = model
        self.cells = plan.cells_of(model.name)
        self.store = store
        self.progress = progress
        self.outcome = outcome
        self.meanwhile = meanwhile
        self.speeds = SpeedMeter(store, model.identity)
        self.sharing = sharing or Alone()
        self.begun = time.monotonic()
        """When its turn came, on the monotonic clock."""
        self.published_of: ModelSession | None = None
        """Of a published checkpoint that is no mask, its full model, in whose hours it is."""
        self.efficiency_seconds = 0.0
        """What measuring the savings at one budget took; 0 where none was measured."""
        self._loaded: LoadedModel | Exception | None = None
        self._limits: dict[str, BatchLimit] = {}

    def load(self) -> LoadedModel:
        """The model with its weights; an error is remembered, not tried again."""
        if self._loaded is None:
            from mbench.moe.load import load

            self.progress.stage(f"load {self.model.name}")
            start = time.perf_counter()
            try:
                with self.timed("load"):
                    model = self.model
                    if model.checkpoint is None:
                        raise ModelNotFound(f"model {model.name!r}: its files are out of reach")
                    folder = model.checkpoint.all_files()
                    with naming_place(folder, model.place):
                        self._loaded = load(
                            str(folder),
                            dtype=model.dtype,
                            attention=model.attention,
                            trust_remote_code=model.trust_remote_code,
                            experts=model.experts,
                        )
            except Exception as error:
                self._loaded = error
            else:
                self.speeds.loaded(time.perf_counter() - start)
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded

    def unload(self) -> None:
        """Forget the model, so that it is loaded anew, and let other processes have its memory."""
        if self._loaded is not None:
            self._loaded = None
            give_back_memory()

    def advance(self, tokens: int) -> None:
        """Count forward tokens, and show them."""
        stop_if_asked()
        self.sharing.check()
        self.outcome.forward_tokens += tokens
        self.progress.advance(tokens)

    def batch_limit(self, what: str) -> BatchLimit:
        """How many tokens go through the model at once in one kind of pass, as by now found out:
        the suite's `batch_tokens`, or as many as memory has room for."""
        if what not in self._limits:

            def tell(text: str) -> None:
                self.progress.warning(f"{what}: {text}")

            asked = self.plan.suite.batch_tokens
            self._limits[what] = (
                BatchLimit.automatic(self.load().model, tell)
                if asked == "auto"
                else BatchLimit(asked, tell=tell)
            )
            self.outcome.batch_limits[self.model.name, what] = self._limits[what]
        return self._limits[what]

    def within_memory(self, what: str, compute: Callable[[int], T], least: int) -> T:
        """Compute what cannot go on where memory ran out: then it begins again, with half the
        limit, and what it had counted is not. See `BatchLimit.whole` for `least`."""

        def counted(tokens: int) -> T:
            before = self.outcome.forward_tokens
            try:
                return compute(tokens)
            except Exception as error:
                if out_of_memory(error):
                    self.advance(before - self.outcome.forward_tokens)
                raise

        return self.batch_limit(what).whole(counted, least)

    @contextmanager
    def shared(self, sharing: Sharing) -> Iterator[None]:
        """Share the work of a block with others."""
        before, self.sharing = self.sharing, sharing
        try:
            yield
        finally:
            self.sharing = before

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.outcome.seconds[stage] = self.outcome.seconds.get(stage, 0.0) + spent
