"""Runs many masks over the same tokens and computes what they have in common once.

Masks that agree in their first MoE layers agree in all that the model computes up to the first one
in which they differ. Put in order, neighbours have most in common: the output of the last decoder
layer below that place is kept, and answers for it and for all below it. Nothing is assumed of a
family: before a place is shared for the first time, a few tokens are run with and without it, and
only where every bit is equal is it shared at all.

Memory: one output of a decoder layer, [sequences, length, H], for each MoE layer at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from mbench.core.interfaces import ExpertMask, RouterMode
from mbench.moe.adapter import MoELayer
from mbench.moe.mask import masked

TRIED_TOKENS = 16
"""On which it is tried whether a place can be shared."""

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Token ids [sequences, length] to what is wanted of the model, e.g. its last hidden state."""


class SharedPrefix:
    """Forward passes of one model under many masks."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[MoELayer], *, share: bool = True
    ) -> None:
        """Look for the decoder layers; without `share` every pass computes all of them."""
        self._layers = layers
        self._decoder, self._place = _decoder_layers(model, layers) if share else ([], [])
        self._holds: dict[int, bool] = {0: False}

    def run(
        self,
        forward: Forward,
        ids: torch.Tensor,
        masks: Sequence[ExpertMask],
        router: RouterMode,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield every mask's number and what `forward` gives of `ids` under it, in any order.

        Args:
            forward: calls the model, or a part of it that has all decoder layers.
            ids: [sequences, length].
            masks: all distinct.
            router: the mode in which they are applied.

        Raises:
            UnsupportedModel: a mask cannot be applied (see `mbench.moe.mask.masked`).
        """
        contents = [layer_contents(mask, len(self._layers)) for mask in masks]
        order = sorted(range(len(masks)), key=contents.__getitem__)
        starts = [0] + [
            self._start(contents[before], contents[number])
            for before, number in itertools.pairwise(order)
        ]
        for before, number, start in zip([None, *order], order, starts, strict=False):
            if before is not None and start not in self._holds:
                pair = masks[before], masks[number]
                self._holds[start] = self._is_exact(forward, ids, pair, router, start)
        starts = [start if self._holds.get(start) else 0 for start in starts]
        yield from self._in_order(forward, ids, [(n, masks[n]) for n in order], starts, router)

    def _start(self, one: Sequence[bytes], other: Sequence[bytes]) -> int:
        """The decoder layer in which two masks differ first; 0 where nothing is shared."""
        if not self._decoder:
            return 0
        pairs = enumerate(zip(one, other, strict=True))
        return self._place[next(number for number, (a, b) in pairs if a != b)]

    def _in_order(
        self,
        forward: Forward,
        ids: torch.Tensor,
        masks: Sequence[tuple[int, ExpertMask]],
        starts: Sequence[int],
        router: RouterMode,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Each mask's pass computes the decoder layers from its start on."""
        kept: dict[int, Any] = {}
        for at, ((number, mask), start) in enumerate(zip(masks, starts, strict=True)):
            kept = {place: output for place, output in kept.items() if place <= start}
            with (
                masked(self._layers, mask, router),
                torch.no_grad(),
                _answering(self._decoder[:start], kept.get(start)),
                self._keeping(_places_to_keep(starts[at + 1 :], start), kept),
            ):
                output = forward(ids)
            yield number, output

    @contextlib.contextmanager
    def _keeping(self, places: Sequence[int], kept: dict[int, Any]) -> Iterator[None]:
        """Put into `kept` what goes into the decoder layers at these places."""

        def keep(place: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                kept[place] = output

            return hook

        handles = []
        try:
            for place in places:
                handles.append(self._decoder[place - 1].register_forward_hook(keep(place)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _is_exact(
        self,
        forward: Forward,
        ids: torch.Tensor,
        pair: tuple[ExpertMask, ExpertMask],
        router: RouterMode,
        start: int,
    ) -> bool:
        """Whether every bit of a few tokens stays, also where an output is used twice."""
        some = ids[:1, :TRIED_TOKENS]
        first, second = pair
        shared = [(0, first), (1, second), (2, second)]
        try:
            outputs = dict(self._in_order(forward, some, shared, [0, start, start], router))
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False  # later layers want more of the earlier ones than their output
        for _, alone in self._in_order(forward, some, [(1, second)], [0], router):
            return torch.equal(outputs[1], alone) and torch.equal(outputs[2], alone)
        return False


def layer_contents(mask: ExpertMask, layers: int) -> list[bytes]:
    """All that a mask says of each MoE layer."""
    stand_in = mask.stand_in
    fields = [] if stand_in is None else dataclasses.fields(stand_in)
    values = [getattr(stand_in, field.name) for field in fields]
    common = repr([type(stand_in), *(v for v in values if not isinstance(v, np.ndarray))]).encode()
    arrays = [mask.keep, *(value for value in values if isinstance(value, np.ndarray))]
    return [
        common + b"".join(array[layer].tobytes() for array in arrays) for layer in range(layers)
    ]


def _decoder_layers(
    model: PreTrainedModel, layers: Sequence[MoELayer]
) -> tuple[list[nn.Module], list[int]]:
    """The list of modules of which each holds one MoE layer at most, and those that do.

    Two empty lists where the MoE layers are not in one list of modules.
    """
    first = layers[0].path.split(".")
    for length in range(1, len(first)):
        path = ".".join(first[:length])
        modules = model.get_submodule(path)
        inside = [layer.path.removeprefix(f"{path}.").partition(".")[0] for layer in layers]
        if (
            isinstance(modules, nn.ModuleList)
            and all(layer.path.startswith(f"{path}.") for layer in layers)
            and len(set(inside)) == len(layers)
        ):
            return list(modules), [int(number) for number in inside]
    return [], []


def _places_to_keep(coming: Sequence[int], start: int) -> list[int]:
    """Of the places where coming passes start, those whose input this pass is the last to compute.

    Args:
        coming: where the later passes start, in order.
        start: where this pass does.
    """
    places, lowest = set(), max(coming, default=0)
    for place in coming:
        lowest = min(lowest, place)
        if place == lowest and place > start:
            places.add(place)
    return sorted(places)


@contextlib.contextmanager
def _answering(modules: Sequence[nn.Module], output: Any) -> Iterator[None]:
    """Let modules give a ready output instead of computing one."""
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = lambda *args, **kwargs: output
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward
