"""Which experts of a full checkpoint a pruned one holds, and what else differs.

Experts are compared as a loaded model has them, so that it does not matter whether a checkpoint
stores them one by one or together. What differs is named wherever it may change a logit, in doubt
too: an order of experts decides between equal scores of the router, which half precision often has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mbench.core.errors import ModelNotFound
from mbench.core.recognised import Recognised
from mbench.moe.checkpoint_tensors import EXPERT_NUMBER, Place
from mbench.moe.recognition.config_differences import config_differences
from mbench.moe.recognition.layer import LayerFound, Misfit, recognise_layer, router_rows
from mbench.moe.stored_model import StoredModel, same_numbers, same_weight

LISTED = 6
"""Problems that are told one by one."""


def recognise(
    full: Path, pruned: Path, advance: Callable[[int, int], object] = lambda done, of: None
) -> Recognised:
    """Compare the weights of two checkpoints in local folders, one layer at a time.

    `advance` is told after each layer how many of how many are compared.

    Of the pruned one every byte is read, and of the full one, both twice where experts' bytes
    differ. Experts count as another's from one weight between 0.5 and 2 by least squares, with at
    most 60 % of their numbers (root mean square) unexplained; see `likeness`.

    Raises `UnsupportedModel` or `ModelNotFound` for what is no pair of such checkpoints.
    """
    one, other = (StoredModel(folder, strict=False) for folder in (full, pruned))
    _refuse_incomplete(one)
    counts = len(one.layers), len(other.layers)
    if counts[0] != counts[1]:
        return Recognised(
            None, (), (), (f"{counts[1]} MoE layers, the full model has {counts[0]}",)
        )
    problems = list(_miscounted(other))
    if any(_lack(layer) for layer in other.experts):
        return Recognised(None, (), (), tuple(problems))
    try:
        layers = []
        for number in range(counts[0]):
            layers.append(recognise_layer(one, other, number))
            advance(number + 1, counts[0])
    except Misfit as misfit:
        return Recognised(None, (), (), (*problems, str(misfit)))
    problems += _in_words(layers)
    orders = tuple(found.known() for found in layers)
    keep = None
    if all(orders):
        keep = np.zeros((counts[0], one.layers[0].num_experts), dtype=bool)
        for row, order in zip(keep, orders, strict=True):
            row[list(order)] = True
    differs = (
        *_experts(one, other, layers),
        *_order(one, orders),
        *_routers(one, other, orders),
        *_others(one, other),
        *config_differences(one.checkpoint, other.checkpoint, one.layers[0], other.layers[0]),
    )
    if (name := type(other.model).__name__) != (before := type(one.model).__name__):
        differs = (f"computed by {name} instead of {before}", *differs)
    return Recognised(keep, orders, differs, tuple(problems))


def _refuse_incomplete(full: StoredModel) -> None:
    expected = full.layers[0].num_experts
    for number, layer in enumerate(full.experts):
        problem = _lack(layer)
        if not problem and len(layer) != expected:
            problem = f"it holds {len(layer)} experts, config.json says {expected}"
        if problem:
            raise ModelNotFound(f"model {full.folder}: layer {number}: {problem}")


def _lack(layer: Mapping[int, tuple[Place, ...]]) -> str:
    """What a layer lacks of its experts, in words."""
    if missing := set(range(max(layer, default=0) + 1)) - set(layer):
        return f"expert {min(missing)} is missing"
    weights = {
        number: {EXPERT_NUMBER.sub(r"\g<before>N\g<after>", place.part.weight) for place in places}
        for number, places in layer.items()
    }
    every = set().union(*weights.values())
    for number, held in weights.items():
        if held != every:
            return f"expert {number} lacks {min(every - held)}"
    return ""


def _miscounted(pruned: StoredModel) -> Iterator[str]:
    """Layers whose experts are not as many as the configuration says, or not whole."""
    for number, layer in enumerate(pruned.experts):
        if problem := _lack(layer):
            yield f"layer {number}: {problem}"
            return
    stated = pruned.layers[0].num_experts
    counts = [len(layer) for layer in pruned.experts]
    if min(counts) != max(counts):
        yield (
            f"layers hold {min(counts)} to {max(counts)} experts, config.json says {stated} of each"
        )
    elif counts[0] != stated:
        yield f"layers hold {counts[0]} experts, config.json says {stated}"


def _in_words(layers: Sequence[LayerFound]) -> list[str]:
    every = [
        f"layer {number}: expert {expert} {problem}"
        for number, found in enumerate(layers)
        for expert, problem in sorted(found.problems.items())
    ]
    if len(every) > LISTED + 1:
        touched = sum(bool(found.problems) for found in layers)
        rest = f"{len(every) - LISTED} more experts, in {touched} of {len(layers)} layers in all"
        every = [*every[:LISTED], rest]
    return every


def _experts(full: StoredModel, pruned: StoredModel, layers: Sequence[LayerFound]) -> Iterator[str]:
    if (now := pruned.precision) != (before := full.precision):
        yield f"stored as {now} instead of {before}"
    changes = [found.change for found in layers if found.change is not None]
    # In another precision the same numbers are other bytes.
    if changes and (max(changes) > 0.0 or now == before):
        most = max(changes)
        share = f"{most:.0%}" if most >= 0.01 else "less than 1%"
        share = share.replace("%", " %")
        where = "" if len(changes) == len(layers) else f", in {len(changes)} of the layers"
        yield f"expert values up to {share}{where}"
    if turned := sum(found.turned for found in layers):
        yield f"the order of inner neurons in {turned} experts"


def _order(full: StoredModel, orders: Sequence[tuple[int, ...]]) -> Iterator[str]:
    moved = sum(list(order) != sorted(order) for order in orders)
    if moved:
        yield f"the order of experts in {_layers(moved)}"
    layer = full.layers[0]
    if layer.groups > 1:
        size = layer.num_experts // layer.groups
        strayed = sum(
            [expert // size for expert in order]
            != [place * layer.groups // len(order) for place in range(len(order))]
            for order in orders
            if order
        )
        if strayed:
            yield f"the router's groups of experts in {_layers(strayed)}"


def _routers(
    full: StoredModel, pruned: StoredModel, orders: Sequence[tuple[int, ...]]
) -> Iterator[str]:
    changed, scales = 0, []
    for layer, order in enumerate(orders):
        if not order:
            continue
        theirs, mine = router_rows(full, layer), router_rows(pruned, layer)
        expected = {name: rows[list(order)] for name, rows in theirs.items()}
        if expected.keys() == mine.keys() and all(
            same_numbers(rows, mine[name]) for name, rows in expected.items()
        ):
            continue
        changed += 1
        scales.append(_scale(expected, mine))
    if changed:
        told = [scale for scale in scales if scale is not None]
        words = ""
        if len(told) == changed:
            low, high = f"{min(told):.3g}", f"{max(told):.3g}"
            words = f", scaled by {low}" + (f" to {high}" if high != low else "")
        yield f"router of {_layers(changed)}{words}"


def _scale(expected: dict[str, torch.Tensor], mine: dict[str, torch.Tensor]) -> float | None:
    """What all of a router was multiplied by; None where it was changed otherwise."""
    if expected.keys() != mine.keys():
        return None
    pairs = [(expected[name].double(), mine[name].double()) for name in expected]
    if any(x.shape != y.shape for x, y in pairs):
        return None
    first, second = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    scale = float(first @ second / (first @ first))
    rest = (second - scale * first).norm() / second.norm()
    return scale if float(rest) < 0.005 else None


@dataclass
class _Names:
    """Weights that differ in one way."""

    words: str
    names: list[str] = field(default_factory=list)

    def told(self) -> Iterator[str]:
        if self.names:
            count = len(self.names)
            yield f"{count} {self.words.format('s' if count > 1 else '')}, e.g. {self.names[0]}"


def _others(full: StoredModel, pruned: StoredModel) -> Iterator[str]:
    """All weights beside experts and routers, by their names in the model."""
    changed, lacking = _Names("tensor{}"), _Names("tensor{} fewer")
    added, strange = (
        _Names("tensor{} more"),
        _Names("tensor{} that the model's class does not know"),
    )
    mine, theirs = _with_tied(pruned), _with_tied(full)
    compared = set()
    for target, weight in theirs.items():
        if target not in mine:
            lacking.names.append(target)
        # One weight may have two names, of which one is the other's.
        elif (weight, mine[target]) not in compared:
            compared.add((weight, mine[target]))
            if not same_weight(full, weight, pruned, mine[target]):
                changed.names.append(target)
    added.names += [target for target in mine if target not in theirs]
    strange.names += [place.name for place in pruned.places.values() if not place.is_known]
    for names in (changed, lacking, added, strange):
        yield from names.told()


def _with_tied(stored: StoredModel) -> dict[str, str]:
    """The others, with those that a checkpoint may leave out because they are another's."""
    weights = dict(stored.others)
    tied = stored.model.get_expanded_tied_weights_keys(all_submodels=True)
    for target, owner in tied.items():
        for one, other in ((target, owner), (owner, target)):
            if one not in weights and other in weights:
                weights[one] = weights[other]
    return weights


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"
