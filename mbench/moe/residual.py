"""The residual stream at MoE layers, found by watching which norm gave a block its input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import MoELayer


class ResidualStreams:
    """What the blocks of MoE layers add their outputs to, in the forward call that is under way.

    A block is given the output of a norm; what that norm was given is the stream. That the decoder
    layer returns the sum of both, and nothing else, shows only once it has been computed.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[MoELayer]) -> None:
        self.problem: UnsupportedModel | None = None
        """Why a stream that was asked for is none, after the forward call."""
        self._layers = layers
        self._decoder = [_parent(model, layer) for layer in layers]
        self._passed: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._stream: dict[int, torch.Tensor] = {}
        self._added: dict[int, torch.Tensor] = {}
        self._asked: set[int] = set()
        self._proved: set[int] = set()

    def of(self, number: int) -> torch.Tensor:
        """Return the stream [..., H] above which the layer `number` is being computed.

        Raises `UnsupportedModel` if its block's input is not the output of a norm beside it.
        """
        if number not in self._stream:
            path = self._layers[number].path
            raise UnsupportedModel(f"{path}: no residual stream goes through a norm to its block")
        self._asked.add(number)
        return self._stream[number]

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Follow the streams of all forward calls."""
        handles = []
        try:
            for number, (layer, decoder) in enumerate(
                zip(self._layers, self._decoder, strict=True)
            ):
                beside = [] if decoder is None else list(decoder.children())
                if decoder is None or layer.block not in beside:
                    continue
                for module in beside:
                    if module is not layer.block:
                        handles.append(module.register_forward_hook(self._after_norm(number)))
                before, after = self._before_block(number), self._after_block(number)
                handles.append(layer.block.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(layer.block.register_forward_hook(after))
                handles.append(decoder.register_forward_hook(self._after_decoder(number)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _after_norm(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if len(args) == 1 and isinstance(output, torch.Tensor):
                self._passed.setdefault(number, []).append((args[0], output))

        return hook

    def _before_block(self, number: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: Any, kwargs: Any) -> None:
            given = next(iter((*args, *kwargs.values())), None)
            for stream, output in self._passed.pop(number, ()):
                if output is given and stream.shape == output.shape:
                    self._stream[number] = stream

        return hook

    def _after_block(self, number: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: Any, output: Any) -> None:
            if number in self._asked - self._proved:
                self._added[number] = _first(output)

        return hook

    def _after_decoder(self, number: int) -> Callable[..., None]:
        def hook(decoder: nn.Module, args: Any, output: Any) -> None:
            self._passed.pop(number, None)
            stream, added = self._stream.pop(number, None), self._added.pop(number, None)
            if stream is None or added is None:
                return
            total = _first(output)
            if total.shape == stream.shape == added.shape and torch.equal(stream + added, total):
                self._proved.add(number)
                return
            self.problem = UnsupportedModel(
                f"{self._layers[number].path}: the block's output is not simply added to the"
                " residual stream"
            )

        return hook


def _parent(model: PreTrainedModel, layer: MoELayer) -> nn.Module | None:
    """The module that calls a layer's block."""
    block, _, _ = layer.path.rpartition(".")
    return model.get_submodule(block.rpartition(".")[0]) if block else None


def _first(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
