"""A suite whose store is in object storage: the figures of a local run, whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from helpers.command import call
from helpers.s3_server import BUCKET, s3_server
from mbench.storage.housekeeping import contents
from mbench.storage.store import Store

SUITE = """\
name: small
models: {demo: {plugin: demo, dtype: float32}}
retain: [0.5]
seeds: [0]
corpora:
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 4, length: 64}
calibration: [wiki]
methods: {random: , reap: , expert-sparsity: }
tasks:
  cloze_bible: {metric: acc, limit: 40}
  cloze_wiki: {metric: acc, limit: 40}
average: {name: Avg, tasks: [cloze_bible, cloze_wiki]}
"""
URL = f"s3://{BUCKET}/night"


@pytest.fixture
def s3(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "suite.yaml").write_text(SUITE)
    with s3_server(monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The table of a run with its store in a folder, and that store."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "suite.yaml").write_text(SUITE)
    return run(folder, folder / "store", "local")[0], Store(folder / "store")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As in the processes that are started here: sums depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(folder, store, name):
    """Run the suite; returns its table, and the forward tokens that it took."""
    words = ("run", "suite.yaml", "--quiet", "--output", name)
    done = call(*words, cwd=folder, store=store)
    assert done.returncode == 0, done
    report = folder / name / "small"
    provenance = json.loads((report / "results.json").read_text())["provenance"]
    return (report / "results.csv").read_bytes(), provenance["runs"][0]["cost"]["forward_tokens"]


def start(folder, verb, *options, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "mbench", verb, "suite.yaml", *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MBENCH_STORE": URL, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(kind, count):
    """Until so many of one kind are stored."""
    store, until = Store(URL), time.monotonic() + 120
    while len(contents(store, [kind])) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_run_and_the_verbs_of_the_store_do_as_in_a_folder(s3, tmp_path, expected):
    table, folder = expected
    assert run(tmp_path, URL, "there")[0] == table
    local, there = contents(folder), contents(Store(URL))
    kinds = ("statistics", "masks", "evaluations")
    assert [e.key for e in local if e.key.kind in kinds] == [
        e.key for e in there if e.key.kind in kinds
    ]
    # What is stored is not computed again.
    assert run(tmp_path, URL, "again") == (table, 0)

    def ask(*words):
        return call("store", *words, cwd=tmp_path, store=URL)

    assert len(ask("list", "--kind", "masks").stdout.splitlines()) == 3 + 1
    (mask, *_) = (each for each in there if each.key.kind == "masks")
    assert f"file: {URL}/masks/{mask.key.digest}" in ask("show", mask.key.digest).stdout
    assert f"{len(there)} artefacts" in ask("verify").stdout
    assert "would remove 0 artefacts" in ask("prune", "suite.yaml").stdout
    assert ask("copy", "back", "suite.yaml").returncode == 0
    assert run(tmp_path, tmp_path / "back", "back-again") == (table, 0)
    assert ask("prune", "--older-than", "0h", "--yes").returncode == 0
    assert contents(Store(URL)) == []


def test_a_server_that_dies_ends_a_run_with_one_line_and_the_next_goes_on(s3, tmp_path, expected):
    running = start(tmp_path, "run", "--output", "a", "--quiet", AWS_MAX_ATTEMPTS="1")
    wait_for("masks", 1)
    s3.stop()
    _, stderr = running.communicate(timeout=120)
    assert running.returncode == 2, stderr
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert URL in lines[0]
    s3.start()
    made = {e.key: e.written for e in contents(Store(URL), ["statistics", "masks"])}
    assert run(tmp_path, URL, "b")[0] == expected[0]
    kept = {e.key: e.written for e in contents(Store(URL), ["statistics", "masks"])}
    assert made.items() <= kept.items()


def test_workers_share_it_and_take_over_from_one_that_is_killed(s3, tmp_path, expected):
    doomed = start(tmp_path, "worker", "--shard", "1/2", "--quiet")
    wait_for("evaluations", 1)
    other = start(tmp_path, "worker", "--shard", "2/2", "--quiet")
    time.sleep(1)
    doomed.kill()
    doomed.communicate()
    _, stderr = other.communicate(timeout=240)
    assert other.returncode == 0, stderr
    assert run(tmp_path, URL, "there") == (expected[0], 0)


def test_what_the_server_refuses_is_one_line(s3, tmp_path):
    for words, line in (
        (("run", "suite.yaml", "--store", "s3://absent/p"), "there is no such bucket"),
        (("store", "list", "--store", URL), f"there is no store at {URL}"),
    ):
        done = call(*words, cwd=tmp_path, store=URL)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert line in done.stderr
        assert done.stderr.count("\n") == 1
