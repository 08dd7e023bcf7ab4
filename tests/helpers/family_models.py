"""Every Mixture-of-Experts causal language model of transformers as a tiny random one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from helpers.family_oracle import (
    Experts,
    Router,
    clamped_silu,
    clamped_swish,
    clamped_swish_interleaved,
    gelu_gated,
    rms_normalised,
    softcapped,
    squared_relu,
)
from helpers.tiny_models import VOCABULARY, randomised

COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts")
HEADS = "num_attention_heads num_key_value_heads linear_num_value_heads linear_num_key_heads"
HEADS += " linear_num_heads mamba_num_heads mamba_n_heads"
WIDTHS = "head_dim v_head_dim q_lora_rank kv_lora_rank qk_rope_head_dim qk_nope_head_dim"
WIDTHS += " index_head_dim index_topk linear_key_head_dim linear_value_head_dim linear_head_dim"
WIDTHS += " mamba_head_dim mamba_d_state ssm_state_size"
INNER = "moe_intermediate_size expert_ffn_hidden_size shared_intermediate_size mamba_d_head"
INNER += " shared_expert_intermediate_size shared_experts_intermediate_size"
INNER += " moe_shared_expert_intermediate_size"
ONE = "n_shared_experts first_k_dense_replace num_dense_layers n_group topk_group n_groups"
SMALL: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **{"num_hidden_layers": 2, "num_layers": 2, "mlp_only_layers": []},
    **{"hidden_size": 32, "intermediate_size": 24, "ffn_hidden_size": 24, "index_n_heads": 2},
    **{"max_position_embeddings": 64},
    **dict.fromkeys(HEADS.split(), 4),
    **dict.fromkeys(WIDTHS.split(), 8),
    **dict.fromkeys(INNER.split(), 16),
    **dict.fromkeys(ONE.split(), 1),
}
"""Values for whichever of these fields a configuration has."""


@dataclass(frozen=True)
class Family:
    """How a model type computes, and what its tiny configuration needs beside `SMALL`."""

    router: Router
    experts: Experts = field(default_factory=Experts)
    config: dict[str, Any] = field(default_factory=dict)
    preserved: str | None = None
    """Why gates cannot be preserved, in mbench's words; None where they can."""
    logits: str | None = None
    """Why the router's logits are refused, in mbench's words; None where they are not."""


PLAIN = Family(Router("softmax", renormalised="norm_topk_prob"))
ALWAYS = Family(Router("softmax", renormalised=True))
DEEPSEEK = Family(
    Router(
        "sigmoid",
        renormalised="norm_topk_prob",
        bias="gate.e_score_correction_bias",
        scale="routed_scaling_factor",
        groups="two best",
    )
)
ROUTER = {"module": "router", "weight": "router.weight"}
SPARSE = {"mlp_layer_types": ["dense", "sparse"]}
GRANITE = Family(Router("softmax", renormalised=True, **ROUTER))
BLOCK_BIAS = Family(Router("sigmoid", renormalised=True, bias="e_score_correction_bias"))


def changed(family: Family, router: dict[str, Any] | None = None, **changes: Any) -> Family:
    router = dataclasses.replace(family.router, **router or {})
    return dataclasses.replace(family, router=router, **changes)


