"""Loads a model and its tokenizer, and turns every foreseeable failure into one clear line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.model_facts import DTYPE_BYTES, ModelFacts
from mbench.core.suite_values import AttentionName, DtypeName, ExpertsKept
from mbench.moe import deepseek
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.config import Checkpoint, positions_of, read_config
from mbench.moe.keep_stored import KeptWeights, form_to_keep, keeping
from mbench.moe.load_errors import legible, naming, readable, unsupported_in_one_line
from mbench.moe.offload import DeviceMap, Placement, device_map_for, folder_for, settle
from mbench.moe.preserved import gates_when_pruned
from mbench.moe.quantised.fp8 import Fp8
from mbench.moe.quantised.in_transformers import reading, stored_files
from mbench.moe.quantised.reader import StoredWeights
from mbench.moe.rotary import forget_longest
from mbench.moe.router import fewest_experts
from mbench.moe.tokenizer import load_tokenizer
from mbench.storage.checkpoints import refuse_incomplete


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode whose parameters need no gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layers: tuple[MoELayer, ...]
    facts: ModelFacts


def describe(folder: str, *, trust_remote_code: bool = False) -> ModelFacts:
    """Return the facts of a model from its configuration alone.

    Raises `ModelNotFound` if there is no configuration, `UnsupportedModel` if the model is stored
    in a form that is not read, cannot be pruned correctly, or has no native class in transformers,
    unless its own code is trusted.
    """
    return _describe(read_config(folder, trust_remote_code))


def skeleton(folder: str) -> PreTrainedModel:
    """Return the model without its weights, on the meta device; raises what `describe` raises.

    Its class is the one that knows the names in the checkpoint; a model's own code is never run.
    """
    return skeleton_of(read_config(folder, trust_remote_code=False))


def skeleton_of(checkpoint: Checkpoint) -> PreTrainedModel:
    """The same from a configuration that has been read."""
    if isinstance(checkpoint.config, Qwen2MoeConfig) and checkpoint.is_deepseek:
        with torch.device("meta"):
            return deepseek.DeepseekForCausalLM(checkpoint.config)
    return _without_weights(checkpoint)


def load(
    folder: str,
    *,
    dtype: DtypeName = "auto",
    attention: AttentionName = "auto",
    device: Placement = "auto",
    trust_remote_code: bool = False,
    experts: ExpertsKept = "computed",
) -> LoadedModel:
    """Load a model onto a device, or onto several as a map of module paths says.

    "auto" is the first CUDA device, or the CPU without one. A model that does not fit there is
    spread over all devices, and what does not fit on these either is kept in the CPU's memory, or
    on disk (in the directory for temporary files), and loaded for every use.

    Attention and generation are as `attention` and the tasks say, whatever the checkpoint asks for
    (see `mbench.moe.config`). With `experts` "stored", those of a checkpoint in FP8 stay in memory
    as they are stored, and compute the same; see `mbench.moe.quantised.stored_experts`.

    Everything that can be refused is refused before weights are read. Raises `ModelNotFound` for
    missing, incomplete or damaged files, and what `describe` raises.
    """
    checkpoint = read_config(folder, trust_remote_code)
    facts = _describe(checkpoint)
    refuse_incomplete(Path(folder))
    with legible(folder):
        tokenizer, _ = load_tokenizer(checkpoint, facts.vocabulary)
    computed_in = getattr(torch, facts.computed_in(dtype))
    bits = facts.parameters * torch.finfo(computed_in).bits
    with naming(folder):
        implementation = facts.attention(attention)
        if experts == "stored":
            form_to_keep(checkpoint.form)
            stored = facts.expert_parameters * facts.num_experts * len(facts.layers)
            bits -= stored * (torch.finfo(computed_in).bits - 8)
    model_class = deepseek.DeepseekForCausalLM if checkpoint.is_deepseek else AutoModelForCausalLM
    device_map = device_map_for(device, bits // 8)
    if experts == "stored":
        model = _load_stored(checkpoint, dtype, implementation, device_map, computed_in)
    else:
        model = load_weights(checkpoint, model_class, dtype, implementation, device_map)
    layers = tuple(find_moe_layers(model))
    if experts == "stored" and any(each.is_meta for each in model.parameters()):
        raise UnsupportedModel(
            f"model {folder}: experts: stored needs devices with room for the whole model"
        )
    settle(model, layers)
    forget_longest(model)
    model.eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, layers, facts)


def _load_stored(
    checkpoint: Checkpoint,
    dtype: DtypeName,
    attention: str,
    device_map: DeviceMap,
    computed_in: torch.dtype,
) -> PreTrainedModel:
    model_class = type(skeleton := skeleton_of(checkpoint))
    files = stored_files(checkpoint.place, checkpoint.form)
    with naming(checkpoint.place):
        weights = KeptWeights(files, form_to_keep(checkpoint.form), skeleton)
    kept = keeping(model_class, weights, computed_in)
    model = load_weights(checkpoint, kept, dtype, attention, device_map, weights=weights)
    model.__class__ = Qwen2MoeForCausalLM if checkpoint.is_deepseek else model_class
    return model


def _without_weights(checkpoint: Checkpoint) -> PreTrainedModel:
    config, trusted = checkpoint.config, checkpoint.code["trust_remote_code"]
    own_code = getattr(config, "auto_map", None)
    remote_class = own_code.get("AutoModelForCausalLM") if isinstance(own_code, dict) else None
    model: PreTrainedModel
    with torch.device("meta"), unsupported_in_one_line(checkpoint.place):
        if trusted and remote_class:
            model_class = get_class_from_dynamic_module(remote_class, checkpoint.place)
            model = model_class(config)
        else:
            # Without the argument transformers would ask the user on the terminal.
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    return model


def _describe(checkpoint: Checkpoint) -> ModelFacts:
    config = checkpoint.config
    text_config = config.get_text_config()
    dtype = str(config.dtype or text_config.dtype or torch.float32).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise UnsupportedModel(
            f"model {checkpoint.place} is stored in {dtype}, in which mbench does not compute "
            f"(valid: {', '.join(DTYPE_BYTES)})"
        )
    model = _without_weights(checkpoint)
    with naming(checkpoint.place):
        layers = find_moe_layers(model)
    first = layers[0]
    for layer in layers:
        if not 1 <= layer.top_k <= layer.num_experts:
            raise UnsupportedModel(
                f"model {checkpoint.place}: a token chooses {layer.top_k} of {layer.num_experts}"
                " experts, as its config.json says"
            )
    sizes = [_expert_parameters(layer) for layer in layers]
    if len(set(sizes)) > 1:
        raise UnsupportedModel(
            f"model {checkpoint.place}: an expert has {min(sizes)} parameters in some layers and"
            f" {max(sizes)} in others"
        )
    return ModelFacts(
        model_type=checkpoint.model_type,
        architecture=type(model).__name__,
        layers=tuple(layer.path for layer in layers),
        num_experts=first.num_experts,
        top_k=first.top_k,
        hidden_size=text_config.hidden_size,
        parameters=count_parameters(model, checkpoint.model_type),
        expert_parameters=sizes[0],
        dtype=dtype,
        groups=first.groups,
        positions=positions_of(config),
        vocabulary=embedding_rows(model),
        attentions=("sdpa", "eager") if model._supports_sdpa else ("eager",),
        normalised=checkpoint.normalised,
        stored_form=checkpoint.form.words if checkpoint.form else "",
        may_stay_stored=isinstance(checkpoint.form, Fp8),
        gates=gates_when_pruned(first),
        fewest_experts=max(fewest_experts(layer) for layer in _one_per_router_class(layers)),
    )


def _expert_parameters(layer: MoELayer) -> int:
    tensors = (getattr(layer.experts, name) for name in layer.expert_tensors)
    return sum(tensor[0].numel() for tensor in tensors)


def embedding_rows(model: PreTrainedModel) -> int:
    """Token ids that have both an embedding and a logit."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = (getattr(layer, "weight", None) for layer in layers)
    return min((len(table) for table in tables if table is not None), default=0)


