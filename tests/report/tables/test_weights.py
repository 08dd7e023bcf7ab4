"""What pruning saves in weights and what calibration reads, by sums."""

from helpers.pages import paper_boards
from helpers.synthetic import PAPER_MODELS
from mbench.report.tables.calibration import calibration
from mbench.report.tables.weights import weights


def test_weights_count_what_stays():
    group = paper_boards().groups[0]
    rows = {row.head.text: row.cells for row in weights(group).rows}
    layers, count, _ = PAPER_MODELS["qwen"]
    # Each of the 24 layers loses 30 of its 60 experts of 8,650,752 parameters, 2 bytes each.
    left = 14_315_784_192 - layers * 30 * 8_650_752
    assert rows["50\xa0%"][1].sort == left
    assert rows["50\xa0%"][2].text == f"{left * 2 / 1e9:.3g}\xa0GB"
    assert rows["unpruned"][0].text == f"{count} of {count}"
    read = {row.head.text: row.cells[-1].sort for row in calibration(group).rows}
    assert read["random"] == 0
    assert read["reap-c4"] == 524_288
    assert read["tb-coverage"] == 2 * 524_288  # its candidate reads c4, which it reads itself
