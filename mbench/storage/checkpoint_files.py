"""The files of a checkpoint that decide what it computes."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mbench.core.errors import ModelNotFound

VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "*.tiktoken",
)

TOKENIZER_FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "tokenizer.*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""What transformers may make a tokenizer of."""

STORED_FORM_FILES = ("hf_quant_config.json", "quant_config.json", "quantize_config.json")
"""What may say in which form weights are stored, where config.json does not."""

ADAPTER = "adapter_config.json"
"""Says that an adapter (LoRA) changes the weights; such a checkpoint is refused."""

READ_BY_CODE = ("*.py", "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
"""What a model's own code is, or may read."""


@dataclass(frozen=True)
class FileNames:
    """The files of a checkpoint that decide what it computes."""

    small: tuple[str, ...]
    """Configuration, tokenizer, code, and the index of the weights."""
    weights: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted((*self.small, *self.weights)))


def file_names(
    names: Collection[str], read: Callable[[str], str], *, remote_code: bool = False
) -> FileNames:
    """Choose from all files of a checkpoint; `read` gives the text of one.

    Raises `ModelNotFound` if there is no configuration, no vocabulary or no weights, or if an index
    names weights that are missing.
    """
    if "config.json" not in names:
        raise ModelNotFound("config.json is missing")
    if not matching(names, VOCABULARIES):
        raise ModelNotFound(f"no tokenizer (none of {', '.join(VOCABULARIES)})")
    small = {"config.json", *matching(names, TOKENIZER_FILES)}
    small |= {"generation_config.json", ADAPTER, *STORED_FORM_FILES} & set(names)
    if remote_code:
        small |= matching(names, READ_BY_CODE)
    index, weights = _weights(names, read)
    small = {name for name in small if not name.endswith(".index.json")}
    return FileNames(tuple(sorted(small | index)), tuple(weights))


def matching(names: Collection[str], patterns: Collection[str]) -> set[str]:
    """The names that match; a pattern without a folder matches at the top, code everywhere."""
    return {
        name
        for name in names
        for pattern in patterns
        if fnmatch.fnmatchcase(name, pattern)
        and (pattern == "*.py" or name.count("/") == pattern.count("/"))
    }


def _weights(names: Collection[str], read: Callable[[str], str]) -> tuple[set[str], list[str]]:
    """Their index, if there is one, and the weight files that would be loaded, sorted by name."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = f"{name}.index.json"
        if name in names:
            return set(), [name]
        if index in names:
            try:
                parts = sorted(set(json.loads(read(index))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError):
                raise ModelNotFound(f"{index} is not an index of weight files") from None
            missing = [part for part in parts if part not in names]
            if missing:
                raise ModelNotFound(
                    f"{len(missing)} of {len(parts)} weight files are missing, e.g. {missing[0]}"
                )
            return {index}, parts
    if any(name.startswith("model.mbench") for name in names):
        raise ModelNotFound(
            "a pruned model in mbench's own form, which no suite takes as its full model;"
            " `mbench.load_pruned` loads it"
        )
    raise ModelNotFound(
        "no weights (neither model.safetensors nor pytorch_model.bin, nor an index of them)"
    )
