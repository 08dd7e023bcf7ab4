"""What a worker is told is enough to do its part of a run, and it does nothing else."""

from __future__ import annotations

import shutil

from helpers.tiny_suite import SUITE, go, plan_of
from mbench.run.processes import Order, Processes, work
from mbench.storage.store import Store

PLUGIN = """
import mbench

class Power(mbench.Scorer):
    name = "power"
    needs = (mbench.RoutingSums(),)
    class Params(mbench.Parameters):
        exponent: int | None = 2
    def score(self, profile):
        return profile.sums(mbench.RoutingSums())["count"] ** (self.params.exponent or 1)

@mbench.hookimpl
def mbench_components():
    return [Power]

@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("power", scorer="power", corpora=1)]
"""


def test_a_worker_evaluates_what_is_pending_under_the_same_keys(tmp_path, store):
    plugin = tmp_path / "power.py"
    plugin.write_text(PLUGIN)
    # A parameter that is null, and options that narrow the suite: the order must carry both.
    text = SUITE.replace("  random:\n", "  power: {corpora: [bible], scorer: {exponent: null}}\n")
    plan = plan_of(tmp_path, store, text, (plugin,), retain=[0.5], methods=["power"], limit=3)
    go(plan, store)
    files = {path.name: path.read_bytes() for path in (store.root / "evaluations").iterdir()}
    shutil.rmtree(store.root / "evaluations")
    before = {path for path in store.root.rglob("*") if path.is_file()}
    order = Processes(plan, Store(store.root)).order("demo", 1)
    assert "exponent" in order.to_json()
    work(Order.model_validate_json(order.to_json()))
    again = {path.name: path.read_bytes() for path in (store.root / "evaluations").iterdir()}
    assert again == files
    made = {path for path in store.root.rglob("*") if path.is_file()} - before
    assert {path.parent.name for path in made} == {"evaluations"}
