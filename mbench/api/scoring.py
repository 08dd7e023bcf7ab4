"""The scores of one method of a suite, from its request to its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mbench.api.request import Wish, request
from mbench.plan.admission.admit import admit, refuse
from mbench.run.score_stage import Scored, only_scored, score

if TYPE_CHECKING:
    from mbench.api.request import Request
    from mbench.run.progress import Progress


def request_scores(wish: Wish, method: str, tell: Callable[[str], object]) -> Request:
    """Plan what the scores of a method of `wish` follow from, and look at it.

    Raises `MbenchError` for a mistake, and for a method that rates no expert.
    """
    asked = request(replace(wish, narrowing={**wish.narrowing, "methods": (method,)}), tell)
    asked = replace(asked, plan=only_scored(asked.plan, method))
    refuse(admit(asked.plan, asked.store), asked.source)
    return asked


def scored(asked: Request, progress: Progress) -> Scored:
    """The scores; what fails is among its problems."""
    return score(asked.plan, asked.store, progress)
