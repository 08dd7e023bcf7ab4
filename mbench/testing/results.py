"""What components return is of the form that they promise; anything else is `Broken`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mbench.core.errors import UnsupportedModel, one_line
from mbench.core.interfaces import ExpertMask, MaskBuilder, Selection
from mbench.core.stand_ins import Constants, Merged, refuse_malformed
from mbench.run.mask_checks import check_groups, check_mask, check_selection, checked_scores, frozen
from mbench.testing.cases import Case
from mbench.testing.failures import Broken
from mbench.testing.synthetic_layers import HIDDEN, INNER


def scores_of(returned: Any, name: str, case: Case, corpus: str) -> np.ndarray:
    """The scores as float64 [layers, N]."""
    try:
        return checked_scores(returned, name, case.budget, corpus)
    except Exception as error:
        raise Broken("result", one_line(error)) from error


def selection_of(returned: Any, name: str, case: Case) -> Selection:
    """The selection."""
    try:
        check_selection(returned, name, case.budget)
    except Exception as error:
        raise Broken("result", one_line(error)) from error
    return Selection(frozen(returned.chosen), tuple(returned.notes))


def mask_of(returned: Any, builder: MaskBuilder, case: Case) -> ExpertMask:
    """The mask."""
    try:
        check_mask(_alone(returned), builder, case.budget)
    except Exception as error:
        shape = (case.size.layers, case.size.experts)
        keep = getattr(returned, "keep", None)
        counted = isinstance(keep, np.ndarray) and keep.shape == shape and "kept" in str(error)
        raise Broken("budget" if counted else "result", one_line(error)) from error
    if builder.layers == "any":
        try:
            check_groups(returned, "such a model", case.groups)
        except UnsupportedModel as error:
            raise Broken("budget", f"builder {builder.name!r}: {error} (budget.groups)") from error
    if returned.stand_in is not None:
        _refuse_stand_in(returned, f"builder {builder.name!r}")
    return ExpertMask(frozen(returned.keep), tuple(returned.notes), returned.stand_in)


def _alone(returned: Any) -> Any:
    """A mask without what stands in for dropped experts, which has a check of its own."""
    return replace(returned, stand_in=None) if isinstance(returned, ExpertMask) else returned


def _refuse_stand_in(mask: ExpertMask, who: str) -> None:
    """Raise `Broken` for what cannot stand in for the experts of a synthetic model."""
    stand_in = mask.stand_in
    sizes: list[tuple[str, Any, int]] = []
    if isinstance(stand_in, Constants):
        sizes.append(("Constants.outputs", stand_in.outputs, HIDDEN))
    if isinstance(stand_in, Merged) and not isinstance(stand_in.neurons, str | None):
        sizes.append(("Merged.neurons", stand_in.neurons, INNER))
    try:
        refuse_malformed(stand_in, mask.keep)
    except ValueError as error:
        raise Broken("stand-ins", f"{who}: {error}") from error
    for name, array, size in sizes:
        if array.shape[2] != size:
            problem = f"{name} ends in {array.shape[2]} where the model has {size}"
            raise Broken("stand-ins", f"{who}: {problem}")
