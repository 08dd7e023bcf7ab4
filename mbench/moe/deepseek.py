"""DeepSeek-MoE (`model_type: deepseek`, arXiv 2401.06066) as the Qwen2-MoE of transformers.

transformers has no class for it. The two architectures differ in names and in one factor:
Qwen2-MoE multiplies the shared expert by sigmoid(g x), where DeepSeek-MoE adds it as it is. With
g = 0 that factor is 1/2, so doubled `down_proj` weights of the shared expert give the same output,
bit for bit, because a power of two only changes exponents. One rounding differs: in half precision
DeepSeek-MoE's own code takes the router's softmax in that precision, Qwen2-MoE in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen2MoeConfig, Qwen2MoeForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from mbench.core.errors import UnsupportedModel
from mbench.storage.safetensor_files import NewTensor

MODEL_TYPE = "deepseek"

ADDED = "mlp.shared_expert_gate.weight"
"""End of the names of tensors that only the Qwen2-MoE has; they are zero."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""What safetensors calls them."""

REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
)
# The last six belong to later models of the family; a config that sets them is not of this one.
FIXED: Mapping[str, Any] = {
    "scoring_func": "softmax",
    "moe_layer_freq": 1,
    "rope_scaling": None,
    "attention_bias": False,
    "routed_scaling_factor": 1,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": None,
    "kv_lora_rank": None,
}
"""Settings that Qwen2-MoE cannot vary, with the only value (or None) they may have."""


def is_deepseek(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of the first DeepSeek-MoE; later ones have native classes."""
    return config.get("model_type") == MODEL_TYPE


def qwen2_moe_config(config: Mapping[str, Any]) -> Qwen2MoeConfig:
    """Return the Qwen2-MoE configuration that computes what DeepSeek-MoE's config.json says.

    Raises `UnsupportedModel` naming the settings that are missing or that Qwen2-MoE cannot have.
    """
    missing = [name for name in REQUIRED if config.get(name) is None]
    if missing:
        raise UnsupportedModel(f"DeepSeek-MoE without {', '.join(missing)} is not supported")
    other = [
        f"{name} = {config[name]}"
        for name, value in FIXED.items()
        if config.get(name) is not None and config[name] != value
    ]
    if other:
        raise UnsupportedModel(f"DeepSeek-MoE with {', '.join(other)} is not supported")
    heads = config["num_attention_heads"]
    return Qwen2MoeConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        qkv_bias=False,
        hidden_act=config.get("hidden_act", "silu"),
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        max_position_embeddings=config.get("max_position_embeddings", 2048),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(config.get("rope_theta", 10000.0)),
        },
        intermediate_size=config["intermediate_size"],
        mlp_only_layers=list(range(config.get("first_k_dense_replace", 0))),
        decoder_sparse_step=1,
        num_experts=config["n_routed_experts"],
        num_experts_per_tok=config["num_experts_per_tok"],
        # A single expert's gate is not renormalised there.
        norm_topk_prob=config.get("norm_topk_prob", False) and config["num_experts_per_tok"] > 1,
        moe_intermediate_size=config["moe_intermediate_size"],
        shared_expert_intermediate_size=config["n_shared_experts"]
        * config["moe_intermediate_size"],
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        initializer_range=config.get("initializer_range", 0.02),
        pad_token_id=config.get("pad_token_id"),
        bos_token_id=config.get("bos_token_id"),
        eos_token_id=config.get("eos_token_id"),
        dtype=config.get("dtype") or config.get("torch_dtype"),
    )


def qwen2_moe_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.json of that Qwen2-MoE; raises what `qwen2_moe_config` raises."""
    translated = qwen2_moe_config(config)
    translated.architectures = [Qwen2MoeForCausalLM.__name__]
    fields: dict[str, Any] = json.loads(translated.to_json_string())
    return fields


def load_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a DeepSeek-MoE checkpoint.

    Its files name LlamaTokenizerFast, which used to put the begin-of-sequence token before every
    text where the configuration asks for it. transformers 5 follows tokenizer.json alone, which has
    no such step, so both settings are passed. Texts encoded without special tokens have none.
    """
    settings = get_tokenizer_config(folder)
    added = {key: settings[key] for key in ("add_bos_token", "add_eos_token") if key in settings}
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, **added)
    return tokenizer


class DoubleSharedExpert(ConversionOps):
    """The shared expert's `down_proj` [H, I] -> the same doubled, and a gate [1, H] of zeros."""

    @torch.no_grad()
    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **unused: Any,
    ) -> dict[str, list[torch.Tensor]]:
        """Convert what the loader collected for one layer; the base class has the contract."""
        ((down_proj,),) = input_dict.values()
        doubled = _doubled(source_patterns[0], down_proj)
        gate = doubled.new_zeros(1, len(doubled))
        return {target_patterns[0]: [doubled], target_patterns[1]: [gate]}


