"""Runs that take all from a hub which changes, fails and dies; and their locks."""

from __future__ import annotations

import json
import random
import shutil

import pandas as pd
import pytest
from huggingface_hub import constants

from helpers.command import call
from helpers.tiny_models import qwen2_moe, randomised, save
from mbench.run import fetch_stage
from mbench.storage.checkpoints import Directory, model_key

SUITE = """\
name: small
models:
  tiny: {hub: acme/tiny}
retain: [0.5]
corpora:
  text: {source: {hub: acme/text}, sequences: 4, length: 16}
methods:
  reap: {corpora: [text]}
  imported: {checkpoint: acme/pruned}
perplexity:
  ppl: {source: {hub: acme/text, split: test}, protocol: gptq, window: 16}
tasks:
  quiz: {directory: tasks}
"""
TASK = """\
task: quiz
dataset_path: acme/quiz
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def words(generator, count):
    return " ".join(f"w{generator.randrange(3, 60)}" for _ in range(count))


def push_data(hub, seed):
    """Text as parquet, which is large file storage, and a task as JSON lines, which is not."""
    generator = random.Random(seed)
    text = {
        f"data/{split}-00000-of-00001.parquet": pd.DataFrame(
            {"text": [words(generator, 20) for _ in range(10)]}
        ).to_parquet()
        for split in ("train", "test")
    }
    hub.push("dataset", "acme/text", text)
    items = [
        {"question": words(generator, 4), "choices": [words(generator, 2) for _ in range(3)]}
        for _ in range(8)
    ]
    lines = "".join(json.dumps(item | {"answer": generator.randrange(3)}) + "\n" for item in items)
    hub.push("dataset", "acme/quiz", {"test.jsonl": lines.encode(), "README.md": b"# Quiz\n"})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two sets of weights of one architecture, each with a checkpoint of half as many experts."""
    folder = tmp_path_factory.mktemp("models")
    model, pruned = qwen2_moe(), qwen2_moe(num_experts=4)

    def saved(name):
        return {
            "acme/tiny": save(model, folder / name / "full"),
            "acme/pruned": save(pruned, folder / name / "pruned"),
        }

    first = saved("first")
    for each in (model, pruned):
        randomised(each, seed=1)
    return first, saved("second")


def push_models(hub, models):
    for name, folder in models.items():
        hub.push("model", name, folder)


@pytest.fixture
def place(online, models, tmp_path, monkeypatch):
    """A hub with all that the suite needs, and a folder with the suite."""
    push_models(online, models[0])
    push_data(online, seed=0)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "quiz.yaml").write_text(TASK)
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def mbench(place, *arguments, store="store", offline=False):
    # An earlier command of this process has gone offline.
    constants.HF_HUB_OFFLINE = offline
    return call(*arguments, cwd=place, store=place / store)


def results(place):
    return (place / "reports" / "small" / "results.csv").read_bytes()


def is_well(done):
    assert (done.returncode, "failed" in done.stderr) == (0, False), done.stderr
    return True


def test_a_lock_repeats_a_run_whatever_became_of_the_hub(place, online, models):
    assert is_well(mbench(place, "run", "suite.yaml"))
    first = results(place)
    lock = place / "reports" / "small" / "suite.lock"
    written = lock.read_text()
    assert json.loads(written)["identities"]["models"]["tiny"] == model_key(
        Directory(models[0]["acme/tiny"])
    )
    assert str(place) not in written
    for part in (
        "acme/tiny",
        "acme/pruned",
        "acme/text",
        "acme/quiz",
        "tasks/quiz.yaml",
        "torch==",
    ):
        assert part in written
    shutil.copy(lock, place / "kept")

    push_models(online, models[1])
    push_data(online, seed=1)
    shutil.rmtree(place / "cache")
    assert is_well(mbench(place, "run", "kept", store="another"))
    assert results(place) == first
    assert lock.read_text() == written

    # All is stored, and the hub is dead: the last answers that are known count.
    online.__exit__()
    (place / "cache").rename(place / "away")
    again = mbench(place, "run", "suite.yaml")
    assert is_well(again)
    assert "0 forward tokens" in again.stderr
    assert "cannot be reached" in again.stderr
    assert "as resolved on" in again.stderr
    assert results(place) == first
    (place / "away").rename(place / "cache")
    assert is_well(mbench(place, "run", "kept", store="third", offline=True))
    assert results(place) == first


def test_a_push_between_plan_and_load_changes_nothing(place, online, models, monkeypatch):
    assert is_well(mbench(place, "run", "suite.yaml"))
    first = results(place)
    fetch = fetch_stage.fetch

    def pushed_before(needed, progress):
        push_models(online, models[1])
        push_data(online, seed=1)
        fetch(needed, progress)
        online.__exit__()

    monkeypatch.setattr("mbench.run.runner.fetch", pushed_before)
    shutil.rmtree(place / "cache")
    assert is_well(mbench(place, "run", "suite.yaml", store="another"))
    assert results(place) == first


def test_a_file_that_the_hub_does_not_give_makes_no_other_tokenizer(place, online):
    online.fail("500", "tokenizer_config.json")
    done = mbench(place, "run", "suite.yaml")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "tokenizer_config.json" in line
    assert "500" in line
    assert not (place / "store" / "evaluations").exists()
    online.heal()
    assert is_well(mbench(place, "run", "suite.yaml"))


def test_weights_that_the_hub_does_not_give_are_told_with_the_model_once(place, online):
    online.fail("403", "model.safetensors")
    done = mbench(place, "run", "suite.yaml")
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed")]
    assert "model.safetensors" in line
    assert line.count("model acme/tiny") == 1


def test_a_plan_and_a_check_fetch_no_weights_and_a_lock_does(place, online):
    for verb in ("plan", "check"):
        assert is_well(mbench(place, verb, "suite.yaml"))
    fetched = {path.name for path in (place / "cache").rglob("snapshots/*/*")}
    assert "tokenizer_config.json" in fetched
    assert "model.safetensors" not in fetched
    done = mbench(place, "lock", "suite.yaml", "--output", "my.lock")
    assert is_well(done)
    assert done.stdout == "my.lock\n"
    online.__exit__()
    assert is_well(mbench(place, "run", "my.lock", offline=True))
    assert (place / "reports" / "small" / "suite.lock").read_text() == (
        place / "my.lock"
    ).read_text()
    printed = mbench(place, "lock", "my.lock", "--output", "-", offline=True)
    assert printed.stdout == (place / "my.lock").read_text()


def test_a_model_of_another_revision_is_taken(place, online, models):
    commit = online.push("model", "acme/tiny", models[1]["acme/tiny"], branch="next")
    done = mbench(place, "lock", "suite.yaml", "--model", "tiny=acme/tiny@next", "--output", "-")
    assert is_well(done)
    lock = json.loads(done.stdout)
    (model,) = [each for each in lock["hub"]["repositories"] if each["name"] == "acme/tiny"]
    assert (model["revision"], model["commit"]) == ("next", commit)
    assert lock["identities"]["models"]["tiny"] == model_key(Directory(models[1]["acme/tiny"]))
