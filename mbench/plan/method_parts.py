"""The parts of a method: made by name and parameters, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mbench.core.errors import MbenchError, PluginError, SuiteError, unknown
from mbench.core.interfaces import Component, Method, Statistic, Use
from mbench.core.plugin_code import plugin_code
from mbench.core.search import MaskSearch
from mbench.core.suite import ComponentSpec, MethodSpec, Parts
from mbench.plan.registry import Registry
from mbench.plan.union_errors import of_value
from mbench.plan.yaml_source import Place, YamlSource


@dataclass(frozen=True)
class PartMaker:
    """Makes the components of one method for one model."""

    model: str
    registry: Registry
    source: YamlSource
    place: Place
    """Where the suite lists the method, or would."""

    def component(self, kind: str, spec: MethodSpec, preset: Method) -> Component | None:
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
            _, first, expected = of_value(error, first, use.params)
            message = f"{kind} {use.name!r}: {key}: {expected or first['msg'].lower()}"
            message += f", got {first['input']!r}"
        if at == self.place:
            return PluginError(f"a ready-made method gives it wrong parameters: {message}")
        return self.source.error((*at, key), message)


def _changed(use: Use | None, changed: ComponentSpec) -> Use | None:
    """A component with the suite's changes; one of another name keeps no old parameters."""
    if changed.name is not None and (use is None or changed.name != use.name):
        return Use(changed.name, changed.values)
    return None if use is None else Use(use.name, {**use.params, **changed.values})


def _parameters(component: type[Component]) -> list[str]:
    return list(component.Params.model_fields)


def statistics_of(parts: Mapping[str, Component]) -> tuple[Statistic, ...]:
    """The distinct statistics that components, by kind, ask for."""
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
            if each.problem:
                raise PluginError(each.problem)
    return tuple(needed.values())


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
