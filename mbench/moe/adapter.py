"""Finds the Mixture-of-Experts layers of any transformers model, or says why it cannot be pruned.

transformers keeps the routed experts of a layer as 3-D parameters in one module that is called as
`experts(hidden [T, H], top_k_index [T, k], top_k_weights [T, k])`. Layers are recognised by that
module and never by the model's family, so a new family needs no code here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from mbench.core.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedConfig

    class ExpertsModule(nn.Module):
        """What transformers' experts modules have in common, for type checkers only.

        `transformers.integrations.moe.use_experts_implementation` adds the fields. The weights are
        `gate_up_proj` or `up_proj`, and `down_proj`, each with its `..._bias` if `has_bias`.
        """

        config: PreTrainedConfig
        num_experts: int
        has_gate: bool
        has_bias: bool
        has_post_expert_norm: bool
        is_transposed: bool
        is_concatenated: bool
        down_proj: torch.Tensor
        act_fn: Callable[[torch.Tensor], torch.Tensor]
        post_expert_norm: Callable[[torch.Tensor], torch.Tensor]

        def _apply_gate(self, gate_up: torch.Tensor) -> torch.Tensor: ...


ROUTER_CLASS = re.compile(r"Router|TopK|Gate(?![a-z])")
EXPERTS_CLASS = re.compile(r"(?<!Shared)Experts$")
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K_FIELDS = (
    "num_experts_per_tok",
    "top_k_experts",
    "moe_topk",
    "moe_k",
    "num_experts_per_token",
)


@dataclass(frozen=True)
class RouterTensor:
    """A parameter or buffer with one entry or row per expert."""

    owner: nn.Module
    attribute: str
    dim: int
    """The dimension that counts experts."""

    @property
    def value(self) -> torch.Tensor:
        """The tensor as it is now: full, or sliced while a mask is active."""
        tensor: torch.Tensor = getattr(self.owner, self.attribute)
        return tensor


@dataclass(frozen=True, eq=False)
class MoELayer:
    """One Mixture-of-Experts layer: N routed experts, k of them per token."""

    path: str
    """Module path of the experts, e.g. `model.layers.0.mlp.experts`."""
    experts: ExpertsModule
    router: nn.Module
    block: nn.Module
    """The module that calls the router and the experts."""
    num_experts: int
    top_k: int
    top_k_field: str | None
    """The field of `router.config` the router reads k from; None if k is its own `top_k`."""
    router_tensors: tuple[RouterTensor, ...]
    """Tensors that are sliced when experts are dropped."""
    expert_tensors: tuple[str, ...]
    """Attributes of `experts` whose first dimension counts experts."""
    groups: int = 1
    """Groups of consecutive experts that a group-limited router chooses from first."""
    groups_used: int = 1
    """Groups that a token's experts may come from."""

    def top_k_with(self, kept: int) -> int:
        """Experts per token that a router with `kept` experts can choose."""
        return min(self.top_k, kept // self.groups * self.groups_used)


def find_moe_layers(model: PreTrainedModel) -> list[MoELayer]:
    """Return the MoE layers in model order.

    Raises `UnsupportedModel` if there are none, or if any of them could not be profiled and pruned
    correctly. Works on the meta device, where weights are shapes only.
    """
    name = type(model).__name__
    blocks = {
        f"{path}.{child_name}" if path else child_name: block
        for path, block in model.named_modules()
        for child_name, child in block.named_children()
        if _uses_experts_interface(child)
    }
    _refuse_other_experts(model, blocks)
    try:
        layers = [_describe(path, block) for path, block in blocks.items()]
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{name}: {error}") from None
    for size in ("num_experts", "top_k"):
        values = sorted({getattr(layer, size) for layer in layers})
        if len(values) > 1:
            raise UnsupportedModel(f"{name}: {size} differs between layers ({values})")
    return layers


def _uses_experts_interface(module: nn.Module) -> bool:
    return hasattr(module, "_apply_gate") and hasattr(module, "is_transposed")


def _refuse_other_experts(model: PreTrainedModel, blocks: dict[str, nn.Module]) -> None:
    """Refuse experts in a form that is not known: ignoring them would prune part of a model."""
    ancestors = {path[:i] for path in blocks for i, char in enumerate(path) if char == "."}
    inside = tuple(path.rpartition(".")[0] + "." for path in blocks)
    for path, module in model.named_modules():
        kind = type(module).__name__
        if path in blocks or path in ancestors or isinstance(module, PreTrainedModel):
            continue
        counts_experts = any(
            isinstance(getattr(module, count, None), int) and getattr(module, count) > 1
            for count in EXPERT_COUNTS
        )
        holds_experts = isinstance(module, nn.ModuleList) and path.endswith(".experts")
        if (
            EXPERTS_CLASS.search(kind)
            or holds_experts
            or (counts_experts and not path.startswith(inside))
        ):
            raise UnsupportedModel(
                f"{type(model).__name__}: {path} ({kind}) does not use the experts interface of "
                "transformers, so its experts can be neither profiled nor pruned"
            )
    if not blocks:
        raise UnsupportedModel(
            f"{type(model).__name__} is not a Mixture-of-Experts model: no layer has routed experts"
        )


def _describe(path: str, block: nn.Module) -> MoELayer:
    experts = cast("ExpertsModule", block.get_submodule(path.rpartition(".")[2]))
    num_experts = int(experts.num_experts)
    if num_experts < 2:
        raise UnsupportedModel(f"{path} has {num_experts} routed expert, so none can be dropped")
    router = _find_router(path, block, experts, num_experts)
    top_k, top_k_field = _find_top_k(path, router)
    groups = int(getattr(router, "num_group", None) or 1)
    tensors = [
        RouterTensor(owner, attribute, dim)
        for owner in (*router.modules(), block)
        for attribute, tensor in _direct_tensors(owner)
        if (dim := _expert_dim(tensor, num_experts)) is not None
    ]
    _refuse_ambiguous(path, tensors)
    return MoELayer(
        path=path,
        experts=experts,
        router=router,
        block=block,
        num_experts=num_experts,
        top_k=top_k,
        top_k_field=top_k_field,
        router_tensors=tuple(tensors),
        expert_tensors=tuple(
            attribute
            for attribute, tensor in _direct_tensors(experts)
            if tensor.dim() > 0 and tensor.shape[0] == num_experts
        ),
        groups=groups,
        groups_used=int(getattr(router, "topk_group", None) or 1) if groups > 1 else 1,
    )


def _find_router(path: str, block: nn.Module, experts: nn.Module, num_experts: int) -> nn.Module:
    candidates = [
        child
        for child in block.children()
        if child is not experts and ROUTER_CLASS.search(type(child).__name__)
    ]
    for router in candidates:
        if hasattr(router, "tid2eid"):
            raise UnsupportedModel(f"{path} is routed by a table of token ids, not by scores")
        rows = {
            tensor.shape[0]
            for module in router.modules()
            for _, tensor in _direct_tensors(module)
            if tensor.dim() == 2
        }
        # Classes beyond the experts (skip, shared or zero experts) compete in the same softmax, and
        # what remains of it after slicing would not be what a smaller model computes.
        if num_experts not in rows and rows & set(range(num_experts + 1, num_experts + 9)):
            raise UnsupportedModel(
                f"{path}: the router also scores classes that are not routed experts"
            )
    candidates = [router for router in candidates if _scores_experts(router, num_experts)]
    if len(candidates) != 1:
        raise UnsupportedModel(
            f"{path}: {len(candidates)} modules of {type(block).__name__} look like its router"
        )
    return candidates[0]


def _scores_experts(router: nn.Module, num_experts: int) -> bool:
    return any(
        tensor.dim() == 2 and tensor.shape[0] == num_experts
        for module in router.modules()
        for _, tensor in _direct_tensors(module)
    )


def _find_top_k(path: str, router: nn.Module) -> tuple[int, str | None]:
    top_k = getattr(router, "top_k", None)
    if isinstance(top_k, int):
        return top_k, None
    config = getattr(router, "config", None)
    for field in TOP_K_FIELDS:
        top_k = getattr(config, field, None)
        if isinstance(top_k, int):
            return top_k, field
    raise UnsupportedModel(
        f"{path}: {type(router).__name__} has neither `top_k` nor one of the configuration's"
        f" fields for it ({', '.join(TOP_K_FIELDS)})"
    )


def _direct_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _expert_dim(tensor: torch.Tensor, num_experts: int) -> int | None:
    if tensor.dim() > 0 and tensor.shape[0] == num_experts:
        return 0
    if tensor.dim() == 2 and tuple(tensor.shape) == (1, num_experts):
        return 1
    return None


def _refuse_ambiguous(path: str, tensors: list[RouterTensor]) -> None:
    """If the hidden size equals N, a vector of that length may belong to either."""
    square = any(set(tensor.value.shape[1:]) == {tensor.value.shape[0]} for tensor in tensors)
    if square and len(tensors) > 1:
        raise UnsupportedModel(
            f"{path}: as many experts as hidden dimensions, so the router's tensors are ambiguous"
        )
