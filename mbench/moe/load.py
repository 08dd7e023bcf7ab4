"""Loading a model and its tokenizer, with every foreseeable trouble told in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mbench.errors import MbenchError, ModelNotFound, UnsupportedModel
from mbench.hub import refusal
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.facts import ModelFacts
from mbench.moe.identity import (
    HINT,
    config_file,
    local_directory,
    model_commit,
    tokenizer_files,
    weight_files,
)

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode whose parameters need no gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layers: tuple[MoELayer, ...]
    facts: ModelFacts


def describe(path_or_id: str, revision: str | None = None) -> ModelFacts:
    """Return the facts of a model from its configuration alone.

    Raises `ModelNotFound` if there is no configuration, `UnsupportedModel` if the model is
    quantized, has no native class in transformers, or cannot be pruned correctly.
    """
    return _describe(path_or_id, _load_config(path_or_id, _pinned(path_or_id, revision)))


def load(
    path_or_id: str,
    *,
    revision: str | None = None,
    dtype: DtypeName = "auto",
    device: str = "auto",
) -> LoadedModel:
    """Load a model; `device` "auto" is the first CUDA device, or the CPU without one.

    Everything that can be refused is refused before weights are read. Raises `ModelNotFound` for
    missing, unreachable, incomplete or damaged files, and what `describe` raises.
    """
    revision = _pinned(path_or_id, revision)
    config = _load_config(path_or_id, revision)
    facts = _describe(path_or_id, config)
    directory = local_directory(path_or_id)
    if directory is not None:
        weight_files(directory)
        tokenizer_files(directory)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with _reachable(path_or_id):
        tokenizer = AutoTokenizer.from_pretrained(
            path_or_id, revision=revision, trust_remote_code=False
        )
    with _reachable(path_or_id), _readable(path_or_id):
        model, report = AutoModelForCausalLM.from_pretrained(
            path_or_id,
            config=config,
            revision=revision,
            dtype=dtype,
            device_map={"": device},
            trust_remote_code=False,
            output_loading_info=True,
        )
    # transformers fills what a checkpoint lacks with random numbers and goes on.
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelNotFound(
            f"model {path_or_id}: the weights lack {len(missing)} tensors, e.g. {missing[0]}"
        )
    model.eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, tuple(find_moe_layers(model)), facts)


def _pinned(path_or_id: str, revision: str | None) -> str | None:
    """Return the commit of a hub model, so that all its files come from the same one.

    It also finds out at once when the hub is out of reach, where downloading would try for long.
    """
    if local_directory(path_or_id) is not None:
        return None
    return model_commit(path_or_id, revision)


def _load_config(path_or_id: str, revision: str | None) -> PreTrainedConfig:
    directory = local_directory(path_or_id)
    if directory is not None:
        config_file(directory)
    with _reachable(path_or_id), _unsupported_in_one_line(path_or_id):
        config = AutoConfig.from_pretrained(path_or_id, revision=revision, trust_remote_code=False)
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedModel(
            f"model {path_or_id} is quantized ({method or 'unknown method'}): its experts cannot "
            "be profiled; use the unquantized checkpoint"
        )
    return config


def _describe(path_or_id: str, config: PreTrainedConfig) -> ModelFacts:
    with torch.device("meta"), _unsupported_in_one_line(path_or_id):
        model = AutoModelForCausalLM.from_config(config)
    try:
        layers = find_moe_layers(model)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"model {path_or_id}: {error}") from None
    first = layers[0]
    expert_tensors = [getattr(first.experts, name) for name in first.expert_tensors]
    text_config = config.get_text_config()
    return ModelFacts(
        model_type=config.model_type,
        architecture=type(model).__name__,
        layers=tuple(layer.path for layer in layers),
        num_experts=first.num_experts,
        top_k=first.top_k,
        hidden_size=text_config.hidden_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        expert_parameters=sum(tensor[0].numel() for tensor in expert_tensors),
        dtype=str(config.dtype or text_config.dtype or torch.float32).removeprefix("torch."),
    )


@contextlib.contextmanager
def _unsupported_in_one_line(path_or_id: str) -> Iterator[None]:
    """What transformers says about models it has no class for takes a paragraph.

    A wrong value in a configuration surfaces as whatever the model's own code happens to raise.
    """
    try:
        yield
    except (MbenchError, OSError):
        raise
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UnsupportedModel(
            f"model {path_or_id}: transformers {transformers.__version__} cannot build it without "
            f"the model's own code, which is never run ({first_line[:160]})"
        ) from None


@contextlib.contextmanager
def _reachable(path_or_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if local_directory(path_or_id) is not None:
            first_line = str(error).strip().splitlines()[0]
            raise ModelNotFound(f"model {path_or_id}: {first_line}") from None
        cause = error.__cause__ or error.__context__
        reason = (cause and refusal(cause)) or "the Hugging Face hub cannot be reached"
        raise ModelNotFound(f"model {path_or_id}: {reason}; {HINT}") from None


@contextlib.contextmanager
def _readable(path_or_id: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelNotFound(
            f"model {path_or_id}: the weights are damaged or do not fit config.json ({first_line})"
        ) from None
