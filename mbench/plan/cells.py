"""From a suite to the cells it asks for, their keys, and what of it the store already holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from mbench.core.errors import Infeasible, MbenchError, PluginError, caught
from mbench.core.interfaces import WEIGHTS_ONLY, Budget, RouterMode, Statistic
from mbench.core.plugin_code import plugin_code
from mbench.core.results import CellKey
from mbench.core.search import MaskSearch
from mbench.core.suite import Suite
from mbench.moe.corpus import Corpus, CorpusPart
from mbench.plan.components import class_code, component_key
from mbench.plan.keys import (
    Code,
    ComponentKey,
    evaluation_key,
    installed_code,
    item_texts_key,
    mask_key,
    masked_statistic_key,
    probe_key,
    statistic_key,
    task_size_key,
)
from mbench.plan.methods import ResolvedMethod, resolve_methods
from mbench.plan.mixes import find_corpora, texts_of
from mbench.plan.models import PlannedModel, find_model
from mbench.plan.registry import Registry
from mbench.plan.tasks import PlannedTask, find_text, identity_of, plan_tasks
from mbench.plan.yaml_source import YamlSource
from mbench.storage.inputs import Inputs
from mbench.storage.store import Key, Store
from mbench.storage.texts import Text

MOST_CELLS = 10_000
"""Of a plan: every cell is a mask to make and evaluate, and all results are kept in memory."""

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


@dataclass(frozen=True)
class Plan:
    """Everything a run will do, before any model is loaded."""

    suite: Suite
    models: tuple[PlannedModel, ...]
    cells: tuple[Cell, ...]
    tasks: tuple[PlannedTask, ...]
    corpora: Mapping[str, Corpus]
    """All of the suite."""
    registry: Registry = field(repr=False)
    code: Code = field(repr=False)
    """The code and the versions that enter the keys."""
    inputs: Inputs = field(repr=False)
    """What was taken from the hub."""

    def cells_of(self, model: str) -> list[Cell]:
        """A model's cells, candidates before those that build on them."""
        return [cell for cell in self.cells if cell.model == model]

    def texts_used(self) -> dict[str, Text]:
        """Those that methods are calibrated on, by corpus; of a mix, those of its parts."""
        used = {corpus for cell in self.cells for corpus in cell.method.corpora}
        parts = {part.name for name in used for part in self.corpora[name].parts}
        return {name: text for name, text in self.texts.items() if name in parts}

    @property
    def texts(self) -> dict[str, Text]:
        """Of the suite's corpora that are no mixes."""
        parts = (part for corpus in self.corpora.values() for part in corpus.parts)
        return {part.name: part.text for part in parts}

    def kept(self, model: PlannedModel, retain: float) -> int:
        """K at one of the suite's budgets."""
        return kept_experts(retain, model.facts.num_experts)

    def evaluation_key(
        self, model: PlannedModel, mask_hash: str, router: RouterMode, task: PlannedTask
    ) -> Key:
        """Key of one mask's outcome on one task, by the mask's content and not by its maker."""
        mode = "any" if mask_hash == model.unpruned_mask.content_hash else router
        return evaluation_key(
            self.code, model.identity, mask_hash, mode, task.name, task.fingerprint
        )

    def probe_key(
        self, model: PlannedModel, cell: Cell, corpus: str, mask: str, sequences: int
    ) -> Key:
        """Key of what a mask, by its content, gave a search on one of its corpora."""
        place = cell.corpus(corpus)
        return probe_key(self.code, model.identity, place, sequences, mask, cell.budget.router)

    def masked_statistic_key(
        self,
        model: PlannedModel,
        cell: Cell,
        corpus: str,
        statistic: Statistic,
        mask: str,
        sequences: int,
    ) -> Key:
        """Key of a statistic under a mask."""
        source = self.code.source_of(class_code(type(statistic)))
        return masked_statistic_key(
            self.code,
            model.identity,
            cell.corpus(corpus),
            sequences,
            mask,
            cell.budget.router,
            component_key(statistic, source),
            SHARDS,
        )

    def task_size_key(self, model: PlannedModel, task: PlannedTask) -> Key:
        """Key of a built task's `TaskSize`."""
        return task_size_key(self.code, model.identity, task.name, task.fingerprint)

    def item_texts_key(self, task: PlannedTask) -> Key:
        """Key of what a built task's items ask."""
        return item_texts_key(self.code, task.name, task.fingerprint)


