"""What is said of masks beside their scores, and where."""

from __future__ import annotations

import pytest

from helpers.browsing import visit
from helpers.odd_masks import with_odd_masks
from helpers.pages import render_page
from helpers.synthetic import paper_sized
from mbench.core.results import long_form
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.statistics.boards import boards
from mbench.report.tables.leaderboard import leaderboard
from mbench.report.tables.mask_facts import mask_facts_table
from mbench.report.tables_for_papers import to_markdown

ODD = ("reap-c4", "max", "mean")


@pytest.fixture(scope="module")
def odd():
    return with_odd_masks(paper_sized(items=25), *ODD)


def test_the_long_form_has_all_of_it(odd):
    table = long_form(odd)
    table = table[(table["model"] == "qwen") & (table["retain"] == 0.5)].set_index("method")
    uneven = table.loc["reap-c4"].iloc[0]
    assert (uneven["experts_kept"], uneven["fewest_kept"], uneven["most_kept"]) == (30, 29, 31)
    assert (uneven["stand_in"], uneven["stability"], uneven["calibration_tokens"]) == (
        "", 0.875, 524_288,
    )  # fmt: skip
    assert table.loc["max"].iloc[0]["stand_in"] == "constants"
    assert table.loc["mean"].iloc[0]["stand_in"] == "merged"
    assert table.loc["random"].iloc[0]["calibration_tokens"] == 0


def test_masks_that_are_no_plain_ones_are_marked_wherever_methods_stand(odd):
    run = boards(odd)
    board = next(board for board in run.groups[0].boards if board.retain == 0.5)
    expected = {"reap-c4": ("29–31 kept a layer",), "max": ("constants",), "mean": ("merged",)}
    for entry in board.entries:
        assert board.facts_of(entry).marks == expected.get(entry.method, ())
    heads = {row.head.text: row.head.details for row in leaderboard(board).rows}
    assert [heads[name] for name in ODD] == [expected[name] for name in ODD]
    assert "| reap-c4, 29–31 kept a layer |" in to_markdown(run)
    rows = {row.head.text: row.cells for row in mask_facts_table(board).rows}
    # K = 30 of 60 on average: the fewest and the most that a layer loses.
    assert [cell.text for cell in rows["reap-c4"][:3]] == ["29–31", "nothing", "87.5\u00a0%"]
    assert [cell.text for cell in rows["frequency-c4"][:3]] == ["30", "nothing", "–"]
    assert rows["tb-coverage"][3].sort == 2 * 524_288  # its candidate looks at one of its texts
    assert rows["random"][3].sort == 0
    (data,) = (b for b in leaderboard_data(run)["models"][0]["budgets"] if b["retain"] == 0.5)
    assert data["facts"]["max"] == {
        "marks": ["constants"],
        "stability": 0.875,
        "calibration": 1_048_576,
        "search": 0,
        "bytes": None,
    }


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_copes_with_them(odd, browser, tmp_path, width):
    page = render_page(odd, tmp_path / "odd")
    with visit(browser, page.as_uri() + "#leaderboard?kept=0.5", width) as tab:
        line = tab.locator("#lb tbody tr", has_text="reap-c4").first
        assert "29–31 kept a layer" in line.inner_text()
        assert (
            "merged"
            in tab.locator("#lb tbody tr", has=tab.locator("th[title='mean']")).inner_text()
        )
        assert tab.problems == []
