"""What a checkpoint's tensors take in its files, by their headers alone."""

from __future__ import annotations

from pathlib import Path

from mbench.core.model_facts import StoredSize
from mbench.moe.stored_model import StoredModel


def stored_size(folder: Path) -> StoredSize:
    """Return what a full checkpoint takes, in whatever form it is stored, without reading weights.

    `bytes_left` then is exactly what an export of a mask takes, but for DeepSeek-MoE, which is as a
    rule exported as another family. Raises `UnsupportedModel` where weights are no safetensors or
    experts cannot be told apart, and `ModelNotFound` for damaged or missing files.
    """
    model = StoredModel(folder, strict=True)
    stored, places = model.weights.tensors, model.places.values()
    count = model.layers[0].num_experts
    experts = [[0] * count for _ in model.layers]
    rows = [0] * len(model.layers)
    for place in places:
        size = stored[place.name].size
        if place.layer is None:
            continue
        if place.is_router:
            rows[place.layer] += size // count
            continue
        numbers = range(count) if place.expert is None else (place.expert,)
        for number in numbers:
            experts[place.layer][number] += size // len(numbers)
    return StoredSize(
        bytes=sum(stored[place.name].size for place in places if place.is_used),
        expert_bytes=tuple(
            (layer[0],) if len(set(layer)) == 1 else tuple(layer) for layer in experts
        ),
        row_bytes=tuple(rows),
    )
