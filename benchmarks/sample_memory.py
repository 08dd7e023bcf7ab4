"""Memory that a statistic's sample takes while it is collected and while it is read.

Usage: python benchmarks/sample_memory.py [--layers 16]

Profiles a small random Qwen2-MoE with 60 experts on 9,216 tokens, all of which ExpertSparsity
samples, into a store, in a process of its own whose peak (VmHWM) is read from outside. Printed: the
sample's bytes, and by how much the peak exceeds that of a pass with routing sums alone, of a pass
that holds the pieces and joins them (what a sample in memory costs), and of reading all layers.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from random_model import random_model

from mbench.core.basics import RoutingSums
from mbench.core.run_record import CorpusProfile
from mbench.moe.adapter import find_moe_layers
from mbench.moe.calibration import TokenSequences
from mbench.moe.profile import profile_model
from mbench.storage.store import Key, Store
from mbench_plugins.expert_sparsity import ReconstructionSample

KEY = Key.of("statistics", "sample", {"what": "benchmark"})
MODES = ("sums", "sample", "held", "read")


def work(mode: str, folder: Path, layers: int) -> None:
    """What one process does: a pass, or reading what a pass has stored."""
    torch.set_num_threads(1)
    store = Store(folder)
    if mode == "read":
        for layer in range(layers):
            rows = np.arange(0, 9216, 2)
            assert np.isfinite(store.read_samples(KEY, layer)["gram"][rows]).all()
        return
    model = random_model(
        torch.float32,
        "cpu",
        vocab_size=512,
        num_hidden_layers=layers,
        num_experts=60,
        hidden_size=64,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        intermediate_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    ids = np.random.default_rng(0).integers(0, 512, (18, 512))
    text = TokenSequences(ids, np.full(len(ids), ids.shape[1]))
    statistic = RoutingSums() if mode == "sums" else ReconstructionSample()
    collected = profile_model(
        model, find_moe_layers(model), text, [statistic], batch_size=2, new_sample=store.new_sample
    )
    sums = collected.sums.get(statistic.identity, {})
    samples = collected.samples.get(statistic.identity, {})
    if mode == "held":
        pieces = {n: [np.array_split(a.copy(), 16) for a in of] for n, of in samples.items()}
        joined = {n: [np.concatenate(each) for each in of] for n, of in pieces.items()}
        samples = joined
    store.write_statistic(KEY, CorpusProfile(ids.size), sums, samples)


def peak(mode: str, folder: Path, layers: int) -> int:
    """Bytes that a process of its own has held at most."""
    command = [sys.executable, __file__, "--layers", str(layers), "--work", mode, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # It is done, and waits.
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.stdin.close()
        process.wait()
    assert process.returncode == 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--work", nargs=2, metavar=("MODE", "FOLDER"))
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]), options.layers)
        print("done", flush=True)
        sys.stdin.read()
        return
    with tempfile.TemporaryDirectory() as folder:
        stores = {mode: Path(folder) / mode for mode in MODES} | {"read": Path(folder) / "sample"}
        peaks = {mode: peak(mode, stores[mode], options.layers) for mode in MODES}
        size = sum(file.stat().st_size for file in stores["sample"].rglob("layer-*"))
    print(f"sample of {size / 1e6:.0f} MB in {options.layers} layers; peaks of a process:")
    for mode, bytes_held in peaks.items():
        above = (bytes_held - peaks["sums"]) / size
        print(f"{mode:8} {bytes_held / 1e6:8.0f} MB  {above:6.2f} of the sample above `sums`")


if __name__ == "__main__":
    main()
