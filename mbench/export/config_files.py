"""The files beside the weights of an exported checkpoint: configuration, tokenizer, licence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.export.choose import OTHER_FILES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mbench.export.numbered_names import NumberedNames
    from mbench.moe.adapter import MoELayer

SETTINGS = ("quantization_config", "compression_config")
"""Fields of config.json that say how weights are stored."""


def pruned_config(
    source: Path, model: PreTrainedModel, layer: MoELayer, kept: int, names: NumberedNames
) -> dict[str, Any]:
    """The publisher's configuration with the numbers of experts changed, and experts' numbers.

    Raises `UnsupportedModel` for experts in it that cannot be numbered anew.
    """
    from mbench.moe.adapter import EXPERT_COUNTS, TOP_K_FIELDS
    from mbench.moe.prune import pruned_fields

    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text_config = config.get("text_config") or config
    canonical = model.config.get_text_config().to_dict()
    for fields in (EXPERT_COUNTS, TOP_K_FIELDS):
        # A field that has its class's default may be absent from the file.
        named = text_config if any(name in text_config for name in fields) else canonical
        values = {name: named[name] for name in fields if name in named}
        text_config.update(pruned_fields(values, layer, kept))
    for part in (config, config.get("text_config") or {}):
        part.update({name: names.rewritten(part[name]) for name in SETTINGS if part.get(name)})
    return config


def copy_other_files(source: Path, folder: Path, translated: bool, names: NumberedNames) -> None:
    """Copy tokenizer, templates, licence and code; a translated model needs its code no more.

    Files of quantisation settings are written anew where they name experts, and raise what
    `pruned_config` does.
    """
    from mbench.moe import deepseek
    from mbench.moe.quantised.forms import OWN_FILES

    for path in sorted({path for pattern in OTHER_FILES for path in source.glob(pattern)}):
        weights_or_config = path.name == "config.json" or path.name.endswith(".index.json")
        unused_code = translated and path.suffix == ".py"
        if weights_or_config or unused_code:
            continue
        if path.name in OWN_FILES:
            settings = json.loads(path.read_text(encoding="utf-8"))
            rewritten = names.rewritten(settings)
            if rewritten != settings:
                write_json(folder / path.name, rewritten)
                continue
        shutil.copyfile(path, folder / path.name)
    if translated:
        # transformers would not add the begin-of-sequence token that these files ask for.
        deepseek.load_tokenizer(str(source)).save_pretrained(folder)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """As publishers write it."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
