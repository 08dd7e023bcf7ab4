"""Writes the demo model in FP8, as Qwen3-FP8 and DeepSeek-V3 are published.

`python -m mbench_plugins.demo.store_in_fp8 --out DIR` gives the bytes that the package contains.
Each block of 128x128 numbers of a matrix has one scale, its largest absolute value over 448, which
is the largest number of e4m3; blocks at the edge are smaller. Embeddings, routers and norms stay.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FULL = Path(__file__).parent / "model"
BLOCK = 128
LARGEST = 448.0
PLAIN = ("embed_tokens", "norm", "mlp.gate.", "shared_expert_gate")
"""In the names of weights that are not quantised."""


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix [R, C] as e4m3, and the scale of each block, float32 [ceil(R/128), ceil(C/128)]."""
    numbers, scales = weight.float(), []
    stored = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for top in range(0, len(numbers), BLOCK):
        row = []
        for left in range(0, numbers.shape[1], BLOCK):
            block = numbers[top : top + BLOCK, left : left + BLOCK]
            scale = block.abs().max().clamp_min(1e-12) / LARGEST
            stored[top : top + BLOCK, left : left + BLOCK] = (block / scale).to(stored.dtype)
            row.append(scale)
        scales.append(torch.stack(row))
    return stored, torch.stack(scales)


def write(folder: Path) -> None:
    """Write the whole checkpoint."""
    folder.mkdir(parents=True)
    tensors = {}
    for name, tensor in load_file(FULL / "model.safetensors").items():
        if tensor.dim() == 2 and not any(part in name for part in PLAIN):
            tensors[name], tensors[f"{name}_scale_inv"] = quantise(tensor)
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((FULL / "config.json").read_text(encoding="utf-8"))
    layers = range(config["num_hidden_layers"])
    config["quantization_config"] = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "modules_to_not_convert": [
            "model.embed_tokens",
            *(
                f"model.layers.{n}.mlp.{gate}"
                for n in layers
                for gate in ("gate", "shared_expert_gate")
            ),
        ],
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(FULL / name, folder / name)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
