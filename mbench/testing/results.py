"""What components return is of the form that they promise; anything else is `Broken`."""

from __future__ import annotations

from typing import Any

import numpy as np

from mbench.core.errors import UnsupportedModel, one_line
from mbench.core.interfaces import ExpertMask, MaskBuilder, Selection
from mbench.core.stand_ins import Constants, Merged
from mbench.run.mask_checks import check_groups, check_mask, check_selection, checked_scores, frozen
from mbench.testing.cases import Case
from mbench.testing.failures import Broken
from mbench.testing.synthetic import HIDDEN, INNER


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
        check_mask(returned, builder, case.budget)
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
        refuse_stand_in(returned, f"builder {builder.name!r}", case)
    return ExpertMask(frozen(returned.keep), tuple(returned.notes), returned.stand_in)


def refuse_stand_in(mask: ExpertMask, who: str, case: Case) -> None:
    """Raise `Broken` for a stand-in that says something impossible."""
    problem = ""
    if isinstance(mask.stand_in, Constants):
        problem = _wrong_constants(mask.stand_in, mask.keep, case)
    elif isinstance(mask.stand_in, Merged):
        problem = _wrong_merged(mask.stand_in, mask.keep, case)
    else:
        problem = f"must be Constants or Merged, got {type(mask.stand_in).__name__}"
    if problem:
        raise Broken("stand-ins", f"{who}: its stand-in {problem}")


def _wrong_constants(stand_in: Constants, keep: np.ndarray, case: Case) -> str:
    outputs, shape = stand_in.outputs, (*keep.shape, HIDDEN)
    if not isinstance(outputs, np.ndarray) or outputs.shape != shape:
        got = getattr(outputs, "shape", type(outputs).__name__)
        return f"must have outputs {list(shape)} (layers, experts, hidden size), got {got}"
    if outputs.dtype != np.float32:
        return f"must have outputs of float32, got {outputs.dtype}"
    if not np.isfinite(outputs).all():
        layer, expert, _ = np.argwhere(~np.isfinite(outputs))[0]
        return f"is not finite for layer {layer}, expert {expert}"
    if outputs[keep].any():
        layer, expert = np.argwhere(keep & outputs.any(axis=2))[0]
        return f"is not 0 for the kept expert {expert} of layer {layer}"
    return ""


def _wrong_merged(stand_in: Merged, keep: np.ndarray, case: Case) -> str:
    into, weights = stand_in.into, stand_in.weights
    for name, array, kind in (("into", into, "i"), ("weights", weights, "f")):
        if not isinstance(array, np.ndarray) or array.shape != keep.shape:
            got = getattr(array, "shape", type(array).__name__)
            return f"must have {name} {list(keep.shape)} (layers, experts), got {got}"
        if array.dtype.kind != kind:
            return f"has {name} of {array.dtype}"
    for layer, row in enumerate(into):
        own = np.arange(len(row))
        if (row[keep[layer]] != own[keep[layer]]).any():
            return f"sends kept experts of layer {layer} elsewhere: {row.tolist()}"
        taken = row[row >= 0]
        if (row < -1).any() or (taken >= len(row)).any() or not keep[layer][taken].all():
            return f"sends experts of layer {layer} to ones that are not kept: {row.tolist()}"
        if (row == -1).any() and stand_in.router == "mapped":
            return f"leaves experts of layer {layer} to none, which a mapped router cannot"
    if not np.isfinite(weights).all() or (weights[into == -1] != 0).any():
        return "has weights that are not finite, or not 0 where an expert is taken up by none"
    if not (weights[keep] != 0).any():
        return "gives every kept expert a weight of 0"
    return _wrong_neurons(stand_in.neurons, keep)


def _wrong_neurons(neurons: Any, keep: np.ndarray) -> str:
    if neurons is None or (isinstance(neurons, str) and neurons == "matched"):
        return ""
    shape = (*keep.shape, INNER)
    if not isinstance(neurons, np.ndarray) or neurons.shape != shape:
        got = getattr(neurons, "shape", neurons)
        return f"must have neurons {list(shape)} (layers, experts, inner size), got {got}"
    if (np.sort(neurons, axis=2) != np.arange(INNER)).any():
        return "has neurons that are no order of 0, 1, .. inner size - 1"
    return ""
