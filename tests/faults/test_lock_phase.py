"""Kills while inputs are resolved and fetched: no half file is taken, and the next try goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.hub_server import HubServer
from helpers.places import ROOT
from helpers.tiny_models import qwen2_moe, save

SUITE = """\
name: small
models: {tiny: {hub: acme/tiny}}
retain: [0.5]
methods: {random: {seeds: [0]}}
perplexity: {ppl: {source: {hub: acme/text}, protocol: gptq, window: 16}}
"""

ROUNDS = """\
import os, random, shutil, sys
from pathlib import Path
tests, rounds, generator = sys.argv[1], int(sys.argv[2]), random.Random(0)
sys.path.insert(0, tests)
from helpers.disk_faults import changes_below, die
import datasets, huggingface_hub, transformers
import mbench.evaluate.perplexity, mbench.moe.load
from mbench.cli import group

# Forked, so that all share what is imported.
def locked(first):
    child = os.fork()
    if child == 0:
        with changes_below(Path.cwd(), first, die):
            group(["lock", "suite.yaml", "--output", "my.lock"], standalone_mode=False)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert locked(10**9) == 0
whole, kills = Path("my.lock").read_bytes(), 0
for _ in range(rounds):
    for made in ("hf", "store"):
        shutil.rmtree(made)
    Path("my.lock").unlink()
    while (status := locked(generator.randrange(1, 60))) == -9:
        kills += 1
        assert not Path("my.lock").exists() or Path("my.lock").read_bytes() == whole
    assert status == 0, status
    assert Path("my.lock").read_bytes() == whole
print(kills)
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_a_lock_whose_making_is_killed_again_and_again_is_the_same(tmp_path, rounds):
    (tmp_path / "suite.yaml").write_text(SUITE)
    with HubServer() as hub:
        hub.push("model", "acme/tiny", save(qwen2_moe(), tmp_path / "model"))
        lines = '{"text": "w3 w5 w9 w11 w4"}\n' * 60
        hub.push("dataset", "acme/text", {"train.jsonl": lines.encode(), "README.md": b"# Text\n"})
        own = {"HF_HOME": str(tmp_path / "hf"), "MBENCH_STORE": str(tmp_path / "store")}
        on = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", ROUNDS, str(ROOT / "tests"), str(rounds)],
            cwd=tmp_path,
            env={**os.environ, **own, **on, "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.split()[-1])
    print(f"{kills} kills in {rounds} rounds")
    assert kills >= rounds
