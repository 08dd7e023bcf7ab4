"""What pruning saves in weights and what calibration reads, by sums."""

import dataclasses

import numpy as np

from helpers.pages import paper_boards
from helpers.synthetic import PAPER_MODELS
from mbench.core.stand_ins import Constants
from mbench.report.tables.calibration import calibration
from mbench.report.tables.weights import weights


def test_weights_count_what_stays():
    group = paper_boards().groups[0]
    rows = {row.head.text: row.cells for row in weights(group).rows}
    layers, count, _ = PAPER_MODELS["qwen"]
    # Each of the 24 layers loses 30 of its 60 experts of 8,650,752 parameters, 2 bytes each.
    left = 14_315_784_192 - layers * 30 * 8_650_752
    assert rows["50\xa0% pruned"][1].sort == left
    assert rows["50\xa0% pruned"][2].text == f"{left * 2 / 1e9:.3g}\xa0GB"
    assert rows["unpruned"][0].text == f"{count} of {count}"
    read = {row.head.text: row.cells[-1].sort for row in calibration(group).rows}
    assert read["random"] == 0
    assert read["reap-c4"] == 524_288
    assert read["tb-coverage"] == 2 * 524_288  # its candidate reads c4, which it reads itself


def test_constants_are_counted_where_a_method_has_them():
    boards = paper_boards()
    group = boards.groups[0]
    layers, count, _ = PAPER_MODELS["qwen"]
    results = group.results
    cell = next(c for c in results.cells if (c.model, c.retain) == (group.group.model, 0.5))
    keep = results.masks[cell.model, cell.mask]
    stand_in = Constants(np.zeros((layers, count, 7), np.float32))
    results = dataclasses.replace(results, stand_ins={(cell.model, cell.mask): stand_in})
    group = dataclasses.replace(group, results=results)
    rows = {row.head.text: row.cells for row in weights(group).rows}
    more = rows["50\xa0% pruned, with constants"][1].sort - rows["50\xa0% pruned"][1].sort
    assert more == (~keep).sum() * 7
