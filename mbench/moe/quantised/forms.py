"""Finds the stored form that a checkpoint's configuration declares, or refuses it by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form

FORMS: Mapping[str, Callable[[Mapping[str, Any]], Form]] = {}
"""`quant_method` -> reads its settings; raises `UnsupportedModel` for what it does not know."""


def form_of(settings: Mapping[str, Any]) -> Form:
    """Return the form that a `quantization_config` declares.

    Raises `UnsupportedModel` for an unknown method, or settings that its reader does not know.
    """
    method = settings.get("quant_method")
    if method not in FORMS:
        valid = ", ".join(sorted(FORMS))
        raise UnsupportedModel(f"weights stored by {method!r} are not read (read: {valid})")
    return FORMS[method](settings)
