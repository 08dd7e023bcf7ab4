"""A suite's methods, resolved: names into component instances, candidates into an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mbench.core.basics import AsSelected, TopK
from mbench.core.errors import PluginError, caught, nearest, unknown
from mbench.core.interfaces import (
    WEIGHTS_ONLY,
    Component,
    MaskBuilder,
    Method,
    RouterMode,
    Scorer,
    Selector,
    Statistic,
)
from mbench.core.provenance import ComponentSettings, MethodSettings
from mbench.core.search import MaskSearch
from mbench.core.suite import MethodSpec, Suite
from mbench.plan.crossing import corpus_of, method_of, spec_of
from mbench.plan.method_parts import PartMaker, looks_at_text, statistics_of
from mbench.plan.models import PlannedModel
from mbench.plan.registry import Origin, Registry
from mbench.plan.yaml_source import Place, YamlSource
from mbench.storage.records import to_plain


@dataclass(frozen=True)
class ResolvedMethod:
    """One method, ready to make masks for one model."""

    name: str
    scorer: Scorer | None
    selector: Selector
    builder: MaskBuilder
    candidate: str | None
    corpora: tuple[str, ...]
    seeds: tuple[int | None, ...]
    """`(None,)` for deterministic methods."""
    origins: Mapping[str, Origin]
    description: str
    router: RouterMode
    tasks: tuple[str, ...] | None = None
    """Those of the suite that its masks are evaluated on; None: all."""
    evaluated: bool = True
    """False for a candidate that the suite does not list: only its mask is needed."""
    problem: str = ""
    """Why a plugin's method cannot be used; its cells fail with this, and all others go on."""
    published: PlannedModel | None = None
    """The checkpoint that it is, with no parts of its own."""

    @property
    def parts(self) -> dict[str, Component]:
        """The components by their kind."""
        parts = {"scorer": self.scorer, "selector": self.selector, "builder": self.builder}
        if self.published is not None:
            return {}
        return {kind: part for kind, part in parts.items() if part is not None}

    @property
    def resamples(self) -> bool:
        """Whether its mask can be made again from other draws of the calibration sequences.

        A search would cost as much again each time, and samples of tokens have no shards.
        """
        measured = [each for each in self.statistics if each.measures()]
        sums = all(each.combine == "sum" for each in measured)
        return bool(measured) and sums and not isinstance(self.builder, MaskSearch)

    @property
    def settings(self) -> MethodSettings:
        """All that decides its masks but the seed, as results record it."""
        recorded = {
            kind: ComponentSettings(part.name, to_plain(part.params.model_dump()))
            for kind, part in self.parts.items()
        }
        return MethodSettings(
            scorer=recorded.get("scorer"),
            selector=recorded.get("selector"),
            builder=recorded.get("builder"),
            corpora=self.corpora,
            candidate=self.candidate,
            router=self.router,
            checkpoint=self.published.place_and_revision if self.published else None,
            checkpoint_content=self.published.key if self.published else None,
        )

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the profiles it is given: its corpora, or the one of the weights alone."""
        if self.corpora or not (self.scorer or self.statistics):
            return self.corpora
        return (WEIGHTS_ONLY,)

    @cached_property
    def statistics(self) -> tuple[Statistic, ...]:
        """The distinct statistics that the components ask for.

        Raises `PluginError` for a component that asks for anything else.
        """
        return statistics_of(self.parts)


def resolve_methods(
    suite: Suite, model: str, registry: Registry, source: YamlSource
) -> dict[str, ResolvedMethod]:
    """All methods of a suite for one model, candidates before those that build on them.

    Published checkpoints are not among them: see `mbench.plan.published`.
    Raises `SuiteError` at the line of an unknown name, a wrong parameter, or a cycle.
    """
    ordered: dict[str, ResolvedMethod] = {}

    def visit(name: str, asked_by: tuple[str, ...]) -> None:
        if name in asked_by:
            chain = " -> ".join((*asked_by[asked_by.index(name) :], name))
            raise source.error(("methods", asked_by[0]), f"candidates form a cycle: {chain}")
        if name in ordered:
            return
        section = "methods" if name in suite.methods else "candidates"
        place, spec = spec_of(suite, name, ("methods", asked_by[-1] if asked_by else name))
        if spec.checkpoint is not None:
            if asked_by:
                problem = f"{name!r} is a published checkpoint, which no method builds upon"
                raise source.error(("methods", asked_by[-1]), problem)
            return
        resolver = _Resolver(suite, model, registry, source, section, place)
        evaluated = section == "methods"
        try:
            method = resolver.resolve(name, spec, evaluated=evaluated)
        # What a plugin's own method or component raises, e.g. by a part that is no name.
        except (PluginError, TypeError, ValueError, AttributeError) as error:
            method = _broken(name, suite.router, caught(error), evaluated=evaluated)
        if method.candidate is not None:
            visit(method.candidate, (*asked_by, name))
            if ordered[method.candidate].seeds != (None,):
                problem = f"candidate {method.candidate!r} draws at random"
                raise source.error(place, f"{problem}; a candidate must be deterministic")
        ordered[name] = method

    for name in suite.methods:
        visit(name, ())
    return ordered


def _broken(name: str, router: RouterMode, problem: str, *, evaluated: bool) -> ResolvedMethod:
    """A method whose cells fail for a reason that lies in its plugin."""
    return replace(without_parts(name, router), evaluated=evaluated, problem=problem)


def without_parts(name: str, router: RouterMode) -> ResolvedMethod:
    """A method whose parts are never used."""
    return ResolvedMethod(
        name=name,
        scorer=None,
        selector=TopK(),
        builder=AsSelected(),
        candidate=None,
        corpora=(),
        seeds=(None,),
        origins={},
        description="",
        router=router,
    )


@dataclass(frozen=True)
class _Resolver:
    suite: Suite
    model: str
    registry: Registry
    source: YamlSource
    section: str
    """Where the suite lists the method, or would."""
    place: Place

    def resolve(self, name: str, spec: MethodSpec, evaluated: bool) -> ResolvedMethod:
        """The method with its components made and everything filled in that the suite left out.

        Raises `SuiteError` for a name or value that does not fit, and `PluginError` for a
        ready-made method that names a component which no plugin offers.
        """
        preset = self._preset(name, spec)
        components: dict[str, Any] = {}
        maker = PartMaker(self.model, self.registry, self.source, self.place)
        for kind in ("scorer", "selector", "builder"):
            component = maker.component(kind, spec, preset)
            if component is not None:
                components[kind] = component
        candidate = spec.candidate or preset.candidate
        if candidate is not None and corpus_of(name) and not corpus_of(candidate):
            candidate = f"{candidate}@{corpus_of(name)}"
        builder: MaskBuilder = components["builder"]
        if builder.takes_candidate != (candidate is not None):
            problem = f"a candidate that its builder {builder.name!r} does not use"
            if candidate is None:
                problem = f"no candidate, which its builder {builder.name!r} needs"
            raise self.source.error(self.place, f"{name!r} has {problem}")
        return ResolvedMethod(
            name=name,
            scorer=components.get("scorer"),
            selector=components["selector"],
            builder=builder,
            candidate=candidate,
            corpora=self._corpora(name, spec, preset, components),
            seeds=self._seeds(name, spec, components),
            origins={
                kind: self.registry.origins[kind, component.name]
                for kind, component in components.items()
            },
            description=preset.description,
            router=spec.router or self.suite.router,
            tasks=self._tasks(spec),
            evaluated=evaluated,
        )

    def _seeds(
        self, name: str, spec: MethodSpec, components: Mapping[str, Any]
    ) -> tuple[int | None, ...]:
        if not any(getattr(part, "stochastic", False) for part in components.values()):
            if spec.seeds is not None:
                at = (*self.place, "seeds")
                raise self.source.error(at, f"{name!r} draws nothing at random: it takes no seeds")
            return (None,)
        seeds = self.suite.seeds if spec.seeds is None else spec.seeds
        if not seeds:
            raise self.source.error(self.place, f"{name!r} draws at random: it needs seeds")
        return seeds

    def _tasks(self, spec: MethodSpec) -> tuple[str, ...] | None:
        offered = {*self.suite.tasks, *self.suite.perplexity}
        for index, task in enumerate(spec.tasks or ()):
            if task not in offered:
                at = (*self.place, "tasks", index)
                raise self.source.error(at, unknown("task", task, offered))
        return spec.tasks

    def _preset(self, name: str, spec: MethodSpec) -> Method:
        wanted = spec.use or method_of(name)
        if wanted in self.registry.methods:
            return self.registry.methods[wanted]
        if spec.use is None and spec.selector is not None:
            return Method(name)
        choices = set(self.registry.methods)
        if not spec.use:
            of_suite = {*self.suite.methods, *self.suite.candidates}
            choices |= {name for name in of_suite if not corpus_of(name)} - {wanted}
        problem = unknown("method", wanted, choices)
        failures = self.registry.failures
        offering = [failure for failure in failures if failure.names(wanted)]
        if offering or (failures and not nearest(wanted, choices)):
            # Likely a method of a broken plugin, which must not stop those of all others.
            first = (offering or failures)[0]
            raise PluginError(f"plugin {first.plugin} failed to load: {first.reason}")
        at = (*self.place, "use") if spec.use else self.place
        raise self.source.error(at, f"{problem}{self.registry.hint()}")

    def _setting(self, name: str, corpus: str) -> str:
        if name in self.source.section(self.section):
            return f"{self.section}.{name}.corpora=[{corpus}]"
        return f"{self.section}.{name}={{corpora: [{corpus}]}}"

    def _wanted_by(self, name: str) -> str:
        """For errors: which method builds upon one that the suite does not list."""
        return "" if name == self.place[-1] else f", which {self.place[-1]!r} builds upon,"

    def _corpora(
        self, name: str, spec: MethodSpec, preset: Method, components: Mapping[str, Component]
    ) -> tuple[str, ...]:
        corpora = self.suite.calibration if spec.corpora is None else spec.corpora
        at = (*self.place, "corpora") if spec.corpora is not None else self.place
        at = (self.section, name) if corpus_of(name) else at
        if not looks_at_text(name, preset, components):
            only_built_upon = corpus_of(name) and name not in self.suite.methods
            if spec.corpora is not None and not only_built_upon:
                raise self.source.error(at, f"{name!r} looks at no text: it takes no corpora")
            return ()
        listed = ", ".join(self.suite.corpora) or "none"
        if not corpora:
            problem = f"{name!r} needs calibration corpora; the suite has: {listed}"
            raise self.source.error(at, problem)
        if preset.corpora is not None and len(corpora) != preset.corpora:
            raise self.source.error(
                at,
                f"{name!r}{self._wanted_by(name)} takes {preset.corpora} calibration corpus,"
                f" got {len(corpora)}:"
                f" say which, e.g. --set '{self._setting(name, corpora[0])}'"
                f" (the suite has: {listed})",
            )
        return tuple(corpora)
