"""A full checkpoint and one pruned from it by slicing its tensors here, to be altered at will."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from helpers.family_cases import IDS
from helpers.family_models import COUNTS, TOP_K, family_of, tiny_model
from helpers.tiny_models import save

EXPERTS = 8


@dataclass
class Pair:
    """Both models in memory; `order` says which of the full model's experts a layer holds."""

    full: Any
    state: dict[str, torch.Tensor]
    config: Any
    order: list[list[int]]
    experts: list[dict[str, str]]
    """Per layer: attribute of the experts' module -> name in the state dict."""
    routers: list[list[str]]
    """Per layer: names of the tensors with an entry per expert."""

    @property
    def keep(self) -> np.ndarray:
        keep = np.zeros((len(self.order), EXPERTS), dtype=bool)
        for row, order in zip(keep, self.order, strict=True):
            row[order] = True
        return keep

    def original(self, layer: int, name: str, expert: int) -> torch.Tensor:
        """A tensor of one of the full model's experts."""
        return self.full.state_dict()[self.experts[layer][name]][expert]

    def smaller(self) -> Any:
        model = type(self.full)(self.config).to(self.full.dtype)
        model.load_state_dict(self.state)
        return model.eval()

    def write(self, folder: Path) -> tuple[Path, Path]:
        return save(self.full, folder / "full"), save(self.smaller(), folder / "pruned")


@cache
def _full(model_type: str, **changes: Any) -> Any:
    return tiny_model(model_type, num_experts=EXPERTS, **changes)


def sliced(model_type: str, order: list[list[int]] | int, dtype=None, **changes: Any) -> Pair:
    """The family's tiny model with these experts; a number: as many of each layer, at random."""
    full = copy.deepcopy(_full(model_type, **changes))
    if dtype is not None:
        full = full.to(dtype)
        full.config.dtype = dtype
    paths = [
        name.rpartition(".")[0] for name, _ in full.named_modules() if name.endswith(".experts")
    ]
    if isinstance(order, int):
        generator = np.random.default_rng(3)
        order = [sorted(generator.permutation(EXPERTS)[:order].tolist()) for _ in paths]
    router = family_of(model_type).router
    state = dict(full.state_dict())
    experts, routers = [], []
    for path, kept in zip(paths, order, strict=True):
        names = [name for name in state if name.startswith(f"{path}.experts.")]
        own = [f"{path}.{each}" for each in (router.weight, *router.vectors())]
        own = [name for name in own if name in state]
        for name in (*names, *own):
            dim = 0 if state[name].shape[0] == EXPERTS else 1
            state[name] = state[name].index_select(dim, torch.tensor(kept))
        experts.append({name.rpartition(".")[2]: name for name in names})
        routers.append(own)
    config = copy.deepcopy(full.config)
    kept = len(order[0])
    text = config.get_text_config()
    known = {each.name for each in dataclasses.fields(text)}
    for name in known & {*COUNTS}:
        setattr(text, name, kept)
    for name in known & {*TOP_K}:
        setattr(text, name, min(kept, getattr(text, name)))
    return Pair(full, state, config, order, experts, routers)


@torch.no_grad()
def logits(folder: Path, ids: torch.Tensor = IDS) -> torch.Tensor:
    """What stock transformers computes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    return model(input_ids=ids, use_cache=False).logits.double()


def sliced_files(
    full: Path,
    out: Path,
    kept: list[int] | list[list[int]],
    change: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None,
) -> Path:
    """Copy a checkpoint of one file with these experts, in each layer or layer by layer.

    Goes by names alone; `change` may alter the tensors that are written.
    """
    out.mkdir()
    for file in full.iterdir():
        if file.is_file():
            (out / file.name).write_bytes(file.read_bytes())
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(full / "model.safetensors").items():
        layer = re.search(r"layers\.(\d+)\.", name)
        order: Any = kept[int(layer[1])] if layer and isinstance(kept[0], list) else kept
        one = re.fullmatch(r"(.*\.experts\.)(\d+)(\..*)", name)
        if one:
            if int(one[2]) in order:
                tensors[f"{one[1]}{order.index(int(one[2]))}{one[3]}"] = tensor
        elif ".experts." in name or re.search(r"\.(router|mlp\.gate)\.", name):
            tensors[name] = tensor[torch.tensor(order)].contiguous()
        else:
            tensors[name] = tensor
    change(tensors)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    count = len(kept[0]) if isinstance(kept[0], list) else len(kept)
    config |= {name: count for name in COUNTS if name in config}
    config |= {name: min(count, config[name]) for name in TOP_K if name in config}
    (out / "config.json").write_text(json.dumps(config))
    return out
