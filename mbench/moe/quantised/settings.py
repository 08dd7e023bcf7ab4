"""What settings of quantised numbers say, checked and told in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mbench.core.errors import UnsupportedModel, shown


def inner(method: str, settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the settings that stand under a name, empty where there are none.

    Raises `UnsupportedModel` for what is no object.
    """
    found = settings.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise UnsupportedModel(
            f"weights stored by {method!r} with {name} {shown(found)}: it must be an object"
        )
    return found or {}


def group_size(method: str, settings: Mapping[str, Any]) -> int:
    """How many inputs share a scale, -1 for all; 128 where it is not said, as for GPTQ and AWQ.

    Raises `UnsupportedModel` for what is no such number.
    """
    size = settings.get("group_size", 128)
    if type(size) is not int or not (size > 0 or size == -1):
        raise UnsupportedModel(
            f"weights stored by {method!r} with group_size {size!r}: it must be -1 or above 0"
        )
    return size


def groups_in_words(size: int) -> str:
    """What weights share a scale, in words."""
    return "per channel" if size == -1 else f"in groups of {size}"


def numbers_in_words(settings: Mapping[str, Any]) -> str:
    """What kind of numbers `type` and `num_bits` say, e.g. `FP8` or `int4`."""
    kind = "FP" if settings.get("type", "int") == "float" else "int"
    return f"{kind}{settings.get('num_bits', 8)}"


def activations_in_words(settings: Mapping[str, Any]) -> str:
    """How a layer's inputs would be quantised, e.g. `FP8 per token`; empty if they would not."""
    if not settings:
        return ""
    size = settings.get("group_size")
    known = {"tensor": "per tensor", "token": "per token", "channel": "per channel"}
    shared = f"in groups of {size}" if size else known.get(str(settings.get("strategy")), "")
    return f"{numbers_in_words(settings)} {shared}".strip()


def cache_in_words(cache: Any) -> str:
    """What a setting says of the cache of keys and values, e.g. `FP8`; empty if nothing."""
    if not cache:
        return ""
    return numbers_in_words(cache) if isinstance(cache, Mapping) else str(cache)


def with_cache(activations: str, cache: str) -> str:
    """Add how the cache of keys and values would be quantised, if it would."""
    cached = cache and f"cache of keys and values in {cache}"
    return "; ".join(filter(None, (activations, cached)))
