"""A suite whose store is in object storage: the figures of a local run, whatever happens."""

from __future__ import annotations

import json

import pytest

from helpers.command import call
from helpers.forked import Forked
from helpers.held import GO_ON, after_one_evaluation
from helpers.s3_server import BUCKET, s3_server
from helpers.shared_work import suite
from mbench.storage.housekeeping import contents
from mbench.storage.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = suite("expert-sparsity: ", retain=[0.5], seeds=1, limit=16)
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


def run(folder, store, name):
    """Run the suite; returns its table, and the forward tokens that it took."""
    words = ("run", "suite.yaml", "--quiet", "--output", name)
    done = call(*words, cwd=folder, store=store)
    assert done.returncode == 0, done
    report = folder / name / "shared"
    provenance = json.loads((report / "results.json").read_text())["provenance"]
    return (report / "results.csv").read_bytes(), provenance["runs"][0]["cost"]["forward_tokens"]


def held(folder, verb, *options, **environment):
    """Have a process begin in a folder of its own, and wait once it has stored an outcome."""
    folder.mkdir()
    (folder / "suite.yaml").write_text(SUITE)
    words, first = (verb, "suite.yaml", "--quiet", *options), after_one_evaluation
    process = Forked(*words, cwd=folder, store=URL, environment=environment, first=first)
    process.wait_until_held()
    return process


def test_a_run_and_the_verbs_of_the_store_do_as_in_a_folder(s3, tmp_path, expected):
    table, folder = expected
    assert run(tmp_path, URL, "there")[0] == table
    local, there = contents(folder), contents(Store(URL))
    kinds = ("statistics", "masks", "evaluations")
    assert [e.key for e in local if e.key.kind in kinds] == [
        e.key for e in there if e.key.kind in kinds
    ]

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


def test_what_is_lost_with_a_server_or_a_worker_others_go_on_from(s3, tmp_path, expected):
    running = held(tmp_path / "a", "run", AWS_MAX_ATTEMPTS="1")
    s3.stop()
    (tmp_path / "a" / GO_ON).touch()
    done = running.ended()
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert URL in lines[0]
    s3.start()
    made = {e.key: e.written for e in contents(Store(URL), ["statistics", "masks"])}

    doomed = held(tmp_path / "b", "worker", "--shard", "1/2")
    other = held(tmp_path / "c", "worker", "--shard", "2/2")
    doomed.kill()
    doomed.wait()
    (tmp_path / "c" / GO_ON).touch()
    done = other.ended()
    assert done.returncode == 0, done.stderr
    kept = {e.key: e.written for e in contents(Store(URL), ["statistics", "masks"])}
    assert made.items() <= kept.items()
    # What is stored is not computed again.
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
