"""A model's cells: each method at each budget and seed, with the keys of all that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from mbench.core.cell_results import CellKey, LeftOut
from mbench.core.errors import Infeasible, MbenchError, PluginError, caught, one_line
from mbench.core.interfaces import WEIGHTS_ONLY, Budget, RouterMode, Statistic
from mbench.core.plugin_code import plugin_code
from mbench.core.search import MaskSearch
from mbench.core.suite import Suite
from mbench.moe.corpus import Corpus, CorpusPart
from mbench.plan.components import class_code, component_key
from mbench.plan.computing_code import Code
from mbench.plan.keys import ComponentKey, mask_key, recognised_key, statistic_key
from mbench.plan.methods import ResolvedMethod
from mbench.plan.models import PlannedModel
from mbench.plan.registry import Registry
from mbench.plan.yaml_source import YamlSource
from mbench.storage.store import Key

SHARDS = 16
"""Groups of calibration sequences whose sums are kept apart."""


@dataclass(frozen=True)
class StatisticJob:
    """One statistic of one model on one corpus."""

    corpus: str
    """`WEIGHTS_ONLY` for one that looks at no text."""
    statistic: Statistic
    key: Key


@dataclass(frozen=True)
class Cell:
    """One method at one budget, and one seed where it draws at random, on one model."""

    model: str
    method: ResolvedMethod
    seed: int | None
    budget: Budget
    mask_key: Key | None
    """Of the mask; None where the method is broken."""
    candidate: Key | None
    """Key of the mask it builds upon."""
    statistics: Mapping[str, tuple[StatisticJob, ...]]
    """Per corpus, what its scorer and builder read."""
    components: Mapping[str, ComponentKey] = field(default_factory=dict)
    """By kind, as the key has them; empty where the method is broken."""
    problem: str = ""
    """Why no mask can be made, for a plugin that fails already here."""
    notes: tuple[str, ...] = ()
    """What its components say of this budget, e.g. that a parameter is clamped."""

    @property
    def key(self) -> CellKey:
        """What identifies it within the plan."""
        return CellKey(self.model, self.method.name, self.seed, self.budget.retain)

    @property
    def label(self) -> str:
        """How progress and errors name it."""
        return self.key.label

    @property
    def search_tokens(self) -> int:
        """The most forward tokens that its search may cost; 0 where it does not search."""
        builder = self.method.builder
        return builder.params.tokens if isinstance(builder, MaskSearch) else 0

    def corpus(self, name: str) -> Mapping[str, Any]:
        """One of its corpora: name, text, and how it is cut, as the mask's key has them."""
        if self.mask_key is None:
            raise PluginError(self.problem)
        corpora: list[dict[str, Any]] = self.mask_key.made_by["corpora"]
        return next(corpus for corpus in corpora if corpus["name"] == name)


def kept_experts(retain: float, num_experts: int) -> int:
    """K = floor(rho * N), with rho the decimal that the suite states: 0.29 of 100 is 29."""
    return int(Fraction(str(retain)) * num_experts)


@dataclass(frozen=True)
class Cells:
    """All cells of one model."""

    made: tuple[Cell, ...]
    """Candidates before what builds on them."""
    left_out: tuple[LeftOut, ...]
    """What has none, and why."""


