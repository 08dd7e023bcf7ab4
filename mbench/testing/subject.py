"""A method to be checked: its components, made anew as often as a check needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mbench.core.errors import MbenchError, PluginError
from mbench.core.interfaces import Component, Method, Statistic, Use
from mbench.plan import method_parts
from mbench.plan.method_parts import looks_at_text
from mbench.plan.registry import Registry
from mbench.testing.failures import Broken

ROLES = ("scorer", "selector", "builder")


@dataclass(frozen=True)
class Subject:
    """One ready-made method of a registry."""

    method: Method
    registry: Registry
    made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What it made of a case, or why not; for `mbench.testing.making`."""

    def parts(self) -> dict[str, Component]:
        """New instances of its components by role; raises `Broken` where one cannot be made."""
        made = {}
        for role in ROLES:
            use: str | Use | None = getattr(self.method, role)
            if use is None:
                continue
            if not isinstance(use, str | Use):
                problem = f"its {role} must be a name or mbench.Use, got {use!r}"
                raise Broken("parameters", problem)
            use = Use(use) if isinstance(use, str) else use
            try:
                kind = self.registry.component(role, use.name)
                made[role] = kind(kind.Params(**use.params))
            except MbenchError as error:
                raise Broken("parameters", str(error)) from error
            except Exception as error:
                problem = f"{role} {use.name!r} cannot be made: {type(error).__name__}: {error}"
                raise Broken("parameters", problem) from error
        return made

    @property
    def candidate(self) -> Subject | None:
        """The method whose mask this one starts from; raises `Broken` if no plugin offers it."""
        name = self.method.candidate
        if name is None:
            return None
        if name not in self.registry.methods:
            raise Broken("parameters", f"no plugin offers its candidate {name!r}")
        key = "candidate"
        if key not in self.made:
            self.made[key] = Subject(self.registry.methods[name], self.registry)
        candidate: Subject = self.made[key]
        return candidate

    def stochastic(self) -> bool:
        """Whether one of its parts draws at random."""
        return any(getattr(part, "stochastic", False) for part in self.parts().values())

    def corpora(self, most: int) -> int:
        """How many corpora a case with `most` gives it."""
        try:
            if not looks_at_text(self.method.name, self.method, self.parts()):
                return 0
        except PluginError as error:
            raise Broken("needs", str(error)) from error
        return most if self.method.corpora is None else self.method.corpora


def statistics_of(parts: Mapping[str, Component]) -> tuple[Statistic, ...]:
    """The distinct statistics that components need; raises `Broken` for anything else."""
    try:
        return method_parts.statistics_of(parts)
    except PluginError as error:
        raise Broken("needs", str(error)) from error
