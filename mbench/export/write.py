"""Writes a pruned checkpoint from one mask of a finished run, in its family's format and names.

The tensors are copied from the full checkpoint's files, or summed up where experts are merged, so
neither memory nor precision depends on the model. DeepSeek-MoE, for which transformers has no
class, is written as Qwen2-MoE unless its original form is asked for. Where no stock configuration
describes what is left, it is written in the form of `mbench.moe.pruned_form`. What mbench adds is a
model card and the mask, `expert_mask.json`:

    format        "mbench-mask/1"
    model         name in the suite, content (hash or commit of the full model), hub or plugin
    method, seed, retain, router, suite
    num_experts   N, the routed experts of a layer in the full model
    experts_kept  K, those of the pruned one, on average where layers differ
    kept          module path of a layer's experts -> the experts that are kept, ascending; the i-th
                  of them is expert i of the pruned model
    notes         what a reader must know of the mask
    content_hash  sha256 of [N, [kept of every layer]] as JSON without spaces, and of the stand-in
    replacement   only where something stands in for dropped experts: its kind; for merged ones also
                  router, and by layer's path the expert that takes each one up, and its weight
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.cell_results import CellResult
from mbench.core.errors import MbenchError, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.results import Results
from mbench.core.stand_ins import Constants, keeps_router
from mbench.export.written import STOCK, Export, Form, Kind, Size
from mbench.storage.atomic import new_folder
from mbench.storage.checkpoints import Directory
from mbench.storage.mask_json import MASK_FILE, mask_to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mbench.export.numbered_names import NumberedNames
    from mbench.moe.adapter import MoELayer
    from mbench.moe.config import Checkpoint
    from mbench.storage.safetensor_files import NewTensor


@dataclass(frozen=True)
class _PrunedCheckpoint:
    """A pruned checkpoint before it is written."""

    model: PreTrainedModel
    """The full model, without its weights."""
    layers: Sequence[MoELayer]
    mask: ExpertMask
    kind: Kind
    config: Mapping[str, Any]
    """The family's configuration of it; of the full model where no such one describes it."""
    tensors: Sequence[NewTensor]
    sizes: tuple[Size, Size]
    """Of what the model's class uses of the full checkpoint, and of the pruned one."""
    checkpoint: Checkpoint
    """The full one's configuration."""
    names: NumberedNames
    """Of experts, as quantisation settings may have them."""
    left_out: tuple[str, ...]
    full_model_type: str
    translated: bool
    """Whether it is written as another family than the full model's."""


def export(
    results: Results, cell: CellResult, source: Path, out: Path, form: Form = "transformers"
) -> Export:
    """Write the pruned model of `cell` to the new folder `out`, whole or not at all.

    `source` is the full checkpoint. Raises `MbenchError` if `out` exists or results are incomplete,
    `UnsupportedModel` if gates are preserved, weights are pickled, experts cannot be merged or the
    family cannot express an evenly pruned model, and `StoreError` if the folder cannot be written.
    """
    from mbench.export.card import model_card
    from mbench.export.config_files import copy_other_files
    from mbench.moe.pruned_form import VARIANT, write_constants
    from mbench.storage.safetensor_files import write_checkpoint

    if out.exists():
        raise MbenchError(f"{out} exists already")
    pruned = _prune(source, _mask(results, cell), form)
    written = _describe(pruned, out)
    with new_folder(out) as folder:
        _write_config(pruned, folder)
        copy_other_files(source, folder, pruned.translated, pruned.names)
        (folder / MASK_FILE).write_text(json.dumps(_mask_json(results, cell, pruned)) + "\n")
        write_constants(pruned.mask, folder)
        card = model_card(results, cell, written, source)
        (folder / "README.md").write_text(card, encoding="utf-8")
        variant = "" if written.is_stock else VARIANT
        write_checkpoint(folder, pruned.tensors, variant=variant)
    return written


def _mask(results: Results, cell: CellResult) -> ExpertMask:
    """The cell's mask with what stands in for the others, and the cell's notes."""
    keep = results.masks.get((cell.model, cell.mask))
    if keep is None:
        raise MbenchError(f"the results lack the mask {cell.mask[:12]} of {cell.model}")
    mask = ExpertMask(keep, cell.notes, results.stand_ins.get((cell.model, cell.mask)))
    if mask.content_hash != cell.mask:
        raise MbenchError(
            f"the results lack what stands in for the experts that the mask {cell.mask[:12]} of"
            f" {cell.model} drops"
        )
    if cell.router != "sliced" and not keeps_router(mask.stand_in):
        raise UnsupportedModel(
            f"router {cell.router}: no smaller checkpoint has the gate values of the full model; "
            "only results with `router: sliced` can be exported"
        )
    return mask


def kind_of(mask: ExpertMask) -> Kind:
    """What a mask leaves of a model."""
    if isinstance(mask.stand_in, Constants):
        return "constants"
    if keeps_router(mask.stand_in):
        return "mapped"
    counts = mask.keep.sum(axis=1)
    if counts.min() == counts.max():
        return "even" if mask.stand_in is None else "merged"
    return "uneven" if mask.stand_in is None else "uneven-merged"


