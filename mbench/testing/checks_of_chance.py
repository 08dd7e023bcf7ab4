"""Checks of methods that draw at random, and of those that search."""

from __future__ import annotations

import contextlib

from mbench.core.search import MaskSearch
from mbench.testing.cases import SIZES, Case, ladder
from mbench.testing.failures import Found, Refused, Skipped
from mbench.testing.making import MASKS, make
from mbench.testing.subject import Subject
from mbench.testing.trying import refuse_difference, some, through

SEEDS = 6
"""Of which two at least must give different masks or scores, or have a search try others."""


def seeds(subject: Subject) -> None:
    """Who draws says `stochastic = True`; equal seeds give equal results, and others others."""
    if not subject.stochastic():
        # Who draws without saying so is found as soon as it does.
        through(some(3, ladder()), lambda case: make(subject, case))
        return

    varied: list[bool] = []

    def tried(case: Case) -> None:
        found = set()
        for seed in range(SEEDS):
            made = make(subject, case, seed=seed)
            scores = b"".join(values.tobytes() for values in made.scores.values())
            asked = frozenset(made.probe.asked if made.probe else ())
            found.add((made.mask.content_hash, scores, asked))
        again = make(subject, case, seed=seed, parts=subject.parts())
        refuse_difference("seeds", f"twice with seed {seed}", made, again)
        varied.append(len(found) > 1)

    cases = [Case(size, size.experts // 2) for size in SIZES[-2:]]
    through(cases, tried)
    # A search may find one and the same best mask where there are few.
    if not any(varied):
        problem = f"it says `stochastic = True`, and {SEEDS} seeds give one and the same mask"
        raise Found("seeds", problem, cases[-1])


def search(subject: Subject) -> None:
    """A search asks its probe, for masks that the model can run, and stops before its limit."""
    if not isinstance(subject.parts()["builder"], MaskSearch):
        raise Skipped("it does not search")
    asked: list[int] = []

    def tried(case: Case) -> None:
        for masks in (0, 1, 3, 10, MASKS):
            with contextlib.suppress(Refused):
                made = make(subject, case, masks=masks)
                assert made.probe is not None
                asked.append(made.probe.spent)

    through(some(4, ladder()), tried)
    if not any(asked):
        raise Found("search", "it searches, and asks its probe for nothing")
