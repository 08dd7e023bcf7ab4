"""A suite's methods, resolved: names into component instances, candidates into an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mbench.core.basics import AsSelected, TopK
from mbench.core.errors import MbenchError, PluginError, SuiteError, caught, nearest, unknown
from mbench.core.interfaces import (
    WEIGHTS_ONLY,
    Component,
    MaskBuilder,
    Method,
    RouterMode,
    Scorer,
    Selector,
    Statistic,
    Use,
)
from mbench.core.plugin_code import plugin_code
from mbench.core.provenance import ComponentSettings, MethodSettings
from mbench.core.search import MaskSearch
from mbench.core.suite import ComponentSpec, MethodSpec, Parts, Suite
from mbench.plan.crossing import corpus_of, method_of, spec_of
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
    evaluated: bool = True
    """False for a candidate that the suite does not list: only its mask is needed."""
    problem: str = ""
    """Why a plugin's method cannot be used; its cells fail with this, and all others go on."""

    @property
    def parts(self) -> dict[str, Component]:
        """The components by their kind."""
        parts = {"scorer": self.scorer, "selector": self.selector, "builder": self.builder}
        return {kind: part for kind, part in parts.items() if part is not None}

    @property
    def resamples(self) -> bool:
        """Whether its mask can be made again from other draws of the calibration sequences.

        A search would cost as much again each time, and samples of tokens have no shards.
        """
        measured = [each for each in self.statistics() if each.measures()]
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
            selector=recorded["selector"],
            builder=recorded["builder"],
            corpora=self.corpora,
            candidate=self.candidate,
            router=self.router,
        )

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the profiles it is given: its corpora, or the one of the weights alone."""
        if self.corpora or not (self.scorer or self.statistics()):
            return self.corpora
        return (WEIGHTS_ONLY,)

    def statistics(self) -> tuple[Statistic, ...]:
        """The distinct statistics that the components ask for.

        Raises `PluginError` for a component that asks for anything else.
        """
        return statistics_of(self.parts)


def statistics_of(parts: Mapping[str, Component]) -> tuple[Statistic, ...]:
    """The distinct statistics that components, by kind, ask for.

    Raises `PluginError` for a component that asks for anything else.
    """
    needed: dict[str, Statistic] = {}
    for kind, part in parts.items():
        what = f"{kind} {part.name!r}"
        with plugin_code(f"{what}, asked what it `needs`,"):
            needs: Any = part.needs
        for each in needs if isinstance(needs, tuple) else (needs,):
            if not isinstance(each, Statistic) or not isinstance(needs, tuple):
                raise PluginError(
                    f"{what}: `needs` must be a tuple of statistics, such as"
                    f" (mbench.RoutingSums(),), got {needs!r}"
                )
            known = needed.setdefault(each.identity, each)
            if type(known) is not type(each):
                raise PluginError(
                    f"{what}: two statistics in {type(each).__module__} are called"
                    f" {each.name!r} and {type(each).__qualname__}: rename one"
                )
            _refuse_idle(each)
    return tuple(needed.values())


def _refuse_idle(statistic: Statistic) -> None:
    """Refuse a statistic that collects nothing, or joins what is not measured token by token."""
    if not (statistic.measures() or statistic.inspects()):
        raise PluginError(
            f"statistic {statistic.name!r} implements neither `measure` nor `inspect`"
        )
    if statistic.inspects() and statistic.combine != "sum":
        raise PluginError(
            f'statistic {statistic.name!r}: `inspect` needs `combine = "sum"`: what it reads of'
            " weights is no sample of tokens"
        )


def resolve_methods(
    suite: Suite, model: str, registry: Registry, source: YamlSource
) -> dict[str, ResolvedMethod]:
    """All methods of a suite for one model, candidates before those that build on them.

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
        evaluated=evaluated,
        problem=problem,
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
        for kind in ("scorer", "selector", "builder"):
            component = self._component(kind, spec, preset)
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
            evaluated=evaluated,
        )

    def _component(self, kind: str, spec: MethodSpec, preset: Method) -> Component | None:
        """The component of `preset`, with the suite's changes for all models and for this one."""
        use: str | Use | None = getattr(preset, kind)
        use = Use(use) if isinstance(use, str) else use
        if not isinstance(use, Use | None):
            raise PluginError(
                f"method {preset.name!r}: its {kind} must be a name or mbench.Use, got {use!r}"
            )
        at: Place = self.place
        for_model = (*self.place, "models", self.model)
        changes = [(spec, self.place), (spec.models.get(self.model, Parts()), for_model)]
        for parts, where in changes:
            changed: ComponentSpec | None = getattr(parts, kind)
            if changed is not None:
                use, at = _changed(use, changed), (*where, kind)
                if use is None:
                    raise self.source.error(at, f"this method has no {kind}: give its name")
        if use is None:
            return None
        if at == self.place and use.name not in self.registry.components[kind]:
            raise PluginError(
                f"method {preset.name!r} names a {kind} that no plugin offers: "
                + unknown(kind, use.name, self.registry.components[kind])
            )
        return self._instance(kind, use, at)

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

    def _instance(self, kind: str, use: Use, at: Place) -> Component:
        try:
            component = self.registry.component(kind, use.name)
        except SuiteError as error:
            raise self.source.error(at, str(error)) from None
        invalid: ValidationError | None = None
        with plugin_code(f"{kind} {use.name!r}, checking its parameters,"):
            try:
                params = component.Params(**use.params)
            except ValidationError as error:
                invalid = error
        if invalid is not None:
            raise self._wrong_parameter(kind, use, at, component, invalid)
        with plugin_code(f"{kind} {use.name!r} cannot be made: it"):
            return component(params)

    def _wrong_parameter(
        self, kind: str, use: Use, at: Place, component: type[Component], error: ValidationError
    ) -> MbenchError:
        """Whose mistake it is: the suite's, at its line, or that of the plugin's own method."""
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            message = unknown(f"parameter of {kind} {use.name!r}", key, _parameters(component))
        else:
            message = f"{kind} {use.name!r}: {key}: {first['msg'].lower()}"
            message += f", got {first['input']!r}"
        if at == self.place:
            return PluginError(f"a ready-made method gives it wrong parameters: {message}")
        return self.source.error((*at, key), message)

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


def looks_at_text(name: str, preset: Method, components: Mapping[str, Component]) -> bool:
    """Whether a method needs calibration corpora.

    Raises `PluginError` for one that says `corpora=0` and needs them all the same.
    """
    searches = isinstance(components["builder"], MaskSearch)
    needs = statistics_of(components)
    measuring = [each.name for each in needs if each.measures()]
    if preset.corpora == 0:
        if searches or measuring:
            what = "searches" if searches else f"needs {measuring[0]!r}, which measures text"
            raise PluginError(f"method {name!r} has corpora=0, but {what}")
        return False
    return searches or bool(measuring) or ("scorer" in components and not needs)


def _changed(use: Use | None, changed: ComponentSpec) -> Use | None:
    """A component with the suite's changes; one of another name keeps no old parameters."""
    if changed.name is not None and (use is None or changed.name != use.name):
        return Use(changed.name, changed.values)
    return None if use is None else Use(use.name, {**use.params, **changed.values})


def _parameters(component: type[Component]) -> list[str]:
    return list(component.Params.model_fields)
