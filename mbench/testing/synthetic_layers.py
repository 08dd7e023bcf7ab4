"""The layers of synthetic models, and how their weights are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import OlmoeConfig, PreTrainedModel
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

HIDDEN, INNER, VOCABULARY = 12, 8, 32
SUPER_TOKEN = 3
"""Only tokens of this id are routed to the super expert."""
LENGTHS = (16, 13, 16, 9, 16, 16, 11, 16)
"""Of a corpus's sequences; what is missing to the longest is padding."""


@dataclass(frozen=True)
class Size:
    """Of a synthetic model."""

    layers: int
    experts: int
    top_k: int

    def __str__(self) -> str:
        """In words, for messages."""
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        return f"{layers} of {self.experts} experts, {self.top_k} per token"


COMMON_SIZE = Size(layers=2, experts=8, top_k=2)


class _Halved(nn.Module):
    """In the place of a norm, and exact."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden / 2


class _Decoder(nn.Module):
    """A residual stream, to which an MoE block adds its output."""

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__()
        self.norm = _Halved()
        self.mlp = OlmoeSparseMoeBlock(config)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = stream + self.mlp(self.norm(stream))
        return outputs


class SyntheticLayers(PreTrainedModel):
    """MoE layers beside each other."""

    config_class = OlmoeConfig
    base_model_prefix = ""

    def __init__(self, config: OlmoeConfig) -> None:
        super().__init__(config)
        count = config.num_hidden_layers
        self.words = nn.ParameterList(torch.zeros(VOCABULARY, HIDDEN) for _ in range(count))
        self.places = nn.ParameterList(torch.zeros(max(LENGTHS), HIDDEN) for _ in range(count))
        self.layers = nn.ModuleList(_Decoder(config) for _ in range(count))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        """Return each layer's outputs, [sequences, length, H]."""
        inputs = zip(self.words, self.places, strict=True)
        streams = [words[input_ids] + places[: input_ids.shape[1]] for words, places in inputs]
        return [layer(2 * each) for layer, each in zip(self.layers, streams, strict=True)]

    @property
    def blocks(self) -> list[Any]:
        """The MoE blocks, each with a router `gate` and `experts`."""
        return [layer.mlp for layer in self.layers]


def drawn(size: Size, seed: int, renormalised: bool) -> Any:
    """A model with random weights."""
    config = OlmoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=size.layers,
        num_experts=size.experts,
        num_experts_per_tok=size.top_k,
        norm_topk_prob=renormalised,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = SyntheticLayers(config).requires_grad_(False)
    model.train(False)
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.parameters():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.7)
    for words, places in zip(model.words, model.places, strict=True):
        # The first dimension is 1 everywhere, the second marks one token.
        words[:, :2], places[:, :2] = 0, 0
        words[:, 0] = 1
        words[SUPER_TOKEN, 1] = 1
    return model