FAMILIES = {
    "afmoe": Family(
        Router(
            "sigmoid",
            renormalised=True,
            bias="expert_bias",
            scale="route_scale",
            module="router",
            weight="router.gate.weight",
        ),
        config={"route_scale": 1.5},
    ),
    "aria_text": changed(GRANITE, ROUTER, experts=Experts(transposed=True)),
    "axk1": DEEPSEEK,
    "axk2": DEEPSEEK,
    "bailing_hybrid": DEEPSEEK,
    "beam": changed(DEEPSEEK, {"scale": None}, config=SPARSE),
    "cohere2_moe": changed(
        ALWAYS, {"score": "expert_selection_fn"}, config={"num_shared_experts": 1}
    ),
    "deepseek_v2": Family(Router("softmax", scale="routed_scaling_factor", groups="best")),
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": DEEPSEEK,
    "dots1": DEEPSEEK,
    "dots3_note_text": DEEPSEEK,
    "ernie4_5_moe": changed(
        ALWAYS,
        {"bias": "gate.moe_statics.e_score_correction_bias"},
        preserved="are not defined for Ernie4_5_MoeTopKRouter, whose choice among the retained "
        "experts depends on the dropped ones",
    ),
    "exaone_moe": DEEPSEEK,
    "flex_olmo": PLAIN,
    "flint": Family(Router("sigmoid", renormalised="norm_topk_prob")),
    "gemma4_text": Family(
        Router(
            "softmax",
            renormalised=True,
            expert_scale="router.per_expert_scale",
            module="router",
            weight="router.proj.weight",
            prepare=rms_normalised,
        ),
        Experts(gelu_gated),
        {"enable_moe_block": True, "hidden_size_per_layer_input": 0},
        logits="returns probabilities",
    ),
    "glm4_moe": DEEPSEEK,
    "glm4_moe_lite": DEEPSEEK,
    "glm_moe_dsa": DEEPSEEK,
    "gpt_oss": Family(
        Router("softmax", renormalised=True, logit_bias="router.bias", **ROUTER),
        Experts(clamped_swish_interleaved, transposed=True, biased=True),
        {"swiglu_limit": 0.5},
    ),
    "granitemoe": GRANITE,
    "granitemoe_swa": GRANITE,
    "granitemoehybrid": GRANITE,
    "granitemoeshared": GRANITE,
    "hunyuan_v1_moe": changed(ALWAYS, {"weight": "gate.wg.weight"}),
    "hy_v3": changed(BLOCK_BIAS, {"scale": "router_scaling_factor"}, config=SPARSE),
    "hy_v4": changed(DEEPSEEK, experts=Experts(clamped_silu), config={"swiglu_limit": 0.5}),
    "inkling2_text": changed(
        DEEPSEEK,
        {"renormalised": True, "scale": "route_scale", "groups": None},
        experts=Experts(softcapped),
        config={"mlp_gate_softcap": 1.0, "mlp_up_softcap": 1.0, "swa_head_dim": 8}
        | {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "rel_extent": 16},
    ),
    "jamba": Family(Router("softmax", **ROUTER)),
    "kimi_linear": DEEPSEEK,
    "kolibri1": changed(DEEPSEEK, {"bias_on_logits": True, "scale": None, "groups": None}),
    "laguna": changed(
        DEEPSEEK,
        {
            "renormalised": True,
            "scale": None,
            "groups": None,
            "softcap": "moe_router_logit_softcapping",
        },
        config={"moe_router_logit_softcapping": 0.5, "moe_routed_scaling_factor": 1.5},
    ),
    "lfm2_moe": changed(
        DEEPSEEK,
        {"bias": "expert_bias", "groups": None},
        config={"layer_types": ["conv", "full_attention"]},
    ),
    "mellum": PLAIN,
    "mimo_v2_flash": changed(DEEPSEEK, config={"head_dim": 24, "num_key_value_heads": 2}),
    "minimax": changed(ALWAYS, config={"block_size": 16}),
    "minimax_m2": BLOCK_BIAS,
    "minimax_m3_vl_text": changed(
        DEEPSEEK,
        {"renormalised": True, "scale": None, "groups": None},
        experts=Experts(clamped_swish),
        config={"swiglu_limit": 0.5},
    ),
    "mixtral": ALWAYS,
    "nemotron_h": changed(
        DEEPSEEK,
        experts=Experts(squared_relu),
        config={"layers_block_type": ["attention", "moe", "mamba", "moe"], "moe_latent_size": 16},
    ),
    "olmoe": PLAIN,
    "phimoe": Family(
        Router("sparsemixer", **ROUTER),
        config={"num_experts_per_tok": 2, "router_jitter_noise": 0.3},
        preserved="need a router that can choose any number of experts",
        logits="does not rank",
    ),
    "qwen2_moe": PLAIN,
    "qwen3_5_moe_text": ALWAYS,
    "qwen3_moe": PLAIN,
    "qwen3_next": PLAIN,
    "qwen4_exp_text": PLAIN,
    "solar_open": DEEPSEEK,
}

