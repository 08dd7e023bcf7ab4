"""Loads a model and its tokenizer, and turns every foreseeable failure into one clear line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2MoeConfig,
    modeling_utils,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.core.model_facts import DTYPE_BYTES, ModelFacts
from mbench.core.replaced import environment_variable, replaced
from mbench.core.suite import DtypeName
from mbench.moe import deepseek
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.load_errors import naming, reachable, readable, unsupported_in_one_line
from mbench.moe.offload import DeviceMap, Placement, device_map_for, folder_for, settle
from mbench.moe.router import fewest_experts
from mbench.storage.checkpoints import (
    config_file,
    local_directory,
    model_commit,
    tokenizer_files,
    weight_files,
)


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode whose parameters need no gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layers: tuple[MoELayer, ...]
    facts: ModelFacts


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint whose configuration has been read."""

    place: str
    """Directory or hub id."""
    revision: str | None
    model_type: str
    """`model_type` in its config.json."""
    config: PreTrainedConfig
    """For the class of transformers that computes the model."""
    code: dict[str, Any]
    """Options of `from_pretrained`: whether the model's own code may run, and of which commit."""

    @property
    def is_deepseek(self) -> bool:
        return self.model_type == deepseek.MODEL_TYPE


def describe(
    path_or_id: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> ModelFacts:
    """Return the facts of a model from its configuration alone.

    Raises `ModelNotFound` if there is no configuration, `UnsupportedModel` if the model is
    quantized, cannot be pruned correctly, or has no native class in transformers, unless its own
    code is trusted.
    """
    return _describe(_read_config(path_or_id, revision, trust_remote_code))


def skeleton(path_or_id: str, revision: str | None = None) -> PreTrainedModel:
    """Return the model without its weights, on the meta device; raises what `describe` raises.

    Its class is the one that knows the names in the checkpoint; a model's own code is never run.
    """
    checkpoint = _read_config(path_or_id, revision, trust_remote_code=False)
    if isinstance(checkpoint.config, Qwen2MoeConfig) and checkpoint.is_deepseek:
        with torch.device("meta"):
            return deepseek.DeepseekForCausalLM(checkpoint.config)
    return _without_weights(checkpoint)


def load(
    path_or_id: str,
    *,
    revision: str | None = None,
    dtype: DtypeName = "auto",
    device: Placement = "auto",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model onto a device, or onto several as a map of module paths says.

    "auto" is the first CUDA device, or the CPU without one. A model that does not fit there is
    spread over all devices, and what does not fit on these either is kept in the CPU's memory, or
    on disk (in the directory for temporary files), and loaded for every use.

    Everything that can be refused is refused before weights are read. Raises `ModelNotFound` for
    missing, unreachable, incomplete or damaged files, and what `describe` raises.
    """
    checkpoint = _read_config(path_or_id, revision, trust_remote_code)
    facts = _describe(checkpoint)
    directory = local_directory(path_or_id)
    if directory is not None:
        weight_files(directory)
        tokenizer_files(directory)
    with reachable(path_or_id):
        tokenizer = _load_tokenizer(checkpoint)
    bits = torch.finfo(getattr(torch, facts.computed_in(dtype))).bits
    model = _load_weights(checkpoint, dtype, device_map_for(device, facts.parameters * bits // 8))
    layers = tuple(find_moe_layers(model))
    settle(model, layers)
    model.eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, layers, facts)


def _read_config(path_or_id: str, revision: str | None, trust_remote_code: bool) -> _Checkpoint:
    directory = local_directory(path_or_id)
    if directory is not None:
        config_file(directory)
        revision = None
    else:
        # All files come from the same commit, and a hub that cannot be reached is noticed at once,
        # where downloading would retry for long.
        revision = model_commit(path_or_id, revision)
    code: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if trust_remote_code:
        code["code_revision"] = revision
    with reachable(path_or_id), unsupported_in_one_line(path_or_id, trust_remote_code):
        raw, _ = PreTrainedConfig.get_config_dict(path_or_id, revision=revision)
        _refuse_quantized(path_or_id, raw)
        config: PreTrainedConfig
        if deepseek.is_deepseek(raw):
            if trust_remote_code:
                raise UnsupportedModel(
                    f"model {path_or_id} is computed by transformers' own code and never by the "
                    "code that comes with it; leave trust_remote_code out"
                )
            with naming(path_or_id):
                config = deepseek.qwen2_moe_config(raw)
        else:
            if trust_remote_code:
                _refuse_code_from_elsewhere(path_or_id, revision, raw)
            config = AutoConfig.from_pretrained(path_or_id, revision=revision, **code)
    model_type = raw.get("model_type", config.model_type)
    return _Checkpoint(path_or_id, revision, model_type, config, code)


def _refuse_quantized(path_or_id: str, config: dict[str, Any]) -> None:
    text_config = config.get("text_config") or {}
    quantization = config.get("quantization_config") or text_config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedModel(
            f"model {path_or_id} is quantized ({method or 'unknown method'}): its experts "
            "cannot be profiled; use the unquantized checkpoint"
        )


def _refuse_code_from_elsewhere(
    path_or_id: str, revision: str | None, config: dict[str, Any]
) -> None:
    """Neither the model's commit nor a hash of its files pins another repository's code."""
    for settings in (config, get_tokenizer_config(path_or_id, revision=revision)):
        auto_map = settings.get("auto_map") or {}
        for entry in auto_map.values() if isinstance(auto_map, dict) else auto_map:
            for reference in entry if isinstance(entry, list | tuple) else (entry,):
                if reference and "--" in reference:
                    raise UnsupportedModel(
                        f"model {path_or_id}: its code is in another repository "
                        f"({reference.partition('--')[0]}), at a commit that the model does not pin"
                    )


def _without_weights(checkpoint: _Checkpoint) -> PreTrainedModel:
    config, trusted = checkpoint.config, checkpoint.code["trust_remote_code"]
    remote_class = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM")
    model: PreTrainedModel
    with torch.device("meta"), unsupported_in_one_line(checkpoint.place, trusted):
        if trusted and remote_class:
            model_class = get_class_from_dynamic_module(
                remote_class, checkpoint.place, code_revision=checkpoint.revision
            )
            model = model_class(config)
        else:
            # Without the argument transformers would ask the user on the terminal.
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    return model


def _describe(checkpoint: _Checkpoint) -> ModelFacts:
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
    expert_tensors = [getattr(first.experts, name) for name in first.expert_tensors]
    return ModelFacts(
        model_type=checkpoint.model_type,
        architecture=type(model).__name__,
        layers=tuple(layer.path for layer in layers),
        num_experts=first.num_experts,
        top_k=first.top_k,
        hidden_size=text_config.hidden_size,
        parameters=count_parameters(model, checkpoint.model_type),
        expert_parameters=sum(tensor[0].numel() for tensor in expert_tensors),
        dtype=dtype,
        groups=first.groups,
        fewest_experts=max(fewest_experts(layer) for layer in _one_per_router_class(layers)),
    )


def _one_per_router_class(layers: Sequence[MoELayer]) -> Iterable[MoELayer]:
    return {type(layer.router): layer for layer in layers}.values()


def positions_of(model: PreTrainedModel) -> float:
    """The most tokens the model accepts; infinite where its configuration has no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf


def count_parameters(model: PreTrainedModel, model_type: str) -> int:
    """Parameters, tied ones counted once, without those added to DeepSeek-MoE (see there)."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not (model_type == deepseek.MODEL_TYPE and name.endswith(deepseek.ADDED))
    )


def _load_tokenizer(checkpoint: _Checkpoint) -> PreTrainedTokenizerBase:
    if checkpoint.is_deepseek:
        return deepseek.load_tokenizer(checkpoint.place, checkpoint.revision)
    return AutoTokenizer.from_pretrained(
        checkpoint.place, revision=checkpoint.revision, **checkpoint.code
    )


def _load_weights(
    checkpoint: _Checkpoint, dtype: DtypeName, device_map: DeviceMap
) -> PreTrainedModel:
    place = checkpoint.place
    model_class: Any = AutoModelForCausalLM
    if checkpoint.is_deepseek:
        model_class = deepseek.DeepseekForCausalLM
    model: PreTrainedModel
    with (
        reachable(place),
        readable(place),
        _read_as_needed(),
        folder_for(device_map) as (folder, keep_for),
    ):
        model, report = model_class.from_pretrained(
            place,
            config=checkpoint.config,
            revision=checkpoint.revision,
            dtype=dtype,
            device_map=device_map,
            offload_folder=folder,
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
    return model


@contextlib.contextmanager
def _read_as_needed() -> Iterator[None]:
    """Let transformers hold one copy of the weights instead of two.

    It maps the files into memory, merges the experts into new tensors, and reads ahead in threads.
    Reading each tensor when it is needed takes half the memory, and less time.
    """

    def read(file: str, framework: str, device: str, **_: str) -> Any:
        return safe_open(file, framework=framework, device=device, backend="pread")

    if not hasattr(modeling_utils, "safe_open"):
        raise MbenchError(
            f"transformers {transformers.__version__} reads weights in a way that mbench does not "
            "know; install the version in constraints.txt"
        )
    with (
        environment_variable("HF_DEACTIVATE_ASYNC_LOAD", "1"),
        replaced(modeling_utils, "safe_open", read),
    ):
        yield
