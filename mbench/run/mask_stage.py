"""The second stage of a run: a mask for every cell, from stored statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mbench.core.errors import Damaged, PluginError, StoreError, UnsupportedModel, caught
from mbench.core.interfaces import (
    Budget,
    Component,
    ExpertMask,
    Profile,
    Scorer,
    Scores,
    Selection,
    kept_per_group,
)
from mbench.core.plugin_code import located, plugin_code
from mbench.core.provenance import CorpusProfile
from mbench.core.results import TaskStatus
from mbench.plan.cells import Cell
from mbench.plan.models import PlannedModel
from mbench.run.profile_stage import missing_jobs, profile
from mbench.run.session import ModelSession
from mbench.storage.mask_json import (
    mask_from_json,
    mask_to_json,
    scores_from_json,
    scores_to_json,
)
from mbench.storage.store import Key, Store


def restore_masks(session: ModelSession) -> list[Cell]:
    """Take the masks that are stored; returns the cells whose masks are not, in order."""
    pending = []
    for cell in session.cells:
        stored = session.store.read_json(cell.mask_key) if cell.mask_key else None
        if cell.mask_key is None or stored is None:
            pending.append(cell)
        else:
            session.outcome.masks[cell.mask_key] = _restored(session, cell, stored)
    return pending


def _restored(session: ModelSession, cell: Cell, stored: Any) -> ExpertMask:
    mask = mask_from_json(stored, session.model.facts.layers)
    known, place = session.outcome.scores, (cell.model, cell.method.name)
    if place not in known:
        # A scorer knows no budget: those of its first mask are those of all.
        known[place] = scores_from_json(stored["scores"], mask.keep.shape)
    return ExpertMask(_frozen(mask.keep), mask.notes)


def make_masks(
    session: ModelSession, cells: Sequence[Cell], statistic_problems: Mapping[Key, str]
) -> None:
    """Make and store masks, candidates first; a failure costs its cell and those built on it.

    A statistic that turns out to be damaged is collected again.
    """
    maker = MaskMaker(session.model, session.store)
    problems = dict(statistic_problems)
    with session.timed("masks"):
        for cell in cells:
            session.progress.stage(f"mask {cell.label}")
            problem = _obstacle(session, cell, problems)
            if problem is None:
                try:
                    try:
                        _make(session, maker, cell)
                    except Damaged:
                        problems |= profile(session, missing_jobs(session, [cell]))
                        _make(session, maker, cell)
                    continue
                except StoreError:
                    raise
                except Exception as error:
                    problem = TaskStatus("failed", caught(error))
            session.outcome.mask_problems[cell.key] = problem
            session.progress.event(
                "mask", cell=cell.label, status=problem.status, reason=problem.reason
            )


def _obstacle(
    session: ModelSession, cell: Cell, statistic_problems: Mapping[Key, str]
) -> TaskStatus | None:
    """Why the cell cannot even be tried."""
    if cell.problem:
        return TaskStatus("failed", cell.problem)
    for jobs in cell.statistics.values():
        for job in jobs:
            if job.key in statistic_problems:
                return TaskStatus("blocked", statistic_problems[job.key])
    name = cell.method.candidate
    if name is not None and cell.candidate not in session.outcome.masks:
        return TaskStatus("blocked", f"its candidate {name!r} has no mask at this budget")
    return None


def _make(session: ModelSession, maker: MaskMaker, cell: Cell) -> None:
    masks = session.outcome.masks
    made = maker.make(cell, masks[cell.candidate] if cell.candidate is not None else None)
    if cell.mask_key is None:
        raise PluginError(cell.problem)
    content = {
        **mask_to_json(made.mask, session.model.facts.layers),
        "scores": scores_to_json(made.scores),
    }
    mask = _restored(session, cell, session.store.write_json(cell.mask_key, content))
    masks[cell.mask_key] = mask
    session.progress.event("mask", cell=cell.label, status="ok", mask=mask.content_hash)


@dataclass(frozen=True)
class ScoredMask:
    """A mask, and what its method's scorer gave."""

    mask: ExpertMask
    scores: Mapping[str, np.ndarray]
    """By corpus, float64 [layers, N]; empty where the method has no scorer."""


