"""The conformance kit: every check on every method of a plugin, as tests or all at once."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from mbench.core.errors import SuiteError, unknown
from mbench.plan.plugin_loading import load_registry
from mbench.plan.registry import Registry
from mbench.testing import checks_of_chance, checks_of_parts, checks_of_results
from mbench.testing.failures import Broken, ConformanceError, Found, Skipped
from mbench.testing.planted import refuse_other_choice
from mbench.testing.subject import Subject

Check = Callable[[Subject], None]

CHECKS: Mapping[str, Check] = {
    "parameters": checks_of_parts.parameters,
    "needs": checks_of_parts.needs,
    "statistics": checks_of_parts.statistics,
    "result": checks_of_results.result,
    "budget": checks_of_results.budget,
    "feasible": checks_of_parts.feasible,
    "pure": checks_of_results.pure,
    "global-state": checks_of_results.global_state,
    "deterministic": checks_of_results.deterministic,
    "seeds": checks_of_chance.seeds,
    "batches": checks_of_parts.batches,
    "shards": checks_of_parts.shards,
    "equivariant": checks_of_results.equivariant,
    "ties": checks_of_results.ties,
    "names": checks_of_results.names,
    "corpora": checks_of_results.corpora,
    "long-text": checks_of_results.long_text,
    "never-selected": checks_of_results.never_selected,
    "one-expert": checks_of_results.one_expert,
    "all-experts": checks_of_results.all_experts,
    "stand-ins": checks_of_results.stand_ins,
    "search": checks_of_chance.search,
}
"""What is asked of every method, by name; the first line of each says what."""

SAME_TWICE = ("statistics", "batches", "deterministic")
AFTER: Mapping[str, tuple[str, ...]] = {
    "batches": ("statistics", "deterministic"),
    "deterministic": ("statistics",),
    **dict.fromkeys(("seeds", "shards", "equivariant", "ties", "names", "corpora"), SAME_TWICE),
    "never-selected": ("ties",),
}
"""What must hold before a check means something: only then can two runs be compared, and what
goes wrong with equal scores be told from what goes wrong without any."""


@dataclass
class Checked:
    """One method, and what the checks that were made of it came to."""

    subject: Subject
    outcomes: dict[str, Found | Skipped | None] = field(default_factory=dict)
    """None: fine."""

    def outcome(self, name: str) -> Found | Skipped | None:
        """Make a check, once."""
        if name not in self.outcomes:
            # Until it is known: where two checks blame each other, both have failed.
            self.outcomes[name] = Found(name, "")
            self.outcomes[name] = self._made(name)
        return self.outcomes[name]

    def _made(self, name: str) -> Found | Skipped | None:
        for before in AFTER.get(name, ()):
            if isinstance(self.outcome(before), Found):
                return Skipped(f"the check {before!r} fails")
        try:
            CHECKS[name](self.subject)
        except Skipped as skipped:
            return skipped
        except (Found, Broken) as found:
            problem = found if isinstance(found, Found) else Found(found.check, found.problem)
            if problem.check == name:
                return problem
            if isinstance(self.outcome(problem.check), Found):
                return Skipped(f"the check {problem.check!r} fails")
            # What is wrong in the cases of this check alone is this check's.
            return Found(name, problem.problem, problem.case)
        return None

    def report(self, found: Found) -> str:
        """What a failing check says."""
        name = self.subject.method.name
        question = (CHECKS[found.check].__doc__ or "").strip()
        lines = [f"method {name!r}, check {found.check!r}: {found.problem}"]
        if found.case is not None:
            case = found.case
            with contextlib.suppress(Broken):
                # Methods that take one corpus were given one.
                case = replace(case, corpora=max(1, self.subject.corpora(case.corpora)))
            lines.append(f"smallest case: {case}")
        return "\n".join([*lines, f"what must hold: {question}"])


def check_method(
    plugin: str | Path | ModuleType, method: str, checks: Iterable[str] = tuple(CHECKS)
) -> None:
    """Make checks of one method.

    Args:
        plugin: see `conformance_tests`.
        method: its name.
        checks: names of checks; all by default.

    Raises `ConformanceError` with every check that fails.
    """
    checked = Checked(subjects(plugin)[method])
    reports = []
    for name in checks:
        outcome = checked.outcome(name)
        if isinstance(outcome, Found):
            reports.append(checked.report(outcome))
    if reports:
        raise ConformanceError("\n\n".join(reports))


def subjects(plugin: str | Path | ModuleType) -> dict[str, Subject]:
    """The methods of a plugin by name.

    Raises `ConformanceError` where it cannot be loaded, or offers none.
    """
    file = None
    if not isinstance(plugin, ModuleType) and str(plugin).endswith(".py"):
        file = Path(plugin).resolve()
    registry = load_registry([file] if file else [])
    source = str(file or (plugin.__name__ if isinstance(plugin, ModuleType) else plugin))
    own = _own(registry, source)
    if not own:
        reasons = [f.reason for f in registry.failures if f.plugin == source]
        why = reasons or [registry.failed() or "no installed plugin has this module"]
        raise ConformanceError(f"plugin {source!r} offers no method: {why[0]}")
    return own


def _own(registry: Registry, source: str) -> dict[str, Subject]:
    """The methods that a file, a module or the modules of a package registered."""
    found = {}
    for name, method in registry.methods.items():
        origin = registry.origins["method", name]
        module = getattr(origin.code, "__name__", "")
        if origin.plugin == source or module == source or module.startswith(f"{source}."):
            found[name] = Subject(method, registry)
    return found


def conformance_tests(
    plugin: str | Path | ModuleType,
    *,
    planted: Mapping[str, Mapping[str, bool]] = MappingProxyType({}),
    skip: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Callable[..., None]:
    """A test function for pytest, which makes every check of every method of a plugin.

    `test_conformance = conformance_tests("frequency.py")` in a test file is enough. Each check of
    each method is a test of its own, e.g. `test_conformance[frequency-ties]`.

    Args:
        plugin: a file, relative to where pytest is started; or a module or package of an
            installed plugin, or its name.
        planted: method -> kind of planted expert (a field of `Planted`) -> whether the method
            must keep those where half of all experts are kept; a test `[method-planted]` each.
        skip: method -> check -> why it is not made.
    """
    import pytest

    try:
        known = {name: Checked(subject) for name, subject in subjects(plugin).items()}
    except (ConformanceError, SuiteError) as error:
        problem = str(error)

        def test_loads() -> None:
            """The plugin can be loaded."""
            raise ConformanceError(problem)

        return test_loads
    for name, checks in [*skip.items(), *((name, {}) for name in planted)]:
        for wrong in [*({name} - known.keys()), *(checks.keys() - CHECKS.keys())]:
            choices: Any = known if wrong == name else CHECKS
            raise ConformanceError(unknown("method or check", wrong, choices))
    pairs = [(name, check) for name in known for check in CHECKS]
    pairs += [(name, "planted") for name in planted]

    @pytest.mark.parametrize(("method", "check"), pairs)
    def test_conformance(method: str, check: str) -> None:
        """One check of one method."""
        reason = skip.get(method, {}).get(check)
        if reason is not None:
            pytest.skip(reason)
        if check == "planted":
            refuse_other_choice(known[method].subject, planted[method])
            return
        outcome = known[method].outcome(check)
        if isinstance(outcome, Found):
            raise ConformanceError(known[method].report(outcome))
        if isinstance(outcome, Skipped):
            pytest.skip(textwrap.shorten(str(outcome), 200))

    return test_conformance
