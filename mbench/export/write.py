"""A pruned checkpoint from one mask of a finished run, in the format and names of its family.

The tensors are copied from the full checkpoint's files, so neither memory nor precision depends
on the model. DeepSeek-MoE, for which transformers has no class, is written as Qwen2-MoE unless its
original form is asked for. What mbench adds is a model card and the mask, `expert_mask.json`:

    format        "mbench-mask/1"
    model         name in the suite, content (hash or commit of the full model), hub or plugin
    method, seed, retain, router, suite
    num_experts   N, the routed experts of a layer in the full model
    experts_kept  K, those of the pruned one
    kept          module path of a layer's experts -> the experts that stay, ascending; the i-th of
                  them is expert i of the pruned model
    notes         what a reader must know of the mask
    content_hash  sha256 of [N, [kept of every layer]] as JSON without spaces
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.errors import MbenchError, StoreError, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.results import CellResult, Results
from mbench.export.choose import OTHER_FILES, recorded_model
from mbench.export.written import Export, Form, Size
from mbench.storage.checkpoints import weight_files
from mbench.storage.mask_json import mask_to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mbench.moe.adapter import MoELayer
    from mbench.storage.safetensor_files import NewTensor

MASK_FILE = "expert_mask.json"


def export(
    results: Results, cell: CellResult, source: Path, out: Path, form: Form = "transformers"
) -> Export:
    """Write the pruned model of `cell` to the new folder `out`, whole or not at all.

    `source` is the full checkpoint. Raises `MbenchError` if `out` exists, if gates are preserved,
    weights pickled or results incomplete, `UnsupportedModel` if the family cannot express the
    pruned model, and `StoreError` if the folder cannot be written.
    """
    from mbench.export.card import model_card
    from mbench.export.tensors import prune_tensors
    from mbench.moe import deepseek
    from mbench.moe.adapter import find_moe_layers
    from mbench.moe.load import skeleton
    from mbench.moe.mask import checked
    from mbench.moe.prune import experts_kept, refuse_misfit
    from mbench.storage.safetensor_files import NewTensor, read_headers, write_checkpoint

    recorded = recorded_model(results, cell.model)
    if out.exists():
        raise MbenchError(f"{out} exists already")
    if cell.router != "sliced":
        raise UnsupportedModel(
            f"router {cell.router}: no smaller checkpoint has the gate values of the full model; "
            "only results with `router: sliced` can be exported"
        )
    files = [path for path in weight_files(source) if path.suffix == ".safetensors"]
    if not files:
        raise UnsupportedModel(f"{source}: its weights are no safetensors files; convert them")
    mask = results.masks.get((cell.model, cell.mask))
    if mask is None:
        raise MbenchError(f"the results lack the mask {cell.mask[:12]} of {cell.model}")
    model = skeleton(str(source))
    layers = find_moe_layers(model)
    keep = checked(layers, mask)
    kept = experts_kept(keep)
    stored = read_headers(files)
    pruned = prune_tensors(model, layers, keep, stored)
    config = _pruned_config(source, model, layers[0], kept)
    full_model_type = config["model_type"]
    tensors: Sequence[NewTensor] = pruned.tensors
    rewritten = form == "transformers" and deepseek.is_deepseek(config)
    if rewritten:
        config = deepseek.qwen2_moe_json(config)
        tensors = deepseek.qwen2_moe_tensors(tensors)
    whole = [NewTensor(name, tensor) for name, tensor in stored.items()]
    done = Export(
        directory=out,
        full=Size(sum(t.parameters for t in whole), sum(t.size for t in whole)),
        pruned=Size(sum(t.parameters for t in tensors), sum(t.size for t in tensors)),
        num_experts=keep.shape[1],
        kept=kept,
        top_k=layers[0].top_k,
        pruned_top_k=layers[0].top_k_with(kept),
        left_out=pruned.left_out,
        dtype=_main_dtype(tensors),
        model_type=config["model_type"],
        full_model_type=full_model_type,
    )
    with _made_at_once(out) as folder:
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        refuse_misfit(model, layers, skeleton(str(folder)), kept)
        for path in sorted({path for pattern in OTHER_FILES for path in source.glob(pattern)}):
            weights_or_config = path.name == "config.json" or path.name.endswith(".index.json")
            unused_code = rewritten and path.suffix == ".py"
            if not (weights_or_config or unused_code):
                shutil.copyfile(path, folder / path.name)
        if rewritten:
            # transformers would not put the begin-of-sequence token that these files ask for.
            deepseek.load_tokenizer(str(source), None).save_pretrained(folder)
        paths = [layer.path for layer in layers]
        told = _mask(results, cell, recorded, ExpertMask(keep, cell.notes), paths)
        (folder / MASK_FILE).write_text(json.dumps(told) + "\n")
        card = model_card(results, cell, recorded, done, source)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_checkpoint(folder, tensors)
    return done


@contextlib.contextmanager
def _made_at_once(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` if nothing goes wrong, and disappears otherwise."""
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        # mkdtemp makes folders that only their owner can read.
        folder.chmod(0o777 & ~umask)
        folder.rename(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _pruned_config(
    source: Path, model: PreTrainedModel, layer: MoELayer, kept: int
) -> dict[str, Any]:
    """The configuration as its publisher wrote it, but for the numbers of experts."""
    from mbench.moe.adapter import EXPERT_COUNTS, TOP_K_FIELDS
    from mbench.moe.prune import pruned_fields

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    own = config.get("text_config") or config
    canonical = model.config.get_text_config().to_dict()
    for names in (EXPERT_COUNTS, TOP_K_FIELDS):
        # A field that has its class's default may be absent from the file.
        named = own if any(name in own for name in names) else canonical
        values = {name: named[name] for name in names if name in named}
        own.update(pruned_fields(values, layer, kept))
    return config


def _main_dtype(tensors: Sequence[NewTensor]) -> str:
    from mbench.moe.deepseek import DTYPES

    parameters: Counter[str] = Counter()
    for tensor in tensors:
        parameters[tensor.stored.dtype] += tensor.parameters
    ((name, _),) = parameters.most_common(1)
    return str(DTYPES.get(name, name)).removeprefix("torch.")


def _mask(
    results: Results,
    cell: CellResult,
    recorded: Mapping[str, Any],
    mask: ExpertMask,
    layers: list[str],
) -> dict[str, Any]:
    source = recorded.get("source") or {}
    # Where a directory was says nothing elsewhere; its content's hash does.
    known = {key: value for key, value in source.items() if key != "path"}
    return {
        **mask_to_json(mask, tuple(layers)),
        "experts_kept": cell.kept,
        "model": {"name": cell.model, "content": recorded["content"], **known},
        "method": cell.method,
        "seed": cell.seed,
        "retain": cell.retain,
        "router": cell.router,
        "suite": results.suite,
    }
