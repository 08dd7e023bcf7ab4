"""The embedded model in FP8 is what its script writes, and within the rounding of e4m3."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from mbench_plugins.demo import store_in_fp8
from mbench_plugins.demo.plugin import MODEL, MODEL_IN_FP8


def test_the_package_contains_what_the_script_writes(tmp_path):
    store_in_fp8.write(tmp_path / "again")
    written = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    packed = {path.name: path.read_bytes() for path in MODEL_IN_FP8.iterdir()}
    assert packed.keys() - written.keys() == {"README.md"}
    assert all(packed[name] == content for name, content in written.items())


def test_each_number_is_within_the_rounding_of_its_form():
    full, stored = (
        load_file(MODEL / "model.safetensors"),
        load_file(MODEL_IN_FP8 / "model.safetensors"),
    )
    quantised = [name for name in full if stored[name].dtype == torch.float8_e4m3fn]
    assert len(quantised) == 4 * (24 * 3 + 3 + 4)
    for name in full:
        if name not in quantised:
            assert torch.equal(stored[name], full[name])
    for name in quantised[::17]:
        numbers, scales = full[name].double(), stored[f"{name}_scale_inv"].double()
        assert scales.shape == tuple(-(-size // 128) for size in numbers.shape)
        for row in range(0, len(numbers), 5):
            for column in range(0, numbers.shape[1], 7):
                scale = scales[row // 128, column // 128]
                value = stored[name][row, column].double() * scale
                # Three bits of mantissa; below 2^-6, steps of 2^-9.
                most = max(abs(numbers[row, column]) / 16, scale * 2**-10)
                assert abs(value - numbers[row, column]) <= most
