import pytest

from mbench.plan.keys import ModelIdentity
from mbench.plan.speeds import Speeds, TaskSpeed, read_speeds, write_speeds
from mbench.plan.tasks import TaskSize
from mbench.run.speeds import SpeedMeter
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
    meter.profiled(seconds=2.0, tokens=100)
    meter.made("b", 1.0)
    meter.made("b", 2.0)
    meter.evaluated("new", TaskSize(10, 1000, 0), seconds=5.0)
    meter.evaluated("new", TaskSize(10, 1000, 0), seconds=1.0, share=0.2)
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