COMPOSITE = {
    "dots3_note": "dots3_note_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen4_exp": "qwen4_exp_text",
}
"""Model types whose configuration has a part for text, which is what is built of them."""
OUTER = {
    "dots3_note": {
        "vision_config": {"adapter_out_dim": 32},
        "audio_config": {"adapter_out_dim": 32},
    }
}

NO_INTERFACE = "does not use the experts interface"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dbrx": (
        {"d_model": 32, "n_heads": 4, "n_layers": 1, "attn_config": {"rope_theta": 10_000.0}}
        | {"ffn_config": {"moe_num_experts": 4, "ffn_hidden_size": 16}},
        NO_INTERFACE,
    ),
    "deepseek_v4": ({"mlp_layer_types": ["moe", "hash_moe"]}, "layers.1.* table of token ids"),
    "doge": ({"is_moe": True, "num_experts": 16}, NO_INTERFACE),
    "inkling_text": ({}, "also scores classes that are not routed experts"),
    "jetmoe": ({}, NO_INTERFACE),
    "llama4_text": ({}, NO_INTERFACE),
    "longcat_flash": ({}, NO_INTERFACE),
    "zaya": ({"num_experts_per_tok": 1}, "also scores classes that are not routed experts"),
}
"""Model types that are refused: their tiny configuration, and words of the reason."""

GROUPS = {"num_experts": 16, "top_k": 5, "n_group": 4, "topk_group": 2}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere2_moe sigmoid": ("cohere2_moe", {"expert_selection_fn": "sigmoid"}),
    "deepseek_v2 grouped": ("deepseek_v2", GROUPS | {"topk_method": "group_limited_greedy"}),
    "ernie4_5_moe of 64": ("ernie4_5_moe", {"num_experts": 64, "top_k": 6}),
    "glm4_moe not renormalised": ("glm4_moe", {"norm_topk_prob": False}),
    "qwen2_moe renormalised": ("qwen2_moe", {"norm_topk_prob": True}),
} | {
    f"{name} grouped": (name, GROUPS)
    for name, family in FAMILIES.items()
    if family.router.groups == "two best"
}


def family_of(model_type: str) -> Family:
    return FAMILIES[COMPOSITE.get(model_type, model_type)]


def moe_model_types() -> set[str]:
    """Types of causal language models whose configuration speaks of experts."""
    models = Path(transformers.__file__).parent / "models"
    return {
        model_type
        for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        for file in (models / model_type_to_module_name(model_type)).glob("configuration_*.py")
        if "expert" in file.read_text(encoding="utf-8")
    }


def configuration(model_type: str, num_experts: int = 8, top_k: int = 3, **changes: Any) -> Any:
    text = COMPOSITE.get(model_type, model_type)
    own = REFUSED[text][0] if text in REFUSED else FAMILIES[text].config
    known = {each.name for each in dataclasses.fields(CONFIG_MAPPING[text])}
    values = SMALL | dict.fromkeys(COUNTS, num_experts) | dict.fromkeys(TOP_K, top_k)
    values = {name: value for name, value in values.items() if name in known} | own | changes
    if text == model_type:
        return CONFIG_MAPPING[text](**values)
    return CONFIG_MAPPING[model_type](text_config=values, **OUTER.get(model_type, {}))


def tiny_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """A random model whose routers' biases and scales are not what they are initialised with."""
    model = randomised(AutoModelForCausalLM.from_config(configuration(model_type, **changes)))
    generator = torch.Generator().manual_seed(1)
    vectors = family_of(model_type).router.vectors()
    for block in blocks(model):
        for path in vectors:
            owner, _, name = path.rpartition(".")
            vector = getattr(block.get_submodule(owner), name, None)
            if vector is not None:
                vector.copy_(torch.rand(vector.shape, generator=generator) * 0.3 + 0.1)
        for name, bias in block.experts.named_parameters():
            if name.endswith("bias"):
                bias.copy_(torch.randn(bias.shape, generator=generator) * 0.1)
    return model


def blocks(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules that hold experts, in model order."""
    return [
        model.get_submodule(name.rpartition(".")[0])
        for name, _ in model.named_modules()
        if name.endswith(".experts")
    ]