class DeepseekForCausalLM(Qwen2MoeForCausalLM):
    """Reads DeepSeek-MoE's tensors; what it loads is turned into a plain `Qwen2MoeForCausalLM`.

    The class exists because transformers finds the conversions of tensors by a class's name.
    """

    # transformers looks for its decorator in the source of the class's module, here this file, does
    # not find it, and would choose the slowest implementation of the experts.
    _can_set_experts_implementation_cached_value = True

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """Load as `PreTrainedModel.from_pretrained` does; needs `config` and gives Qwen2-MoE."""
        loaded = super().from_pretrained(*args, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.__class__ = Qwen2MoeForCausalLM
        model.config.architectures = [Qwen2MoeForCausalLM.__name__]
        # Saving would apply the conversions backwards, and then not fit the configuration.
        del model._weight_conversions
        return loaded


# Routed experts have the same names in both, and transformers merges them for either.
register_checkpoint_conversion_mapping(
    DeepseekForCausalLM.__name__,
    [
        WeightRenaming(r"\.shared_experts\.gate_proj\.", ".shared_expert.gate_proj."),
        WeightRenaming(r"\.shared_experts\.up_proj\.", ".shared_expert.up_proj."),
        WeightConverter(
            "mlp.shared_experts.down_proj.weight",
            ["mlp.shared_expert.down_proj.weight", "mlp.shared_expert_gate.weight"],
            [DoubleSharedExpert()],
        ),
    ],
)


def qwen2_moe_tensors(tensors: Iterable[NewTensor]) -> list[NewTensor]:
    """Return the tensors of a DeepSeek-MoE checkpoint as those of the Qwen2-MoE's.

    They are read and changed piece by piece when they are written. Raises `UnsupportedModel` for
    shared experts in a dtype that cannot be doubled; writing does so where a number is too large.
    """
    made = []
    for tensor in tensors:
        name = tensor.name.replace(".mlp.shared_experts.", ".mlp.shared_expert.")
        if not name.endswith(".mlp.shared_expert.down_proj.weight"):
            made.append(replace(tensor, name=name))
            continue
        stored = tensor.stored
        if stored.dtype not in DTYPES:
            raise UnsupportedModel(f"{tensor.name} in {stored.dtype} is not supported")
        double = partial(_doubled_bytes, tensor.name, DTYPES[stored.dtype])
        made.append(replace(tensor, name=name, change=double))
        hidden, inner = stored.shape
        # Of what is copied only the length matters.
        gate = replace(stored, shape=(1, hidden), size=stored.size // inner)
        layer = name.removesuffix("mlp.shared_expert.down_proj.weight")
        made.append(NewTensor(layer + ADDED, gate, change=_zero_bytes))
    return made


def _doubled_bytes(name: str, dtype: torch.dtype, data: bytes) -> bytes:
    numbers = torch.frombuffer(bytearray(data), dtype=dtype)
    return _doubled(name, numbers).view(torch.uint8).numpy().tobytes()


def _zero_bytes(data: bytes) -> bytes:
    return bytes(len(data))


def _doubled(name: str, numbers: torch.Tensor) -> torch.Tensor:
    doubled = numbers * 2
    if doubled.isinf().any():
        raise UnsupportedModel(f"{name} is too large to be doubled in {numbers.dtype}")
    return doubled
