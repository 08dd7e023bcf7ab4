"""Published checkpoints among the methods: what sets each apart, and whose experts it has."""

from __future__ import annotations

import numpy as np

from mbench.core.cell_results import CellResult, PublishedCheckpoint
from mbench.core.results import Results

MARK = "published checkpoint"


def published_marks(results: Results, cell: CellResult) -> tuple[str, ...]:
    """For a place beside a name: that it is published, and its form where it is not the model's;
    nothing for methods that were run here."""
    if cell.published is None:
        return ()
    record = results.provenance.models.get(cell.model)
    model_form = record.facts.stored_form if record else ""
    form = cell.published.stored_form
    other = () if form == model_form else (f"stored in {form or 'plain numbers'}",)
    return (MARK, *other)


def experts_in_words(results: Results, cell: CellResult) -> str:
    """Whose experts a published checkpoint has, as far as these results can tell."""
    told = cell.published
    if told is None:
        return ""
    if not told.recognised:
        why = "; ".join(told.problems) or "not known"
        return f"no selection of the model's experts: {why}"
    same = methods_with_its_experts(results, cell)
    if same:
        return f"those of {', '.join(same)}"
    return "a selection that no method here makes"


def differs_in_words(told: PublishedCheckpoint) -> str:
    """What is not as in the full model: `differs in: router, 32 tensors`; or that nothing is."""
    if told.differs:
        return f"differs in: {', '.join(told.differs)}"
    return "computes what the mask computes" if told.same_as_mask else ""


def methods_with_its_experts(results: Results, cell: CellResult) -> list[str]:
    """Other methods of its model, not published ones, with a mask of the same experts."""
    own = results.masks.get((cell.model, cell.mask))
    if own is None:
        return []
    found: dict[str, None] = {}
    for other in results.cells:
        if other.model != cell.model or other.published is not None or other.kept != cell.kept:
            continue
        keep = results.masks.get((other.model, other.mask))
        if keep is not None and np.array_equal(keep, own):
            name = other.method if other.seed is None else f"{other.method} (seed {other.seed})"
            found[name] = None
    return list(found)


def unrecognised(results: Results) -> list[CellResult]:
    """The published checkpoints whose experts are not known, which have no mask to show."""
    return [c for c in results.cells if c.published is not None and not c.published.recognised]