def _one_per_router_class(layers: Sequence[MoELayer]) -> Iterable[MoELayer]:
    return {type(layer.router): layer for layer in layers}.values()


def count_parameters(model: PreTrainedModel, model_type: str) -> int:
    """Parameters, tied ones counted once, without those added to DeepSeek-MoE (see there)."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not (model_type == deepseek.MODEL_TYPE and name.endswith(deepseek.ADDED))
    )


def load_weights(
    checkpoint: Checkpoint,
    model_class: Any,
    dtype: DtypeName,
    attention: str,
    device_map: DeviceMap,
    variant: str | None = None,
    weights: StoredWeights | None = None,
) -> PreTrainedModel:
    """Let a class of transformers load a checkpoint, whole or not at all.

    `variant` is what its files are called by, if they have no usual names; `weights` reads them
    in another way than as numbers.

    Raises `ModelNotFound` for tensors that are missing, unknown or damaged, and `UnsupportedModel`
    where weights contradict the configuration.
    """
    place = checkpoint.place
    model: PreTrainedModel
    with naming(place):
        if weights is None:
            weights = StoredWeights(stored_files(place, checkpoint.form, variant), checkpoint.form)
    with (
        legible(place),
        readable(place),
        naming(place),
        reading(weights),
        folder_for(device_map) as (folder, keep_for),
    ):
        model, report = model_class.from_pretrained(
            place,
            config=checkpoint.config,
            generation_config=checkpoint.generation,
            dtype=dtype,
            attn_implementation=attention,
            device_map=device_map,
            offload_folder=folder,
            variant=variant,
            **({} if checkpoint.is_deepseek else checkpoint.code),
            output_loading_info=True,
        )
        keep_for(model)
    # transformers fills missing tensors with random numbers, ignores unknown ones, and goes on.
    for keys, verb in (("missing_keys", "lack"), ("unexpected_keys", "have unknown")):
        if names := sorted(report[keys]):
            raise ModelNotFound(
                f"model {place}: the weights {verb} {len(names)} tensors, e.g. {names[0]}"
            )
    _refuse_untied(place, model)
    return model


def _refuse_untied(place: str, model: PreTrainedModel) -> None:
    """transformers leaves tensors apart that the configuration ties, if they differ."""
    for tied, owner in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        first, second = model.get_parameter(owner), model.get_parameter(tied)
        if first is second or "meta" in (first.device.type, second.device.type):
            continue
        if not torch.equal(first.to(second.device), second):
            raise UnsupportedModel(
                f"model {place}: config.json says tie_word_embeddings, but {tied} and {owner}"
                " differ in the weights: which is meant cannot be told"
            )
