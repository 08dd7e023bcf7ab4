"""Tiny models of the families with layers that see a window of the text."""

from __future__ import annotations

from transformers import DynamicCache, PreTrainedModel

from helpers.family_models import tiny_model

WINDOWS = {
    **{"afmoe": {}, "cohere2_moe": {}, "gemma4_text": {}, "gpt_oss": {}, "mimo_v2_flash": {}},
    "qwen3_moe": {"use_sliding_window": True, "max_window_layers": 1},
}
"""By family, what switches the window on."""


def window_model(name: str) -> PreTrainedModel:
    """One whose window is 8 tokens."""
    model = tiny_model(name, sliding_window=8, **WINDOWS[name]).eval()
    kinds = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers}
    assert "DynamicSlidingWindowLayer" in kinds
    return model
