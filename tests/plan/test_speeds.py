import platform

import pytest

from mbench.plan.fact_keys import speed_key
from mbench.plan.keys import ModelIdentity
from mbench.plan.speeds import GENERATED, Speeds, TaskSpeed, read_speeds, write_speeds
from mbench.plan.tasks import TaskSize
from mbench.storage.store import Store

MODEL = ModelIdentity("tiny", "sha256:0", "auto")


def test_prompts_and_answers_have_a_price_each():
    assert TaskSpeed(read=0.001, generated=0.02).seconds(
        TaskSize(items=3, tokens=1000, generated=100)
    ) == pytest.approx(900 * 0.001 + 100 * 0.02)


def test_a_task_that_was_not_measured_is_like_the_others_of_the_model():
    known = Speeds(tasks={"a": TaskSpeed(1.0), "b": TaskSpeed(3.0, 10.0)})
    assert known.of("c", assumed=99.0) == TaskSpeed(2.0, 10.0)
    assert known.of("b", assumed=99.0) == TaskSpeed(3.0, 10.0)
    assert Speeds().of("c", assumed=0.5) == TaskSpeed(0.5, 0.5 * GENERATED)
    assert Speeds(profile=7.0).for_profiles(assumed=1.0) == 7.0
    assert known.for_profiles(assumed=1.0) == 2.0


def test_speeds_are_kept_by_machine_and_one_of_another_version_is_not_read(tmp_path):
    store = Store(tmp_path)
    assert read_speeds(store, MODEL) == Speeds()
    measured = Speeds(1.5, 0.25, {"reap": 2.0}, {"task": TaskSpeed(0.1, 0.2)})
    write_speeds(store, MODEL, measured)
    assert read_speeds(store, MODEL) == measured
    store.write_json(speed_key(MODEL, platform.node()), {"tokens_per_second": 5.0}, replace=True)
    assert read_speeds(store, MODEL) == Speeds()
