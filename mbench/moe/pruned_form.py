"""Pruned models in a form of mbench's own, for what no stock program loads.

Stock classes read one number of experts from a configuration, and build other models than were
meant where layers keep different numbers, where dropped experts go to others, or to constants.
A folder in this form has the files of the family's own checkpoint, with these differences:

    config.json            `model_type: mbench_pruned`, which no other program knows
    full_config.json       the configuration of the full model
    expert_mask.json       kept experts of every layer, and what stands in for the others
    model.mbench*          kept experts only, numbered anew; whole routers where they are needed; a
                           stock class that is asked for by name does not find them either
    constants.safetensors  `outputs` float32 [D, H], in the place of the D dropped experts, by layer
                           and number; only if constants stand in
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel, one_line
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Constants, Merged, StandIn
from mbench.core.suite_values import AttentionName, DtypeName
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.config import PRUNED, read_config
from mbench.moe.load import embedding_rows, load_weights, skeleton_of
from mbench.moe.load_errors import legible
from mbench.moe.mask import checked
from mbench.moe.offload import Placement, device_map_for
from mbench.moe.prune import shrink
from mbench.moe.replace import output_width
from mbench.moe.tokenizer import load_tokenizer
from mbench.storage.mask_json import MASK_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VARIANT = "mbench"
"""In the names of the files of weights."""
FULL_CONFIG = "full_config.json"
CONSTANTS = "constants.safetensors"
OUTPUTS = "outputs"


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model in eval mode whose parameters need no gradients."""

    model: PreTrainedModel
    """Of the family's own class, with fewer experts than its configuration says."""
    tokenizer: PreTrainedTokenizerBase


def load_pruned(
    folder: str | Path,
    *,
    dtype: DtypeName = "auto",
    attention: AttentionName = "auto",
    device: Placement = "auto",
) -> PrunedModel:
    """Load a pruned model that `mbench export` wrote in mbench's own form.

    Args:
        folder: with the files that `mbench.moe.pruned_form` lists.
        dtype: to compute in; `auto`: as stored.
        attention: its implementation; `auto`: the best that the family has.
        device: where it is to be; see `mbench.moe.load.load`.

    Raises:
        ModelNotFound: files are missing, incomplete or damaged.
        UnsupportedModel: it is in another form, or of a family that is not treated.
    """
    folder = str(folder)
    _refuse_other_forms(folder)
    checkpoint = read_config(folder, trust_remote_code=False, name=FULL_CONFIG)
    whole = skeleton_of(checkpoint)
    layers = find_moe_layers(whole)
    mask = read_mask(folder, layers)
    with legible(folder):
        tokenizer, _ = load_tokenizer(checkpoint, embedding_rows(whole))
    stored = checkpoint.config.dtype or checkpoint.config.get_text_config().dtype or "float32"
    computed = str(stored).removeprefix("torch.") if dtype == "auto" else dtype
    bits = torch.finfo(getattr(torch, computed)).bits
    shrink(layers, mask)
    device_map = device_map_for(device, whole.num_parameters() * bits // 8)
    if attention == "auto":
        attention = "sdpa" if whole._supports_sdpa else "eager"
    model_class = type(whole)
    model = load_weights(
        replace(checkpoint, config=whole.config),
        _shrunk(model_class, mask),
        dtype,
        attention,
        device_map,
        variant=VARIANT,
    )
    if not checkpoint.is_deepseek:
        model.__class__ = model_class
    model.save_pretrained = _refuse_to_save  # type: ignore[method-assign]
    return PrunedModel(model.eval().requires_grad_(False), tokenizer)


def _shrunk(model_class: type[PreTrainedModel], mask: ExpertMask) -> type[PreTrainedModel]:
    """A class whose models are as small as the mask says, and which otherwise is the other.

    transformers looks up how to convert a checkpoint's tensors by a class's name and module.
    """

    def build(self: PreTrainedModel, config: PreTrainedConfig) -> None:
        model_class.__init__(self, config)
        shrink(find_moe_layers(self), mask)

    names = {"__init__": build, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), names)


def _refuse_to_save(*args: Any, **kwargs: Any) -> None:
    raise UnsupportedModel(
        "a model of mbench's own form is not saved as a stock one, whose configuration would be"
        " that of another model; copy its folder"
    )


def _refuse_other_forms(folder: str) -> None:
    file = Path(folder, "config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"model {folder}: config.json: {one_line(error)}") from None
    if not isinstance(config, dict) or config.get("model_type") != PRUNED:
        raise UnsupportedModel(
            f"model {folder} is not in mbench's own form, but in that of transformers, which"
            " loads it"
        )


def config_json(dtype: str) -> dict[str, Any]:
    """The config.json of this form: nothing that a stock class could be built from."""
    return {
        "architectures": ["MbenchPruned"],
        "model_type": PRUNED,
        "dtype": dtype,
        "load_with": "mbench.load_pruned",
    }


def replacement_json(stand_in: StandIn | None, layers: Sequence[MoELayer]) -> dict[str, Any]:
    """What stands in for dropped experts, for `expert_mask.json`; constants are in their file.

    How neurons were aligned is left out: merged weights hold it already.
    """
    if stand_in is None:
        return {}
    if isinstance(stand_in, Constants):
        return {"replacement": {"kind": "constants"}}
    rows = {
        name: {layer.path: row.tolist() for layer, row in zip(layers, array, strict=True)}
        for name, array in (("into", stand_in.into), ("weights", stand_in.weights))
    }
    return {"replacement": {"kind": "merged", "router": stand_in.router, **rows}}


def write_constants(mask: ExpertMask, folder: Path) -> None:
    """Write the constants of dropped experts, if constants stand in."""
    from safetensors.numpy import save

    if isinstance(mask.stand_in, Constants):
        dropped = np.ascontiguousarray(mask.stand_in.outputs[~mask.keep])
        (folder / CONSTANTS).write_bytes(save({OUTPUTS: dropped}))


def read_mask(folder: str, layers: Sequence[MoELayer]) -> ExpertMask:
    """The mask of a folder in this form; that of merged experts does not say how they were aligned.

    Raises `ModelNotFound` where it is missing, damaged or not of these layers.
    """
    from safetensors.numpy import load_file

    paths = [layer.path for layer in layers]
    try:
        data = json.loads(Path(folder, MASK_FILE).read_text(encoding="utf-8"))
        keep = np.zeros((len(layers), data["num_experts"]), dtype=bool)
        for row, path in zip(keep, paths, strict=True):
            row[data["kept"][path]] = True
        found = data.get("replacement")
        stand_in: StandIn | None = None
        if found is not None and found["kind"] == "constants":
            outputs = np.zeros((*keep.shape, output_width(layers[0])), dtype=np.float32)
            outputs[~keep] = load_file(Path(folder, CONSTANTS))[OUTPUTS]
            stand_in = Constants(outputs)
        elif found is not None:
            into, weights = ([found[name][path] for path in paths] for name in ("into", "weights"))
            stand_in = Merged(
                np.array(into, np.int64), np.array(weights, np.float32), None, found["router"]
            )
        return checked(layers, ExpertMask(keep, tuple(data["notes"]), stand_in))
    except MbenchError:
        raise
    # A damaged file surfaces as whatever reading it raises.
    except Exception as error:
        raise ModelNotFound(f"model {folder}: {MASK_FILE}: {one_line(error)}") from error
