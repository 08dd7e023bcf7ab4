"""The scores of one method without any evaluation: what is missing is profiled, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mbench.core.errors import Damaged, PluginError, StoreError, SuiteError, caught
from mbench.core.search import Probe
from mbench.plan.cells import Cell
from mbench.plan.plan import Plan
from mbench.run.fetch_stage import fetch, texts_of
from mbench.run.mask_maker import MaskMaker
from mbench.run.profile_stage import missing_jobs, profile
from mbench.run.progress import Progress
from mbench.run.session import ModelSession, Outcome
from mbench.storage.inputs import Fetchable
from mbench.storage.store import Key, Store


@dataclass(frozen=True)
class MethodScores:
    """What a method's scorer gives on one corpus."""

    model: str
    method: str
    seed: int | None
    """Of a scorer that draws at random."""
    corpus: str
    layers: tuple[str, ...]
    """Module paths."""
    values: np.ndarray
    """float64 [layers, N]; higher is kept."""

    @property
    def label(self) -> str:
        """Whose scores they are."""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.method}{seed} on {self.corpus}, {self.model}"


@dataclass(frozen=True)
class Scored:
    """The scores of a method on all models of a plan."""

    scores: tuple[MethodScores, ...]
    problems: Mapping[str, str]
    """What has no scores -> why."""
    forward_tokens: int
    """Of the passes that were missing."""


def only_scored(plan: Plan, method: str) -> Plan:
    """The part of a plan that scores follow from; raises `SuiteError` for a method without any.

    A scorer knows no budget, so one cell for each seed that it draws with is all.
    """
    cells: dict[tuple[str, int | None], Cell] = {}
    for cell in plan.cells:
        scorer = cell.method.scorer
        if cell.method.name != method:
            continue
        if scorer is None and not cell.problem:
            raise SuiteError(f"{method!r} has no scorer: it rates no expert")
        seed = cell.seed if scorer is not None and scorer.stochastic else None
        cells.setdefault((cell.model, seed), cell)
    return replace(plan, cells=tuple(cells.values()), tasks=())


def score(plan: Plan, store: Store, progress: Progress) -> Scored:
    """The scores of every cell of a plan that `only_scored` gave."""
    store.listen(progress.warning)
    outcome = Outcome()
    sessions = [ModelSession(plan, model, store, progress, outcome) for model in plan.models]
    fetch((each for session in sessions for each in _inputs(session)), progress)
    scores: list[MethodScores] = []
    problems: dict[str, str] = {}
    for session in sessions:
        missing = missing_jobs(session, session.cells)
        failed = profile(session, missing)
        maker = MaskMaker(session.model, store, resamples=0, probe_for=_no_probe)
        for cell in session.cells:
            try:
                scores += _scores(session, maker, cell, failed)
            except StoreError:
                raise
            except Exception as error:
                problems[f"{session.model.name} {cell.method.name}"] = caught(error)
    return Scored(tuple(scores), problems, outcome.forward_tokens)


def _no_probe(cell: Cell) -> Probe:
    raise PluginError(f"{cell.label}: scores are asked for, not its mask")


def _inputs(session: ModelSession) -> Iterator[Fetchable]:
    missing = missing_jobs(session, session.cells)
    if missing and session.model.checkpoint is not None:
        yield session.model.checkpoint
    yield from texts_of(session.plan, missing)


def _scores(
    session: ModelSession, maker: MaskMaker, cell: Cell, failed: Mapping[Key, str]
) -> Iterator[MethodScores]:
    reasons = [failed.get(job.key, "") for jobs in cell.statistics.values() for job in jobs]
    reason = cell.problem or next(filter(None, reasons), "")
    if reason:
        raise SuiteError(reason)
    try:
        by_corpus = maker.scores(cell)
    except Damaged:
        profile(session, missing_jobs(session, [cell]))
        by_corpus = maker.scores(cell)
    stochastic = cell.method.scorer is not None and cell.method.scorer.stochastic
    for corpus, values in by_corpus.items():
        yield MethodScores(
            model=cell.model,
            method=cell.method.name,
            seed=cell.seed if stochastic else None,
            corpus=corpus,
            layers=session.model.facts.layers,
            values=values,
        )
