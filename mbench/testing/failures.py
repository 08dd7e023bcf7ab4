"""What a check finds: a method that breaks its contract, and one that refuses a case."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbench.testing.cases import Case


class ConformanceError(AssertionError):
    """A method breaks its contract; the text says how, on the smallest case that shows it."""


class Broken(Exception):
    """A rule that was broken in one case."""

    def __init__(self, check: str, problem: str) -> None:
        """Name the check that the rule belongs to, and what is wrong."""
        super().__init__(problem)
        self.check = check
        self.problem = problem


class Refused(Exception):
    """A method said in its own words that it cannot work in a case."""


class Found(Exception):
    """A rule that is broken, and the smallest case that shows it."""

    def __init__(self, check: str, problem: str, case: Case | None = None) -> None:
        """Name the check that the rule belongs to, what is wrong, and in which case."""
        super().__init__(problem)
        self.check = check
        self.problem = problem
        self.case = case


class Skipped(Exception):
    """A check that does not apply to a method, or that cannot be made; the text says why."""
