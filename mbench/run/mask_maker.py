"""Makes the masks of one model from stored statistics, by calling the parts of its methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mbench.core.errors import Damaged, MbenchError, PluginError
from mbench.core.interfaces import Component, ExpertMask, Profile, Scores, Selection
from mbench.core.plugin_code import located, plugin_code
from mbench.core.search import MaskSearch, Probe
from mbench.plan.cells import Cell
from mbench.plan.models import PlannedModel
from mbench.run.mask_checks import check_groups, check_mask, check_selection, checked_scores, frozen
from mbench.run.stability import stability
from mbench.storage.store import Key, Store


@dataclass(frozen=True)
class ScoredMask:
    """A mask, and what is known of how it came about."""

    mask: ExpertMask
    scores: Mapping[str, np.ndarray]
    """By corpus, float64 [layers, N]; empty where the method has no scorer."""
    stability: float | None
    """See `mbench.run.stability`."""


class MaskMaker:
    """Makes the masks of one model; scores are computed once and shared by its methods."""

    def __init__(
        self,
        model: PlannedModel,
        store: Store,
        resamples: int,
        probe_for: Callable[[Cell], Probe],
    ) -> None:
        """Read statistics of `model` from `store`; `probe_for` gives a search its probe."""
        self._model = model
        self._store = store
        self._resamples = resamples
        self._probe_for = probe_for
        self._scores: dict[tuple[Any, ...], np.ndarray] = {}
        self._damage: Damaged | None = None

    def make(self, cell: Cell, candidate: ExpertMask | None) -> ScoredMask:
        """Return the cell's mask, with as many experts as its budget says, and its scores.

        Raises `PluginError` naming the component that raised, returned something that is not what
        it promised, or kept another number than K; `UnsupportedModel` for a mask that the model's
        router cannot work with; `Damaged` where a statistic is, whatever a plugin makes of that.
        """
        with self._telling_damage():
            return self._make(cell, candidate)

    def scores(self, cell: Cell) -> Mapping[str, np.ndarray]:
        """By corpus, what the cell's scorer gives, float64 [layers, N]; raises as `make` does."""
        with self._telling_damage():
            return self._profiled(cell)[1]

    @contextmanager
    def _telling_damage(self) -> Iterator[None]:
        """A damaged statistic is told, whatever was made of it."""
        self._damage = None
        try:
            yield
        except Exception:
            self._raise_damage()
            raise
        self._raise_damage()

    def _raise_damage(self) -> None:
        if self._damage is not None:
            self._scores.clear()
            raise self._damage

    def _profiled(self, cell: Cell) -> tuple[dict[str, Profile], dict[str, np.ndarray]]:
        """By corpus, the profile and the scores, which are 0 without a scorer."""
        profiles = {corpus: self.profile(cell, corpus) for corpus in cell.statistics}
        return profiles, {name: self._known_score(cell, each) for name, each in profiles.items()}

    def _make(self, cell: Cell, candidate: ExpertMask | None) -> ScoredMask:
        profiles, scores = self._profiled(cell)
        mask = self._built(cell, _as_scores(scores, profiles), candidate)
        again = self._resamples if cell.method.resamples else 0
        return ScoredMask(
            mask,
            scores if cell.method.scorer is not None else {},
            stability(mask.keep, profiles, lambda p: self._kept(cell, p, candidate), again),
        )

    def _kept(
        self, cell: Cell, profiles: Mapping[str, Profile], candidate: ExpertMask | None
    ) -> np.ndarray | None:
        """The experts that would be kept with other profiles; None where the method then fails."""
        try:
            # The same chance as in the mask itself: only the sequences differ.
            profiles = {
                corpus: replace(each, rng=_generator(cell, corpus))
                for corpus, each in profiles.items()
            }
            scores = {corpus: _score(cell, each) for corpus, each in profiles.items()}
            return self._built(cell, _as_scores(scores, profiles), candidate).keep
        except MbenchError:
            return None

    def _built(
        self, cell: Cell, scores: Mapping[str, Scores], candidate: ExpertMask | None
    ) -> ExpertMask:
        builder, budget = cell.method.builder, cell.budget
        generators = [score.profile.rng for score in scores.values()]
        untouched = [str(each.bit_generator.state) for each in generators]
        selection = _selection(cell, scores)
        arguments: list[Any] = [selection, scores, replace(budget), candidate]
        step = "build"
        if isinstance(builder, MaskSearch):
            step = "search"
            arguments += [self._probe_for(cell), _generator(cell, step)]
        with located(getattr(builder, step)):
            mask = _call("builder", builder, step, *arguments)
            check_mask(mask, builder, budget)
        if [str(each.bit_generator.state) for each in generators] != untouched:
            # How far a scorer has drawn from it depends on what else was made before.
            raise PluginError(
                f"selector {cell.method.selector.name!r} or builder {builder.name!r} draws from"
                " `profile.rng`, which is for scorers alone"
            )
        check_groups(mask, self._model.name, self._model.facts.groups)
        return ExpertMask(frozen(mask.keep), tuple(mask.notes), mask.stand_in)

    def profile(self, cell: Cell, corpus: str) -> Profile:
        """The stored statistics that the cell's method asked for, on one corpus."""
        keys = {job.statistic.identity: job.key for job in cell.statistics[corpus]}
        return profile_of(self._model, self._store, cell, corpus, keys, self._samples)

    def _samples(self, key: Key, layer: int) -> dict[str, np.ndarray]:
        try:
            return self._store.read_samples(key, layer)
        except Damaged as damage:
            self._damage = damage
            raise

    def _known_score(self, cell: Cell, profile: Profile) -> np.ndarray:
        """Computed once for all budgets and methods that ask for the same."""
        scorer = cell.method.scorer
        keys = tuple(job.key for job in cell.statistics[profile.corpus])
        seed = cell.seed if scorer is not None and scorer.stochastic else None
        identity = None if scorer is None else scorer.identity
        known = (type(scorer), identity, profile.corpus, profile.router, keys, seed)
        if known not in self._scores:
            self._scores[known] = _score(cell, profile)
        return self._scores[known]


