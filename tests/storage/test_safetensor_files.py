"""Checkpoints that are copied range by range."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

from mbench.storage.safetensor_files import NewTensor, read_headers, write_checkpoint


def test_large_checkpoints_are_written_as_numbered_files(tmp_path):
    shapes = {"wide": (100, 20), "small": (3,), "larger than a file": (60, 100), "last": (90, 10)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "full.safetensors")
    stored = read_headers([tmp_path / "full.safetensors"])
    out = tmp_path / "out"
    out.mkdir()
    write_checkpoint(out, [NewTensor(*each) for each in stored.items()], shard_bytes=10_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = {path.name: load_file(path) for path in sorted(out.glob("*.safetensors"))}
    total = len(files)
    assert total > 1
    assert list(files) == [f"model-{n:05d}-of-{total:05d}.safetensors" for n in range(1, total + 1)]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["weight_map"] == {name: file for file, held in files.items() for name in held}
    for held in files.values():
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 10_000
    found = {name: tensor for held in files.values() for name, tensor in held.items()}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
