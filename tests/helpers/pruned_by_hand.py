"""Pruned checkpoints of the embedded model, written tensor by tensor without mbench."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import mbench_plugins.demo

DEMO = Path(mbench_plugins.demo.__file__).parent / "model"
EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(.*)")
ROUTER = re.compile(r"model\.layers\.(\d+)\.mlp\.gate\.weight")


def write_pruned(folder: Path, order, change=lambda tensors: None) -> Path:
    """The embedded model with the experts `order[layer]`, in that order.

    `change` gets the tensors of the pruned model by name, to alter them.
    """
    folder.mkdir()
    for path in DEMO.iterdir():
        if path.suffix == ".json":
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text())
    config["num_experts"] = len(order[0])
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}
    for name, tensor in load_file(DEMO / "model.safetensors").items():
        if match := EXPERT.fullmatch(name):
            layer, expert = int(match[1]), int(match[2])
            if expert in order[layer]:
                number = list(order[layer]).index(expert)
                tensors[f"model.layers.{layer}.mlp.experts.{number}.{match[3]}"] = tensor
        elif match := ROUTER.fullmatch(name):
            tensors[name] = tensor[torch.tensor(order[int(match[1])])].contiguous()
        else:
            tensors[name] = tensor
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