def make_plan(
    suite: Suite,
    source: YamlSource,
    registry: Registry,
    store: Store,
    *,
    trust_expected: bool = False,
    code: Code | None = None,
    inputs: Inputs | None = None,
) -> Plan:
    """Resolve every name, check every budget, and key every artefact.

    With `trust_expected`, what is out of reach is planned by what the suite says of it, which is
    enough to see a plan and not enough to run it. `code` is what computes;
    None: the code that is installed. `inputs` resolves what is on the hub; None: as it is now.

    Raises the user's first mistake as an `MbenchError`; a plugin's own failure only marks its
    cells.
    """
    code = (code or installed_code()).remembering()
    inputs = inputs or Inputs(store)
    methods = {name: resolve_methods(suite, name, registry, source) for name in suite.models}
    _refuse_too_many(suite, methods, source)
    texts = {
        name: find_text(
            ("corpora", name), spec.source, source, registry, code, inputs, trust_expected
        )
        for name, spec in texts_of(suite).items()
    }
    corpora = find_corpora(suite, texts, source)
    # Models first: they are the likeliest to be missing, and no text is read to find that out.
    models = tuple(
        find_model(name, spec, source, registry, inputs, code, trust_expected)
        for name, spec in suite.models.items()
    )
    tasks = plan_tasks(suite, source, registry, code, inputs, trust_expected)
    cells: list[Cell] = []
    for model in models:
        used = {c for method in methods[model.name].values() for c in method.corpora}
        parts = {
            part.name for name in suite.corpora if name in used for part in corpora[name].parts
        }
        identities = {
            part: identity_of(texts[part], ("corpora", part), source)
            for part in texts
            if part in parts
        }
        planner = _Planner(suite, source, registry, code, model, corpora, identities)
        cells += planner.cells(methods[model.name])
    return Plan(suite, models, tuple(cells), tasks, corpora, registry, code, inputs)


def _refuse_too_many(
    suite: Suite, methods: Mapping[str, Mapping[str, ResolvedMethod]], source: YamlSource
) -> None:
    seeds = sum(len(method.seeds) for named in methods.values() for method in named.values())
    if seeds * len(suite.retain) > MOST_CELLS:
        raise source.error(
            ("methods",),
            f"models, budgets, methods and seeds make {seeds * len(suite.retain)} masks; a suite"
            f" may ask for {MOST_CELLS}: split it",
        )


def kept_experts(retain: float, num_experts: int) -> int:
    """K = floor(rho * N), with rho the decimal that the suite states: 0.29 of 100 is 29."""
    return int(Fraction(str(retain)) * num_experts)


@dataclass(frozen=True)
class _Planner:
    """The cells of one model."""

    suite: Suite
    source: YamlSource
    registry: Registry
    code: Code
    model: PlannedModel
    corpora: Mapping[str, Corpus]
    identities: Mapping[str, dict[str, Any]]
    """Of the texts that are used."""

    def cells(self, methods: Mapping[str, ResolvedMethod]) -> list[Cell]:
        """A cell for each budget, method and seed; candidates come before what builds on them.

        Raises `SuiteError` for a budget that the model or a method cannot meet.
        """
        made: list[Cell] = []
        for index, retain in enumerate(self.suite.retain):
            keys: dict[str, Key | None] = {}
            for name, method in methods.items():
                budget = self._budget(retain, index, method.router)
                for seed in method.seeds:
                    cell = self._cell(method, seed, budget, keys)
                    made.append(cell)
                    keys[name] = cell.mask_key
        return made

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
                corpus: tuple(self._statistic_job(corpus, each) for each in method.statistics())
                for corpus in method.profiles
            }
            components = {
                kind: component_key(part, self.code.source_of(self.registry.code(kind, part)))
                for kind, part in method.parts.items()
            }
        except Infeasible as error:
            place = ("methods", method.name if method.name in self.suite.methods else "")
            problem = f"{method.name!r} cannot keep {budget.retain:g} of {self.model.name!r}"
            raise self.source.error(place, f"{problem}: {error}") from None
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
        protocol = part.spec.model_dump(mode="json", exclude={"source"})
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