def _prune(source: Path, mask: ExpertMask, form: Form) -> _PrunedCheckpoint:
    """Read the full checkpoint's configuration and headers, and leave the dropped experts out."""
    from mbench.export.config_files import pruned_config
    from mbench.export.numbered_names import NumberedNames
    from mbench.export.sizes import sizes
    from mbench.export.tensors import prune_tensors
    from mbench.moe import deepseek
    from mbench.moe.adapter import find_moe_layers
    from mbench.moe.config import read_config
    from mbench.moe.load import skeleton_of
    from mbench.moe.mask import checked
    from mbench.storage.safetensor_files import read_headers

    files = [source / name for name in Directory(source).names.weights]
    if not files[0].name.endswith(".safetensors"):
        raise UnsupportedModel(f"{source}: its weights are no safetensors files; convert them")
    checkpoint = read_config(str(source), trust_remote_code=False)
    model = skeleton_of(checkpoint)
    layers = find_moe_layers(model)
    mask = checked(layers, mask)
    kind = kind_of(mask)
    stored = read_headers(files)
    pruned = prune_tensors(model, layers, mask, stored, checkpoint.form)
    names = NumberedNames(pruned.places.values(), mask.keep)
    config = pruned_config(source, model, layers[0], _count(kind, mask), names)
    full_model_type = config["model_type"]
    tensors: Sequence[NewTensor] = pruned.tensors
    translated = form == "transformers" and deepseek.is_deepseek(config)
    if translated and checkpoint.form is not None:
        raise UnsupportedModel(
            f"{source}: weights in {checkpoint.form.words} cannot be written as another family,"
            " whose shared experts are doubled; export its original form"
        )
    if translated:
        config = deepseek.qwen2_moe_json(config)
        tensors = deepseek.qwen2_moe_tensors(tensors)
    used = [tensor for name, tensor in stored.items() if pruned.places[name].is_used]
    return _PrunedCheckpoint(
        model=model,
        layers=layers,
        mask=mask,
        kind=kind,
        config=config,
        tensors=tensors,
        sizes=sizes(model, layers, mask, used, tensors, checkpoint.form is not None),
        checkpoint=checkpoint,
        names=names,
        left_out=pruned.left_out,
        full_model_type=full_model_type,
        translated=translated,
    )


def _count(kind: Kind, mask: ExpertMask) -> int:
    """Experts of a layer in the configuration: those kept where it can say so, else all."""
    return int(mask.keep[0].sum()) if kind in STOCK else mask.keep.shape[1]


def _describe(pruned: _PrunedCheckpoint, out: Path) -> Export:
    layer, mask = pruned.layers[0], pruned.mask
    kept = tuple(mask.keep.sum(axis=1).tolist())
    routed = [layer.num_experts] * len(kept) if keeps_router(mask.stand_in) else kept
    full, size = pruned.sizes
    form = pruned.checkpoint.form
    return Export(
        directory=out,
        full=full,
        pruned=size,
        num_experts=layer.num_experts,
        kept=kept,
        top_k=layer.top_k,
        pruned_top_k=tuple(layer.top_k_with(count) for count in routed),
        kind=pruned.kind,
        left_out=pruned.left_out,
        dtype=_main_dtype(pruned),
        stored_form=form.words if form else "",
        activations=form.activations if form else "",
        model_type=pruned.config["model_type"],
        full_model_type=pruned.full_model_type,
    )


def _write_config(pruned: _PrunedCheckpoint, folder: Path) -> None:
    """Write config.json, and check that transformers builds the pruned model from it."""
    from mbench.export.config_files import write_json
    from mbench.moe.load import skeleton
    from mbench.moe.prune import refuse_misfit
    from mbench.moe.pruned_form import FULL_CONFIG, config_json

    if pruned.kind not in STOCK:
        write_json(folder / FULL_CONFIG, pruned.config)
        write_json(folder / "config.json", config_json(_main_dtype(pruned)))
        return
    write_json(folder / "config.json", pruned.config)
    kept = _count(pruned.kind, pruned.mask)
    refuse_misfit(pruned.model, pruned.layers, skeleton(str(folder)), kept)


def _main_dtype(pruned: _PrunedCheckpoint) -> str:
    """Of most numbers; that of weights in fewer bits is what they are computed in."""
    from mbench.moe.deepseek import DTYPES

    if pruned.checkpoint.form is not None:
        config = pruned.checkpoint.config
        return str(config.dtype or config.get_text_config().dtype).removeprefix("torch.")
    parameters: Counter[str] = Counter()
    for tensor in pruned.tensors:
        parameters[tensor.stored.dtype] += tensor.parameters
    ((name, _),) = parameters.most_common(1)
    return str(DTYPES.get(name, name)).removeprefix("torch.")


def _mask_json(results: Results, cell: CellResult, pruned: _PrunedCheckpoint) -> dict[str, Any]:
    """The content of `expert_mask.json`; see the module's docstring."""
    from mbench.moe.pruned_form import replacement_json

    recorded = results.provenance.models[cell.model]
    source = recorded.source
    # A path means nothing on another machine; the content's hash does.
    origin = {} if source.kind == "path" else {source.kind: source.name}
    plain = ExpertMask(pruned.mask.keep, cell.notes)
    return {
        **mask_to_json(plain, tuple(layer.path for layer in pruned.layers)),
        **replacement_json(pruned.mask.stand_in, pruned.layers),
        "content_hash": pruned.mask.content_hash,
        "experts_kept": cell.kept,
        "model": {"name": cell.model, "content": recorded.content, **origin},
        "method": cell.method,
        "seed": cell.seed,
        "retain": cell.retain,
        "router": cell.router,
        "suite": results.suite,
    }
