"""A small suite on the embedded model, and ways to plan and run it inside a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from helpers.disk_faults import changes_below, die
from mbench.core.results import Results, long_form
from mbench.plan.computing_code import Code
from mbench.plan.plan import Plan, make_plan
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.run.assemble import assemble
from mbench.run.progress import Progress
from mbench.run.provenance import gather
from mbench.run.runner import Runner
from mbench.run.session import Outcome
from mbench.storage.store import Store

SUITE = """\
name: tiny
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.25, 0.5]
seeds: [0, 1]
corpora:
  bible: {source: {plugin: bible, split: calibration}, sequences: 6, length: 32}
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 6, length: 32}
calibration: [bible, wiki]
methods:
  random:
  reap: {corpora: [bible]}
  same-as-reap: {use: reap, corpora: [bible]}
  expert-sparsity: {corpora: [wiki]}
  tb-coverage: {selector: {protected: 10}}
perplexity:
  ppl-wiki:
    {source: {plugin: wiki, split: evaluation}, window: 64, stride: 32, max_windows: 4}
tasks:
  cloze_bible: {metric: acc, limit: 6}
"""


class Watcher(Progress):
    """Counts forward tokens; may press Ctrl-C."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.tokens = 0
        self.warnings: list[str] = []
        self.evaluated: list[tuple[str, str]] = []
        """(mask, task) of every outcome that was announced."""
        self.interrupt_after = interrupt_after

    def advance(self, tokens: int) -> None:
        self.tokens += tokens
        if self.interrupt_after is not None and self.tokens > self.interrupt_after:
            raise KeyboardInterrupt

    def event(self, kind: str, **values: Any) -> None:
        if kind == "evaluation":
            self.evaluated.append((values["mask"], values["task"]))

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def plan_of(
    tmp_path: Path,
    store: Store,
    text: str = SUITE,
    plugins: tuple[Path, ...] = (),
    code: Code | None = None,
    **narrowing,
) -> Plan:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    suite, source = load_suite(path, **narrowing)
    return make_plan(suite, source, load_registry(plugins), store, code=code)


def results_of(plan: Plan, outcome: Outcome) -> Results:
    """What a run of the plan came to; any file stands in for its suite file."""
    provenance = gather(plan, outcome, Path(__file__), ["mbench", "run", "x"], [])
    return assemble(plan, outcome, provenance)


def go(plan: Plan, store: Store, progress: Progress | None = None) -> tuple[Outcome, pd.DataFrame]:
    outcome = Runner(plan, store, progress or Watcher()).run()
    return outcome, long_form(results_of(plan, outcome))


def run_until(folder: Path, root: Path, narrowing: dict[str, Any], first: int) -> None:
    """Run the suite in a process that dies at its change `first` of the store; writes the table."""
    with changes_below(root, first, die):
        store = Store(root)
        table = go(plan_of(folder, store, **narrowing), store)[1]
    (folder / "results.csv").write_text(table.to_csv(index=False))
