"""Every metric of every task, against means by hand."""

import numpy as np
import pytest

from helpers.pages import paper_boards
from mbench.report.tables.every_metric import every_metric


def test_every_task_has_every_metric_and_marks_the_best():
    run = paper_boards()
    table = every_metric(run.groups[0].boards[1])
    parts = [(column.text, column.detail) for column in table.columns[1:]]
    assert parts.index(("arc_easy", "acc_norm")) < parts.index(("arc_easy", "acc"))
    assert ("ppl-c4", "bits_per_byte ↓") in parts
    column = parts.index(("arc_easy", "acc"))
    cells = [c for c in run.results.cells if c.model == "qwen" and c.retain == 0.5]
    by_hand: dict[str, list[float]] = {}
    for cell in cells:
        by_hand.setdefault(cell.method, []).append(cell.evaluations["arc_easy"].items.acc.mean())
    shown = {row.head.text: row.cells[column] for row in table.rows[1:]}
    assert {m: c.sort for m, c in shown.items()} == {
        m: pytest.approx(np.mean(values)) for m, values in by_hand.items()
    }
    top = max(np.mean(values) for values in by_hand.values())
    best = {m for m, cell in shown.items() if cell.kind == "best"}
    assert best == {m for m, values in by_hand.items() if np.mean(values) == pytest.approx(top)}
    lowest = parts.index(("ppl-c4", "perplexity ↓"))
    values = [row.cells[lowest] for row in table.rows[1:]]
    assert min(values, key=lambda cell: cell.sort).kind == "best"
    failed = every_metric(run.groups[1].boards[0])
    row = next(r for r in failed.rows if r.head.text == "expert-sparsity")
    assert row.cells[[c.text for c in failed.columns[1:]].index("mmlu")].sort is None