@dataclass(frozen=True)
class CellMaker:
    """The cells of one model."""

    suite: Suite
    source: YamlSource
    registry: Registry
    code: Code
    model: PlannedModel
    corpora: Mapping[str, Corpus]
    identities: Mapping[str, dict[str, Any]]
    """Of the texts that are used."""

    def cells(self, methods: Mapping[str, ResolvedMethod]) -> Cells:
        """A cell for each budget, method and seed, but for budgets that a method cannot meet.

        Raises `SuiteError` for a budget that the model itself cannot meet.
        """
        made: list[Cell] = []
        left_out: list[LeftOut] = []
        for index, retain in enumerate(self.suite.retain):
            keys: dict[str, Key | None] = {}
            refused: dict[str, str] = {}
            for name, method in methods.items():
                budget = self._budget(retain, index, method.router)
                try:
                    if method.candidate in refused:
                        reason = refused[method.candidate]
                        raise Infeasible(f"its candidate {method.candidate!r} cannot: {reason}")
                    for seed in method.seeds:
                        cell = self._cell(method, seed, budget, keys)
                        made.append(cell)
                        keys[name] = cell.mask_key
                except Infeasible as error:
                    refused[name] = one_line(error)
                    if method.evaluated:
                        left_out.append(LeftOut(self.model.name, name, retain, refused[name]))
        return Cells(tuple(made), tuple(left_out))

    def published(self, method: ResolvedMethod) -> Cells:
        """The one cell of a published checkpoint, at its own budget.

        That is the suite's where it keeps as many experts, else one more.
        """
        published = method.published
        assert published is not None
        facts, kept = self.model.facts, published.facts.num_experts
        retains = {retain: kept_experts(retain, facts.num_experts) for retain in self.suite.retain}
        own = next((r for r, count in retains.items() if count == kept), kept / facts.num_experts)
        cell = Cell(
            model=self.model.name,
            method=method,
            seed=None,
            budget=self._of(own, kept, "sliced"),
            mask_key=recognised_key(
                self.code, self.model.identity, f"{method.name} of {self.model.name}", published.key
            ),
            candidate=None,
            statistics={},
        )
        reason = f"its checkpoint holds {kept} of {facts.num_experts} experts"
        others = (retain for retain in self.suite.retain if retain != own)
        return Cells(
            (cell,), tuple(LeftOut(self.model.name, method.name, each, reason) for each in others)
        )

    def _budget(self, retain: float, index: int, router: RouterMode) -> Budget:
        facts = self.model.facts
        kept = kept_experts(retain, facts.num_experts)
        if kept < 1:
            raise self.source.error(
                ("retain", index),
                f"retain {retain:g} of the {facts.num_experts} experts of {self.model.name!r}"
                f" keeps none; the least is {1 / facts.num_experts:g}",
            )
        if kept < facts.fewest_experts or kept % facts.groups:
            among = f", in {facts.groups} groups of equally many" if facts.groups > 1 else ""
            raise self.source.error(
                ("retain", index),
                f"retain {retain:g} keeps {kept} of the {facts.num_experts} experts of"
                f" {self.model.name!r}, whose router needs at least {facts.fewest_experts}{among}",
            )
        return self._of(retain, kept, router)

    def _of(self, retain: float, kept: int, router: RouterMode) -> Budget:
        facts = self.model.facts
        return Budget(
            retain=retain,
            kept=kept,
            num_layers=len(facts.layers),
            num_experts=facts.num_experts,
            top_k=facts.top_k,
            router=router,
            fewest=facts.fewest_experts,
            groups=facts.groups,
        )

    def _cell(
        self,
        method: ResolvedMethod,
        seed: int | None,
        budget: Budget,
        keys: Mapping[str, Key | None],
    ) -> Cell:
        cell = Cell(
            model=self.model.name,
            method=method,
            seed=seed,
            budget=budget,
            mask_key=None,
            candidate=keys[method.candidate] if method.candidate else None,
            statistics={},
        )
        try:
            if method.problem:
                raise PluginError(method.problem)
            notes = self._checked(method, budget)
            statistics = {
                corpus: tuple(self._statistic_job(corpus, each) for each in method.statistics)
                for corpus in method.profiles
            }
            components = {
                kind: component_key(part, self.code.source_of(self.registry.code(kind, part)))
                for kind, part in method.parts.items()
            }
        except Infeasible:
            raise
        except (MbenchError, TypeError, ValueError, AttributeError) as error:
            return replace(cell, problem=caught(error))
        key = mask_key(
            self.code,
            self.model.identity,
            cell.label,
            components,
            [[job.key for job in jobs] for jobs in statistics.values()],
            [{"name": corpus, **self._corpus(corpus)} for corpus in method.corpora],
            (budget.num_layers, budget.num_experts, budget.kept),
            budget.retain,
            budget.router,
            cell.candidate,
            seed,
            self.suite.resamples if method.resamples else 0,
            isinstance(method.builder, MaskSearch),
        )
        return replace(
            cell, mask_key=key, statistics=statistics, components=components, notes=notes
        )

    def _checked(self, method: ResolvedMethod, budget: Budget) -> tuple[str, ...]:
        """The notes of the components on a budget that all of them have accepted."""
        notes: list[str] = []
        if self.model.facts.groups > 1:
            notes.append(self._group_note(budget))
        for kind, part in method.parts.items():
            with plugin_code(f"{kind} {part.name!r}, asked whether {budget.retain:g} is feasible,"):
                part.check(replace(budget))
                notes += part.notes(replace(budget))
        return tuple(notes)

    def _group_note(self, budget: Budget) -> str:
        groups = self.model.facts.groups
        return (
            f"the router is limited to groups of experts: a mask that does not keep"
            f" {budget.kept // groups} in each of {groups} fails when it is made"
        )

    def _corpus(self, corpus: str) -> dict[str, Any]:
        """What decides a corpus's token sequences."""
        parts = [self._part(part) for part in self.corpora[corpus].parts]
        # A mix of one part is that corpus.
        return parts[0] if len(parts) == 1 else {"mix": parts}

    def _part(self, part: CorpusPart) -> dict[str, Any]:
        # Texts are in no template: their keys are as before there was one.
        left_out = {"source"} if part.spec.chat else {"source", "chat"}
        protocol = part.spec.model_dump(mode="json", exclude=left_out)
        return {"text": self.identities[part.name], **protocol}

    def _statistic_job(self, corpus: str, statistic: Statistic) -> StatisticJob:
        source = self.code.source_of(class_code(type(statistic)))
        if not statistic.measures():
            corpus = WEIGHTS_ONLY
        key = statistic_key(
            self.code,
            self.model.identity,
            corpus,
            {} if corpus == WEIGHTS_ONLY else self._corpus(corpus),
            component_key(statistic, source),
            SHARDS,
        )
        return StatisticJob(corpus, statistic, key)
