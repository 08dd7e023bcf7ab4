"""Finds the stored form that a checkpoint's configuration declares, or refuses it by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.awq import read_awq
from mbench.moe.quantised.bitsandbytes import read_bitsandbytes
from mbench.moe.quantised.compressed_tensors import read_compressed_tensors
from mbench.moe.quantised.form import Form
from mbench.moe.quantised.fp8 import read_fp8
from mbench.moe.quantised.gptq import read_gptq
from mbench.moe.quantised.modelopt import read_modelopt
from mbench.moe.quantised.mxfp4 import read_mxfp4

FORMS: Mapping[str, Callable[[Mapping[str, Any]], Form]] = {
    "awq": read_awq,
    "bitsandbytes": read_bitsandbytes,
    "compressed-tensors": read_compressed_tensors,
    "fp8": read_fp8,
    "gptq": read_gptq,
    "modelopt": read_modelopt,
    "mxfp4": read_mxfp4,
}
"""`quant_method` -> reads its settings; raises `UnsupportedModel` for what it does not know."""

OWN_FILES: Mapping[str, str] = {
    "hf_quant_config.json": "modelopt",
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
}
"""Files that hold the settings where config.json does not, and what wrote them if they don't say.

They are among the files that identify a checkpoint; see `mbench.storage.checkpoints`.
"""


def settings_of(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of a checkpoint's stored form, with their `quant_method`; None: it has none.

    `config` is its config.json. Raises `UnsupportedModel` for settings that are no object.
    """
    text = {**config, **(config.get("text_config") or {})}
    settings = text.get("quantization_config") or text.get("compression_config")
    if settings is not None:
        return _checked("config.json", settings)
    for name, method in OWN_FILES.items():
        if (folder / name).is_file():
            try:
                settings = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise UnsupportedModel(f"{name} is not JSON ({error})") from None
            return {"quant_method": method, **_checked(name, settings)}
    return None


def form_of(settings: Mapping[str, Any]) -> Form:
    """Return the form that a `quantization_config` declares.

    Raises `UnsupportedModel` for an unknown method, or settings that its reader does not know.
    """
    # Some exports of modelopt name the program, but no method.
    producer = settings.get("producer")
    named = producer.get("name") if isinstance(producer, Mapping) else None
    method = str(settings.get("quant_method") or named)
    if method not in FORMS:
        valid = ", ".join(sorted(FORMS))
        raise UnsupportedModel(f"weights stored by {method!r} are not read (read: {valid})")
    return FORMS[method](settings)


def _checked(file: str, settings: object) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise UnsupportedModel(f"the quantization settings in {file} are no object")
    return settings
