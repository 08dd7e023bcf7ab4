"""A checkpoint's configuration: read, refused where it cannot be computed, freed of the needless.

A configuration also says how its publisher trained the model and looked into it. What decides no
logit is set to what inference needs, and `Checkpoint.normalised` says so. Dropout and router noise
stay: a model in eval mode has neither, but for PhiMoE, whose router compares with
`router_jitter_noise` whenever it chooses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe import deepseek
from mbench.moe.load_errors import legible, naming, unsupported_in_one_line
from mbench.moe.quantised.form import Form
from mbench.moe.quantised.forms import form_of, settings_of
from mbench.storage.checkpoint_files import ADAPTER

NEEDED: Mapping[str, bool] = {
    "output_router_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "use_cache": True,
}
"""Fields that only decide what a forward pass hands out, with the values that mbench needs.

Some matter: with `output_router_logits` most families compute a loss of the router even where
nothing is trained, and fail once experts are gone.
"""
ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
EXPERTS = ("experts_implementation", "_experts_implementation", "_experts_implementation_internal")
REFUSED: Mapping[str, str] = {
    "pruned_heads": "attention heads were pruned, which transformers no longer does",
    "is_encoder_decoder": "an encoder comes before the language model",
    "add_cross_attention": "an encoder is attended to",
}
"""Fields that change what is computed, and what a value other than none or false stands for."""
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
EXPERTS_COUNTED = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
MOST: Mapping[str, int] = {**dict.fromkeys(LAYERS, 1000), **dict.fromkeys(EXPERTS_COUNTED, 100_000)}
"""Fields whose number decides how long a model takes to lay out, far above any that is known."""
TOKENS = ("bos_token_id", "eos_token_id")
HARMLESS = {*TOKENS, "pad_token_id", "use_cache", "max_length"}
"""What lm-eval gives for every request, or what decides no token."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose configuration has been read."""

    place: str
    """The folder."""
    model_type: str
    """`model_type` in its config.json."""
    config: PreTrainedConfig
    """For the class of transformers that computes the model."""
    generation: GenerationConfig
    """The tokens that generation starts and ends with, and nothing else: decoding is greedy."""
    code: dict[str, Any]
    """Options of `from_pretrained`: whether the model's own code may run."""
    normalised: tuple[str, ...]
    """What its files ask for and does not happen, in words."""
    form: Form | None = None
    """In which form its weights are stored; None: as plain numbers."""

    @property
    def num_experts(self) -> int | None:
        """Routed experts of a layer, as its configuration says; None where it has no such field."""
        text = self.config.get_text_config()
        return next((getattr(text, name) for name in EXPERTS_COUNTED if hasattr(text, name)), None)

    @property
    def is_deepseek(self) -> bool:
        """Whether it is the first DeepSeek-MoE, which transformers has no class for."""
        return self.model_type == deepseek.MODEL_TYPE


PRUNED = "mbench_pruned"
"""`model_type` of models that mbench wrote in its own form; see `mbench.moe.pruned_form`."""


def read_config(folder: str, trust_remote_code: bool, name: str = "config.json") -> Checkpoint:
    """Read config.json, or a file of another name, and generation_config.json; no weights.

    Raises `ModelNotFound` if there is no configuration, `UnsupportedModel` for one that cannot be
    treated.
    """
    if not Path(folder, name).is_file():
        problem = f"{name} is missing" if Path(folder).is_dir() else "no such directory"
        raise ModelNotFound(f"model {folder}: {problem}")
    if Path(folder, ADAPTER).is_file():
        raise UnsupportedModel(
            f"model {folder} has an adapter ({ADAPTER}), which transformers would load into its"
            " weights where peft is installed: merge it, or take the file away"
        )
    code: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    with legible(folder), unsupported_in_one_line(folder):
        # A folder means its config.json; the path of a file is taken as it is.
        place = folder if name == "config.json" else str(Path(folder, name))
        raw, _ = PreTrainedConfig.get_config_dict(place)
        _refuse(folder, raw, trust_remote_code)
        with naming(folder):
            settings = settings_of(Path(folder), raw)
            form = None if settings is None else form_of(settings)
        config: PreTrainedConfig
        if deepseek.is_deepseek(raw):
            if trust_remote_code:
                raise UnsupportedModel(
                    f"model {folder} is computed by transformers' own code and never by the "
                    "code that comes with it; leave trust_remote_code out"
                )
            with naming(folder):
                config = deepseek.qwen2_moe_config(raw)
        else:
            if trust_remote_code:
                _refuse_code_from_elsewhere(folder, raw)
            # Given here because some values are refused while the configuration is built.
            needless = {"attn_implementation": None, "output_attentions": False}
            config = AutoConfig.from_pretrained(place, **needless, **code)
        generation, dropped = _generation(folder, raw, config)
        normalised = (*_normalise(config, raw), *dropped)
        if form:
            normalised += tuple(_unquantised(config, form))
    model_type = raw.get("model_type", config.model_type)
    return Checkpoint(folder, model_type, config, generation, code, normalised, form)


def positions_of(config: PreTrainedConfig) -> int | None:
    """The most tokens that a model accepts; None where its configuration has no limit.

    Beyond `max_position_embeddings` where rope scaling says so: YaRN and dynamic scaling start from
    the positions before it, other kinds from those after it. A sliding window is no limit.
    """
    text = config.get_text_config()
    known: int | None = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None)
    if known is None or not isinstance(rope, dict) or not rope.get("factor"):
        return known
    original = rope.get("original_max_position_embeddings") or known
    extended = rope.get("rope_type") in ("yarn", "dynamic")
    return max(known, math.floor(original * rope["factor"])) if extended else known


