"""What a checkpoint's tensors take in its files, by their headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mbench.core.errors import UnsupportedModel
from mbench.core.model_facts import StoredSize
from mbench.moe.adapter import find_moe_layers
from mbench.moe.checkpoint_tensors import Place, place_tensors
from mbench.moe.config import read_config
from mbench.moe.load import skeleton_of
from mbench.moe.load_errors import naming
from mbench.moe.quantised.reader import weight_files
from mbench.storage.safetensor_files import StoredTensor, read_headers


def stored_size(folder: Path) -> StoredSize:
    """Return what a full checkpoint takes, in whatever form it is stored, without reading weights.

    `bytes_left` then is exactly what an export of a mask takes, but for DeepSeek-MoE, which is as a
    rule exported as another family. Raises `UnsupportedModel` where weights are no safetensors,
    where experts cannot be told apart, or where those of a layer take different numbers of bytes,
    and `ModelNotFound` for damaged or missing files.
    """
    checkpoint = read_config(str(folder), trust_remote_code=False)
    with naming(str(folder)):
        files = weight_files(folder)
        if not files:
            raise UnsupportedModel("its weights are no safetensors files")
        stored = read_headers(files)
        model = skeleton_of(checkpoint)
        layers = find_moe_layers(model)
        places = place_tensors(model, layers, stored, checkpoint.form)
        return size_of(places, stored, len(layers), layers[0].num_experts)


def size_of(
    places: Mapping[str, Place], stored: Mapping[str, StoredTensor], layers: int, num_experts: int
) -> StoredSize:
    """The same of tensors whose places are known; those that the model's class has no use for do
    not count."""
    expert_bytes = [[0] * num_experts for _ in range(layers)]
    row_bytes = [0] * layers
    for place in places.values():
        size = stored[place.name].size
        if place.layer is None:
            continue
        if place.is_router:
            row_bytes[place.layer] += size // num_experts
        elif place.expert is not None:
            expert_bytes[place.layer][place.expert] += size
        else:
            for expert in range(num_experts):
                expert_bytes[place.layer][expert] += size // num_experts
    for number, of_layer in enumerate(expert_bytes):
        if len(set(of_layer)) > 1:
            raise UnsupportedModel(
                f"experts of MoE layer {number} take {min(of_layer)} to {max(of_layer)} bytes, so"
                " that what a pruned checkpoint takes depends on which are kept"
            )
    return StoredSize(
        bytes=sum(stored[place.name].size for place in places.values() if place.is_used),
        expert_bytes=tuple(of_layer[0] for of_layer in expert_bytes),
        row_bytes=tuple(row_bytes),
        num_experts=num_experts,
    )