def profile_of(
    model: PlannedModel,
    store: Store,
    cell: Cell,
    corpus: str,
    keys: Mapping[str, Key],
    samples: Callable[[Key, int], Mapping[str, np.ndarray]],
) -> Profile:
    """Stored statistics as a cell's components are given them.

    Args:
        model: whose statistics they are.
        store: where they are.
        cell: whose components ask for them.
        corpus: its name.
        keys: of the statistics, by identity.
        samples: reads those of one layer.

    Raises:
        Damaged: a statistic is damaged or gone.
    """
    sums = {}
    tokens = 0
    for identity, key in keys.items():
        arrays = store.read_sums(key)
        counted = store.read_profile(key)
        if counted is None:
            raise Damaged(f"the stored {key.label} is gone")
        tokens = max(tokens, counted.tokens)
        sums[identity] = {name: frozen(array) for name, array in arrays.items()}
    return Profile(
        corpus=corpus,
        layers=model.facts.layers,
        num_experts=cell.budget.num_experts,
        top_k=cell.budget.top_k,
        tokens=tokens,
        router=cell.budget.router,
        shard_sums=sums,
        load_samples=lambda identity, layer: samples(keys[identity], layer),
        model=model.name,
        revision=model.key,
        rng=_generator(cell, corpus),
    )


def _as_scores(
    values: Mapping[str, np.ndarray], profiles: Mapping[str, Profile]
) -> dict[str, Scores]:
    """As a plugin is given them; it could change the mapping, but not the arrays."""
    return {corpus: Scores(values[corpus], profile) for corpus, profile in profiles.items()}


def _score(cell: Cell, profile: Profile) -> np.ndarray:
    scorer, budget = cell.method.scorer, cell.budget
    if scorer is None:
        return frozen(np.zeros((budget.num_layers, budget.num_experts)))
    untouched = str(profile.rng.bit_generator.state)
    with located(scorer.score):
        values = _call("scorer", scorer, "score", profile)
        scores = checked_scores(values, scorer.name, budget, profile.corpus)
        _refuse_unsaid_chance("scorer", scorer, profile.rng, untouched)
    return scores


def _selection(cell: Cell, scores: Mapping[str, Scores]) -> Selection:
    selector, budget = cell.method.selector, cell.budget
    generator = np.random.default_rng(0 if cell.seed is None else cell.seed)
    untouched = str(generator.bit_generator.state)
    with located(selector.select):
        selection = _call("selector", selector, "select", scores, replace(budget), generator)
        _refuse_unsaid_chance("selector", selector, generator, untouched)
        check_selection(selection, selector.name, budget)
    return Selection(frozen(selection.chosen), tuple(selection.notes))


def _generator(cell: Cell, use: str) -> np.random.Generator:
    """Of the cell's seed, another one for each use, so that parts do not draw the same numbers."""
    seed = 0 if cell.seed is None else cell.seed
    return np.random.default_rng([seed, *use.encode()])


def _refuse_unsaid_chance(
    kind: str, component: Any, generator: np.random.Generator, untouched: str
) -> None:
    if not component.stochastic and str(generator.bit_generator.state) != untouched:
        raise PluginError(
            f"{kind} {component.name!r} draws at random without saying so: it needs"
            " `stochastic = True`, and is then run with every seed of the suite"
        )


def _call(kind: str, component: Component, step: str, *arguments: Any) -> Any:
    """Call a method of a plugin's component."""
    with plugin_code(f"{kind} {component.name!r}, in {step},"):
        result = getattr(component, step)(*arguments)
        # Turning a stranger's object into an array runs its code, too.
        return np.asarray(result) if step == "score" else result
