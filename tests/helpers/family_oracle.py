"""Routers and experts of all families, written again in float64, one token at a time.

A family says with a `Router` and an `Experts` how it computes; nothing of mbench takes part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn


def softmax(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def array(module: nn.Module, path: str) -> np.ndarray:
    """A parameter or buffer by its dotted path, without dimensions of one."""
    owner, _, name = path.rpartition(".")
    tensor = getattr(module.get_submodule(owner), name)
    return tensor.detach().double().numpy().squeeze()


@dataclass(frozen=True)
class Router:
    """How a family chooses experts and weights them; paths are relative to the block."""

    score: str
    """`softmax`, `sigmoid`, `sparsemixer`, or the config field that holds one of them."""
    renormalised: bool | str = False
    """Whether gates are divided by their sum; a string is the config field that says so."""
    bias: str | None = None
    """Added for the choice only."""
    bias_on_logits: bool = False
    logit_bias: str | None = None
    scale: str | None = None
    """The config field of a factor of all gates."""
    expert_scale: str | None = None
    softcap: str | None = None
    groups: Literal["two best", "best", None] = None
    """By how many experts the groups are ranked, in families that can limit tokens to groups."""
    module: str = "gate"
    weight: str = "gate.weight"
    prepare: Callable[[nn.Module, np.ndarray], np.ndarray] = lambda block, hidden: hidden

    def renormalises(self, config: Any) -> bool:
        if isinstance(self.renormalised, str):
            return getattr(config, self.renormalised)
        return self.renormalised

    def vectors(self) -> list[str]:
        return [path for path in (self.bias, self.logit_bias, self.expert_scale) if path]

    def logits(self, block: nn.Module, config: Any, hidden: np.ndarray) -> np.ndarray:
        """Logits [N] of one token's hidden [H]."""
        logits = array(block, self.weight) @ self.prepare(block, hidden)
        if self.logit_bias:
            logits = logits + array(block, self.logit_bias)
        limit = getattr(config, self.softcap) if self.softcap else 0
        return np.tanh(logits / limit) * limit if limit else logits

    def route(
        self, block: nn.Module, config: Any, hidden: np.ndarray, top_k: int, keep: np.ndarray
    ) -> tuple[list[int], np.ndarray]:
        """Experts and gates of one token's hidden [H], choosing among `keep` (bool [N])."""
        logits = self.logits(block, config, hidden)
        if self.score == "sparsemixer":
            return sparsemixer(logits, config.router_jitter_noise)
        name = getattr(config, self.score, self.score)
        score = {"softmax": softmax, "sigmoid": sigmoid}[name](logits)
        worth = logits if self.bias_on_logits else score
        if self.bias:
            worth = worth + array(block, self.bias)
        worth = np.where(keep & self._admitted(config, worth), worth, -np.inf)
        chosen = sorted(range(len(worth)), key=lambda expert: -worth[expert])
        chosen = chosen[: min(top_k, int(np.isfinite(worth).sum()))]
        gates = score[chosen]
        if self.renormalises(config):
            gates = gates / gates.sum()
        if self.scale:
            gates = gates * getattr(config, self.scale)
        if self.expert_scale:
            gates = gates * array(block, self.expert_scale)[chosen]
        return chosen, gates

    def _admitted(self, config: Any, worth: np.ndarray) -> np.ndarray:
        count = getattr(config, "n_group", 1) or 1
        if self.groups is None or count == 1:
            return np.ones(len(worth), dtype=bool)
        groups = np.split(worth, count)
        depth = 2 if self.groups == "two best" else 1
        rank = [np.sort(group)[-depth:].sum() for group in groups]
        best = np.argsort(rank)[-config.topk_group :]
        return np.repeat(np.isin(np.arange(count), best), len(worth) // count)


def sparsemixer(logits: np.ndarray, jitter: float) -> tuple[list[int], np.ndarray]:
    """Two experts, each weighted by a softmax over those close to it (arXiv 2409.12136, eval)."""
    chosen, gates = [], []
    left = np.ones(len(logits), dtype=bool)
    for _ in range(2):
        best = max(np.flatnonzero(left), key=lambda expert: logits[expert])
        top = logits[best]
        near = left & ((top - logits) / np.maximum(np.abs(logits), top) <= 2 * jitter)
        chosen.append(int(best))
        gates.append(1 / np.exp(logits[near] - top).sum())
        left[best] = False
    return chosen, np.array(gates)


def silu(values):
    return values * sigmoid(values)


def gelu(values):
    return values / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (values + 0.044715 * values**3)))


def gated(config, inner):
    gate, up = np.split(inner, 2)
    return silu(gate) * up


def gelu_gated(config, inner):
    gate, up = np.split(inner, 2)
    return gelu(gate) * up


def squared_relu(config, inner):
    return np.maximum(inner, 0) ** 2


def clamped_silu(config, inner):
    gate, up = np.split(inner, 2)
    limit = config.swiglu_limit
    return silu(np.minimum(gate, limit)) * np.clip(up, -limit, limit)


def clamped_swish(config, inner):
    gate, up = np.split(inner, 2)
    gate, up = (
        np.minimum(gate, config.swiglu_limit),
        np.clip(up, -config.swiglu_limit, config.swiglu_limit),
    )
    return gate * sigmoid(config.swiglu_alpha * gate) * (up + 1)


def clamped_swish_interleaved(config, inner):
    return clamped_swish(config, np.concatenate((inner[::2], inner[1::2])))


def softcapped(config, inner):
    gate, up = np.split(inner, 2)
    gate_limit, up_limit = config.mlp_gate_softcap, config.mlp_up_softcap
    return (
        gate_limit * np.tanh(gate / gate_limit) * sigmoid(gate) * up_limit * np.tanh(up / up_limit)
    )


@dataclass(frozen=True)
class Experts:
    """How a family's experts compute."""

    inner: Callable[[Any, np.ndarray], np.ndarray] = gated
    transposed: bool = False
    biased: bool = False

    def output(
        self, experts: nn.Module, config: Any, expert: int, hidden: np.ndarray
    ) -> np.ndarray:
        """One expert's unweighted output for one token's hidden [H]."""
        first = "up_proj" if self.inner is squared_relu else "gate_up_proj"
        inner = self.inner(config, self._project(experts, first, expert, hidden))
        return self._project(experts, "down_proj", expert, inner)

    def _project(
        self, experts: nn.Module, name: str, expert: int, hidden: np.ndarray
    ) -> np.ndarray:
        weight = array(experts, name)[expert]
        bias = array(experts, f"{name}_bias")[expert] if self.biased else 0
        return (weight.T if self.transposed else weight) @ hidden + bias


def rms_normalised(block, hidden):
    """Gemma 4 scales a normalised copy of its input for the router."""
    router = block.router
    normalised = hidden / np.sqrt((hidden**2).mean() + router.eps)
    return normalised * array(block, "router.scale") * len(hidden) ** -0.5


def captured(model: nn.Module, modules: list[nn.Module], sequences: list[torch.Tensor]):
    """Inputs [T, H] of each module, each sequence run alone and without padding."""
    seen = {module: [] for module in modules}
    handles = [
        module.register_forward_pre_hook(lambda module, args: seen[module].append(args[0]))
        for module in modules
    ]
    for ids in sequences:
        model(input_ids=ids[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return [
        torch.cat([each.reshape(-1, each.shape[-1]) for each in seen[module]]).double().numpy()
        for module in modules
    ]
