"""From a suite to all that its run will do, before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mbench.core.cell_results import LeftOut
from mbench.core.interfaces import RouterMode, Statistic
from mbench.core.suite import Suite
from mbench.moe.corpus import Corpus
from mbench.plan.cells import SHARDS, Cell, CellMaker, kept_experts
from mbench.plan.components import class_code, component_key
from mbench.plan.computing_code import Code, installed_code
from mbench.plan.fact_keys import item_texts_key, task_size_key
from mbench.plan.keys import evaluation_key, masked_statistic_key, probe_key
from mbench.plan.methods import ResolvedMethod, resolve_methods
from mbench.plan.mixes import find_corpora, texts_of
from mbench.plan.models import PlannedModel, find_model, refuse_false_twins
from mbench.plan.published import find_published
from mbench.plan.registry import Registry
from mbench.plan.tasks import PlannedTask, find_text, identity_of, plan_tasks
from mbench.plan.yaml_source import YamlSource
from mbench.storage.inputs import Inputs
from mbench.storage.store import Key, Store
from mbench.storage.texts import Text

MOST_CELLS = 10_000
"""Of a plan: every cell is a mask to make and evaluate, and all results are kept in memory."""


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
    left_out: tuple[LeftOut, ...] = ()
    """Methods that make no cell at a budget."""

    def cells_of(self, model: str) -> list[Cell]:
        """A model's cells, candidates before those that build on them."""
        return [cell for cell in self.cells if cell.model == model]

    def tasks_of(self, cell: Cell) -> tuple[PlannedTask, ...]:
        """Those that a cell's mask is evaluated on; equal masks of other methods may have more."""
        asked = cell.method.tasks
        return tuple(task for task in self.tasks if asked is None or task.name in asked)

    @property
    def published(self) -> tuple[PlannedModel, ...]:
        """The published checkpoints among the methods."""
        found = (cell.method.published for cell in self.cells)
        return tuple(model for model in found if model is not None)

    @property
    def checkpoints(self) -> tuple[PlannedModel, ...]:
        """Everything that has weights: the models, then published checkpoints."""
        return (*self.models, *self.published)

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

    def item_texts_key(self, model: PlannedModel, task: PlannedTask) -> Key:
        """Key of what a built task's items ask; the same for all models but in a chat template."""
        own = None if task.chat is None else model.identity
        return item_texts_key(self.code, task.name, task.fingerprint, own)


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
    left_out: list[LeftOut] = []
    by_name = {model.name: model for model in models}
    refuse_false_twins(suite.models, by_name, source)
    published = find_published(suite, by_name, source, registry, inputs, code)
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
        maker = CellMaker(suite, source, registry, code, model, corpora, identities)
        made = [maker.cells(methods[model.name])]
        made += [maker.published(method) for base, method in published if base is model]
        cells += [cell for each in made for cell in each.made]
        left_out += [each for part in made for each in part.left_out]
    return Plan(
        suite, models, tuple(cells), tasks, corpora, registry, code, inputs, tuple(left_out)
    )


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