def turned_by_longest(config: PreTrainedConfig, longest: int) -> bool:
    """Whether rows of up to `longest` tokens, read together, all get the rotary angles of the
    longest one, and so not those that each gets alone."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if each.get("rope_type") in ("dynamic", "longrope"):
            first = each.get("original_max_position_embeddings") or text.max_position_embeddings
            if longest > first:
                return True
    return False


def _refuse(folder: str, raw: Mapping[str, Any], trust_remote_code: bool) -> None:
    text = {**raw, **(raw.get("text_config") or {})}
    for field, meaning in REFUSED.items():
        if text.get(field):
            raise UnsupportedModel(f"model {folder} with {field} in config.json: {meaning}")
    for field, most in MOST.items():
        count = text.get(field)
        if isinstance(count, int) and count > most:
            raise UnsupportedModel(
                f"model {folder} with {field} {count} in config.json: at most {most} are read"
            )
    positions = text.get("max_position_embeddings")
    if isinstance(positions, int) and positions < 1:
        raise UnsupportedModel(
            f"model {folder} with max_position_embeddings {positions} in config.json: it must be"
            " at least 1"
        )
    model_type = raw.get("model_type")
    if model_type == PRUNED:
        raise UnsupportedModel(
            f"model {folder} is a pruned model in mbench's own form, which cannot be pruned again;"
            " mbench.load_pruned loads it"
        )
    known = deepseek.is_deepseek(raw) or model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not known and not trust_remote_code and raw.get("auto_map"):
        raise UnsupportedModel(
            f"model {folder}: transformers {transformers.__version__} cannot build it without "
            f"the model's own code, which the suite does not trust (no class for {model_type!r})"
        )


def _refuse_code_from_elsewhere(folder: str, config: dict[str, Any]) -> None:
    """A hash of the model's files does not pin another repository's code."""
    for settings in (config, get_tokenizer_config(folder)):
        auto_map = settings.get("auto_map") or {}
        for entry in auto_map.values() if isinstance(auto_map, dict) else auto_map:
            for reference in entry if isinstance(entry, list | tuple) else (entry,):
                if reference and "--" in reference:
                    raise UnsupportedModel(
                        f"model {folder}: its code is in another repository "
                        f"({reference.partition('--')[0]}), at a commit that the model does not pin"
                    )


def _normalise(config: PreTrainedConfig, raw: Mapping[str, Any]) -> Iterator[str]:
    """Change what inference does not need; yields it in words, where config.json asked for it."""
    text = {**raw, **(raw.get("text_config") or {})}
    config._attn_implementation = None
    config._experts_implementation = None
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is None:
            continue
        for field, value in NEEDED.items():
            if hasattr(part, field):
                setattr(part, field, value)
        pad, rows = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(rows, int) and not 0 <= pad < rows:
            # Rows of padding are never looked up: transformers only keeps them out of training.
            part.pad_token_id = None
            yield f"pad_token_id {pad} is ignored: the embedding has {rows} rows"
    for field, value in NEEDED.items():
        if text.get(field, value) not in (value, None):
            yield f"{field}: {json.dumps(text[field])} is ignored: it changes no figure"
    for fields, instead in (
        (ATTENTION, "`attention` in the suite decides"),
        (EXPERTS, "experts are computed as transformers does by default"),
    ):
        asked = next((text[field] for field in fields if text.get(field)), None)
        if asked is not None:
            yield f"{fields[0]}: {json.dumps(asked)} is ignored: {instead}"


def _unquantised(config: PreTrainedConfig, form: Form) -> Iterator[str]:
    """Make it the configuration of plain weights, which alone transformers sees."""
    for part in (config, config.get_text_config()):
        for field in ("quantization_config", "compression_config"):
            if hasattr(part, field):
                delattr(part, field)
    if config.dtype is None and config.get_text_config().dtype is None:
        config.dtype = torch.bfloat16
        yield "config.json names no dtype: weights are computed in bfloat16"
    if form.activations:
        yield f"activations are not quantised: the checkpoint asks for {form.activations}"


def _generation(
    folder: str, raw: Mapping[str, Any], config: PreTrainedConfig
) -> tuple[GenerationConfig, tuple[str, ...]]:
    """The special tokens of generation, and in words what else its configuration asks for.

    lm-eval passes what a task asks for; whatever else a checkpoint sets would change the answers
    of some models and not of others.
    """
    name = "generation_config.json"
    file = Path(folder, name)
    settings = dict(raw)
    if not file.is_file():
        name = "config.json"
    else:
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(settings, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise UnsupportedModel(f"model {folder}: {name} is not JSON ({error})") from None
    for token in TOKENS:
        ids = settings.get(token)
        for each in ids if isinstance(ids, list) else [ids]:
            if each is not None and type(each) is not int:
                raise UnsupportedModel(f"model {folder}: {name}: {token} is {each!r}, no id")
    defaults = GenerationConfig._get_default_generation_params()
    asked = [
        f"{field} {json.dumps(settings[field])}"
        for field in sorted(set(GenerationConfig().to_dict()) - HARMLESS)
        if not field.startswith(("_", "transformers"))
        and settings.get(field) not in (None, False, defaults.get(field))
        # Some families have a field of the same name: `top_k`.
        and not (name == "config.json" and hasattr(config, field))
    ]
    instead = "how to generate is up to a task's file, or to its `generation` in the suite"
    words = f"{', '.join(asked)} in {name}: ignored; {instead}"
    tokens = GenerationConfig(**{token: settings.get(token) for token in TOKENS})
    return tokens, (words,) if asked else ()