class MaskMaker:
    """Makes the masks of one model; scores are computed once and shared by its methods."""

    def __init__(self, model: PlannedModel, store: Store) -> None:
        """Read statistics of `model` from `store`."""
        self._model = model
        self._store = store
        self._scores: dict[tuple[Any, ...], np.ndarray] = {}
        self._damage: Damaged | None = None

    def make(self, cell: Cell, candidate: ExpertMask | None) -> ScoredMask:
        """Return the cell's mask, with exactly K experts in every layer, and its scores.

        Raises `PluginError` naming the component that raised, returned something that is not what
        it promised, or did not keep exactly K; `UnsupportedModel` for a mask that the model's
        router cannot work with; `Damaged` where a statistic is, whatever a plugin makes of that.
        """
        self._damage = None
        try:
            made = self._make(cell, candidate)
        except Exception:
            self._raise_damage()
            raise
        self._raise_damage()
        return made

    def _raise_damage(self) -> None:
        if self._damage is not None:
            self._scores.clear()
            raise self._damage

    def _make(self, cell: Cell, candidate: ExpertMask | None) -> ScoredMask:
        method, budget = cell.method, cell.budget
        profiles = {corpus: self.profile(cell, corpus) for corpus in method.corpora}
        scores = {
            corpus: Scores(self._score(method.scorer, cell, profile), profile)
            for corpus, profile in profiles.items()
            if method.scorer is not None
        }
        # Before a plugin is given the mapping, which it could change; the arrays it cannot.
        given = {corpus: score.values for corpus, score in scores.items()}
        selection = self._selection(cell, scores)
        with located(method.builder.build):
            mask = _call(
                "builder", method.builder, "build", selection, scores, replace(budget), candidate
            )
            _check_mask(mask, method.builder.name, budget)
        self._check_groups(mask)
        return ScoredMask(ExpertMask(_frozen(mask.keep), tuple(mask.notes)), given)

    def _selection(self, cell: Cell, scores: Mapping[str, Scores]) -> Selection:
        selector, budget = cell.method.selector, cell.budget
        generator = np.random.default_rng(0 if cell.seed is None else cell.seed)
        untouched = str(generator.bit_generator.state)
        with located(selector.select):
            selection = _call("selector", selector, "select", scores, replace(budget), generator)
            if not selector.stochastic and str(generator.bit_generator.state) != untouched:
                raise PluginError(
                    f"selector {selector.name!r} draws at random without saying so: it needs"
                    " `stochastic = True`, and is then run with every seed of the suite"
                )
            _check_selection(selection, selector.name, budget)
        return Selection(_frozen(selection.chosen), tuple(selection.notes))

    def profile(self, cell: Cell, corpus: str) -> Profile:
        """The stored statistics that the cell's method asked for, on one corpus."""
        jobs = {job.statistic.identity: job for job in cell.statistics[corpus]}
        sums = {}
        tokens = 0
        for identity, job in jobs.items():
            counted, arrays = self._read(job.key)
            tokens = counted.tokens
            sums[identity] = {name: _frozen(array) for name, array in arrays.items()}
        return Profile(
            corpus=corpus,
            layers=self._model.facts.layers,
            num_experts=cell.budget.num_experts,
            top_k=cell.budget.top_k,
            tokens=tokens,
            router=cell.budget.router,
            shard_sums=sums,
            load_samples=lambda identity, layer: self._samples(jobs[identity].key, layer),
        )

    def _read(self, key: Key) -> tuple[CorpusProfile, dict[str, np.ndarray]]:
        arrays = self._store.read_sums(key)
        counted = self._store.read_profile(key)
        if counted is None:
            raise Damaged(f"the stored {key.label} is gone")
        return counted, arrays

    def _samples(self, key: Key, layer: int) -> dict[str, np.ndarray]:
        try:
            return self._store.read_samples(key, layer)
        except Damaged as damage:
            self._damage = damage
            raise

    def _check_groups(self, mask: ExpertMask) -> None:
        groups = self._model.facts.groups
        counts = kept_per_group(mask.keep, groups)
        uneven = np.flatnonzero(counts.min(axis=1) != counts.max(axis=1))
        if uneven.size:
            raise UnsupportedModel(
                f"the router of {self._model.name} is limited to {groups} groups of experts and"
                f" needs as many in each, but in {uneven.size} of {len(counts)} layers the mask"
                f" does not keep that, e.g. {counts[uneven[0]].tolist()} in layer {uneven[0]}"
            )

    def _score(self, scorer: Scorer, cell: Cell, profile: Profile) -> np.ndarray:
        keys = tuple(job.key for job in cell.statistics[profile.corpus])
        known = (type(scorer), scorer.identity, profile.corpus, profile.router, keys)
        if known not in self._scores:
            with located(scorer.score):
                values = _call("scorer", scorer, "score", profile)
                scores = _checked_scores(values, scorer.name, cell.budget, profile.corpus)
            self._scores[known] = scores
        return self._scores[known]


def _call(kind: str, component: Component, step: str, *arguments: Any) -> Any:
    """Call a method of a plugin's component."""
    with plugin_code(f"{kind} {component.name!r}, in {step},"):
        result = getattr(component, step)(*arguments)
        # Turning a stranger's object into an array runs its code, too.
        return np.asarray(result) if step == "score" else result


def _checked_scores(values: Any, name: str, budget: Budget, corpus: str) -> np.ndarray:
    shape = (budget.num_layers, budget.num_experts)
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind not in "fiu":
        got = f"{array.dtype} {list(array.shape)}"
        raise PluginError(f"scorer {name!r} must return float64 {list(shape)}, got {got}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        layer, expert = np.argwhere(~np.isfinite(array))[0]
        raise PluginError(
            f"scorer {name!r} returned {array[layer, expert]} for layer {layer} expert {expert}"
            f" on {corpus}"
        )
    return _frozen(array)


def _check_selection(selection: Any, name: str, budget: Budget) -> None:
    shape = (budget.num_layers, budget.num_experts)
    if not isinstance(selection, Selection) or not _is_mask(selection.chosen, shape):
        raise PluginError(f"selector {name!r} must return a Selection of bool {list(shape)}")
    _check_notes(selection.notes, f"selector {name!r}")


def _check_mask(mask: Any, name: str, budget: Budget) -> None:
    shape = (budget.num_layers, budget.num_experts)
    if not isinstance(mask, ExpertMask) or not _is_mask(mask.keep, shape):
        raise PluginError(f"builder {name!r} must return an ExpertMask of bool {list(shape)}")
    _check_notes(mask.notes, f"builder {name!r}")
    for layer, count in enumerate(mask.keep.sum(axis=1)):
        if count != budget.kept:
            raise PluginError(
                f"builder {name!r} kept {count} experts in layer {layer}, not K = {budget.kept}"
            )


def _check_notes(notes: Any, who: str) -> None:
    if isinstance(notes, str) or not all(isinstance(note, str) for note in notes):
        raise PluginError(f"{who} must give its notes as a tuple of texts")


def _frozen(array: np.ndarray) -> np.ndarray:
    """A copy that no component can change, not even by making it writable."""
    return np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)


def _is_mask(array: Any, shape: tuple[int, int]) -> bool:
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype == bool
