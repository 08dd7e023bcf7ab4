"""What two configurations compute differently, beyond the number of experts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mbench.moe.adapter import TOP_K_FIELDS, MoELayer
from mbench.moe.config import ATTENTION, EXPERTS, NEEDED, TOKENS, Checkpoint
from mbench.moe.prune import pruned_fields

NO_MATTER = {
    *NEEDED,
    *ATTENTION,
    *EXPERTS,
    *TOKENS,
    *("pad_token_id", "sep_token_id", "eod_token_id"),
    # Of files and programs.
    *("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"),
    *("_name_or_path", "name_or_path", "model_type", "tokenizer_class", "_commit_hash"),
    *("quantization_config", "compression_config"),
    # Of training, and of what is trained on top.
    *("initializer_range", "router_aux_loss_coef", "router_z_loss_coef", "aux_loss_alpha"),
    *("attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "classifier_dropout"),
    *("seq_aux", "mtp_loss_scaling_factor", "pretraining_tp", "gradient_checkpointing"),
    *("id2label", "label2id", "problem_type", "num_labels", "task_specific_params"),
    *("chunk_size_feed_forward", "is_encoder_decoder", "is_decoder"),
    # Of layers for speculative decoding, which no class of transformers has.
    *("num_nextn_predict_layers", "mtp_layer_types", "mtp_mlp_layer_types"),
    "mtp_layers_block_type",
}
"""Fields that decide no logit of a forward pass, or are compared elsewhere; all others count."""
LONGEST = 40


def config_differences(
    full: Checkpoint, pruned: Checkpoint, layer: MoELayer, small: MoELayer
) -> Iterator[str]:
    """Say what the configuration of a pruned checkpoint changes beyond what pruning does.

    `layer` and `small` are the first of either model. Fields that are not known to be harmless
    count: nothing here tells what a family's code does with them.
    """
    kept = small.num_experts
    expected_top_k = layer.top_k_with(kept)
    if small.top_k != expected_top_k:
        yield f"top-k {small.top_k} instead of {expected_top_k}"
    dtypes = _dtype(pruned), _dtype(full)
    if dtypes[0] != dtypes[1]:
        yield "computed in {} instead of {}".format(*dtypes)
    fields = _fields(full)
    fields |= pruned_fields(fields, layer, kept)
    actual = _fields(pruned)
    skipped = NO_MATTER | (set(TOP_K_FIELDS) if small.top_k != expected_top_k else set())
    for name in sorted(fields.keys() | actual.keys()):
        if name in skipped or name.startswith("_"):
            continue
        yield from _differing(name, fields.get(name), actual.get(name))
    for token in TOKENS:
        before, now = (getattr(each.generation, token, None) for each in (full, pruned))
        yield from _differing(token, before, now)


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    fields = dict(config.get_text_config().to_dict())
    # The model's own, where its text is a part of it.
    fields["tie_word_embeddings"] = getattr(config, "tie_word_embeddings", None)
    return fields


def _dtype(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    stated = config.dtype or config.get_text_config().dtype
    return str(stated or "float32").removeprefix("torch.")


def _differing(name: str, before: Any, now: Any) -> Iterator[str]:
    """The field, or the fields in it, that are not what they were."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for each in sorted(before.keys() | now.keys(), key=str):
            yield from _differing(f"{name}.{each}", before.get(each), now.get(each))
    # A boolean is no number, a whole float is one.
    elif before != now or isinstance(before, bool) != isinstance(now, bool):
        yield f"config.json: {name} {_shown(now)} instead of {_shown(before)}"


def _shown(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
