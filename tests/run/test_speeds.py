import numpy as np
import pytest

from mbench.core.evaluation import GenerationWork
from mbench.plan.keys import ModelIdentity
from mbench.plan.speeds import Speeds, TaskSpeed, read_speeds, write_speeds
from mbench.plan.tasks import TaskSize
from mbench.run.speeds import SpeedMeter, expected_length
from mbench.storage.store import Store

MODEL = ModelIdentity("tiny", "sha256:0", "auto")


def test_what_was_not_measured_stays_as_it_was(tmp_path):
    store = Store(tmp_path)
    before = Speeds(9.0, 0.5, {"a": 3.0}, {"old": TaskSpeed(0.1, 0.0)})
    write_speeds(store, MODEL, before)
    meter = SpeedMeter(store, MODEL)
    assert meter.speeds() == before
    assert meter.knows("old")
    assert not meter.knows("new")
    meter.evaluated("new", TaskSize(10, 1000, 0), seconds=50.0, pruned=False)
    assert meter.speeds().tasks["new"] == TaskSpeed(0.05)
    assert not meter.knows("new")  # not under masks
    meter.profiled(seconds=2.0, tokens=100)
    meter.made("b", 1.0)
    meter.made("b", 2.0)
    meter.evaluated("new", TaskSize(10, 1000, 0), seconds=5.0)
    meter.evaluated("new", TaskSize(2, 200, 0), seconds=1.0)
    meter.evaluated("new", TaskSize(10, 1000, 0), seconds=90.0, pruned=False)
    meter.write()
    found = read_speeds(store, MODEL)
    assert (found.load, found.profile) == (9.0, 0.02)
    assert found.masks == {"a": 3.0, "b": 1.5}
    assert found.tasks["old"] == TaskSpeed(0.1, 0.0)
    assert found.tasks["new"].read == pytest.approx(6.0 / 1200)


def test_of_a_generating_task_prompts_and_answers_are_told_apart(tmp_path):
    meter = SpeedMeter(Store(tmp_path), MODEL)
    size = TaskSize(items=4, tokens=500, generated=400)
    meter.evaluated("gen", size, seconds=9.0, reading=1.0)
    speed = meter.speeds().tasks["gen"]
    assert (speed.read, speed.generated) == (1.0 / 100, 8.0 / 400)
    assert speed.seconds(size) == pytest.approx(9.0)


def test_lengths_of_answers_follow_from_those_that_ended():
    """Answers that end at any token alike, watched for some steps only."""
    rng = np.random.default_rng(0)
    limit, watched = 100, 30
    lengths = np.minimum(rng.geometric(0.04, 20_000), limit)
    tokens = np.minimum(lengths, watched).sum()
    ended = int((lengths <= watched).sum())
    assert expected_length(ended, int(tokens), limit) == pytest.approx(lengths.mean(), rel=0.02)
    assert expected_length(0, 500, limit) == limit
    # Most end at the token that comes with their prompt, which is not counted.
    assert expected_length(100, 28, 64) == pytest.approx(0.28)


def test_answers_that_were_begun_price_a_task(tmp_path):
    meter = SpeedMeter(Store(tmp_path), MODEL)
    # 8 of 10 answers of at most 100 tokens had ended after 40 tokens each; two go on.
    work = GenerationWork(500, 1.0, 40, 400, 8.0, ended=8, begun=10, limits=1000)
    meter.begun("gen", work)
    speed = meter.speeds().tasks["gen"]
    each = 8 / 400
    length = sum(n * each * (1 - each) ** (n - 1) for n in range(1, 100)) + 100 * (1 - each) ** 99
    size = TaskSize(items=20, tokens=1000 + 6000, generated=6000)  # three answers an item
    assert speed.seconds(size) == pytest.approx(1000 * 0.002 + 60 * length * 0.02)
    # Where a token is an answer, prompts are all that there is.
    meter.begun("one", GenerationWork(500, 1.0, begun=10, limits=10))
    assert meter.speeds().tasks["one"] == TaskSpeed(0.002, 0.0)
    meter.begun("not yet", GenerationWork(500, 1.0, begun=10, limits=1000))
    assert not meter.knows("not yet")
