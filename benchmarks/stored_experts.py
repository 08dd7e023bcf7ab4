"""Experts kept in memory as stored in FP8, beside the same ones as numbers: memory and time.

Usage: python benchmarks/stored_experts.py [--tokens 2048] [--repeats 5] [--device cuda]

Prints bytes of the experts, and the median seconds of forward passes, in turns. The logits must be
equal bit for bit, or it fails. The model is a small random Qwen2-MoE with 60 experts, in blocks of
128x128.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import torch
from in_turns import in_turns
from random_model import random_model
from safetensors.torch import load_file, save_file

from mbench.moe.experts import fast_experts
from mbench.moe.load import LoadedModel, load
from mbench_plugins.demo.store_in_fp8 import FULL, PLAIN, quantise


def write(folder: Path) -> None:
    """A random model, stored in FP8."""
    sizes = {"hidden_size": 1024, "moe_intermediate_size": 512, "num_experts": 60}
    others = dict.fromkeys(("shared_expert_intermediate_size", "intermediate_size"), 1024)
    vocabulary = json.loads((FULL / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    model = random_model(
        torch.bfloat16,
        "cpu",
        vocab_size=vocabulary,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        **sizes,
        **others,
    )
    model.save_pretrained(folder)
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensors[name] = tensor
        if tensor.dim() == 2 and not any(part in name for part in (*PLAIN, "lm_head")):
            tensors[name], tensors[f"{name}_scale_inv"] = quantise(tensor)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(FULL / name, folder / name)


def expert_bytes(loaded: LoadedModel) -> int:
    tensors = [each for layer in loaded.layers for each in layer.experts.parameters()]
    return sum(each.numel() * each.element_size() for each in tensors)


@torch.no_grad()
def logits(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    with fast_experts(loaded.layers):
        return loaded.model(ids, use_cache=False).logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for dtype in ("bfloat16", "float32"):
            models = {
                experts: load(folder, dtype=dtype, device=options.device, experts=experts)
                for experts in ("computed", "stored")
            }
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(0, 256, (8, options.tokens // 8), generator=generator)
            ids = ids.to(options.device)
            ways = {name: partial(logits, loaded, ids) for name, loaded in models.items()}
            turns = in_turns(ways, options.repeats, options.device)
            for found in turns.results:
                assert torch.equal(found["computed"], found["stored"])
            sizes = {name: expert_bytes(loaded) / 2**20 for name, loaded in models.items()}
            print(
                f"{dtype}: experts {sizes['computed']:.0f} -> {sizes['stored']:.0f} MiB,"
                f" {options.tokens} tokens in {turns.median('computed'):.2f} ->"
                f" {turns.median('stored'):.2f} s, x{turns.ratio('stored', 'computed')}"
            )


if __name__ == "__main__":
    main()
