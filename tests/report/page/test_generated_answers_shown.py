"""Where the page says how generated answers look, read as text and in a browser."""

import pytest

from helpers.browsing import accessibility, foreign, visit
from helpers.generated_answers import looping_run
from helpers.page_tables import Tables
from helpers.pages import html_of, render_page
from mbench.core.results import long_form
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.statistics.boards import boards


@pytest.fixture(scope="module")
def results():
    return looping_run()


def test_the_page_shows_them_and_nothing_is_ranked_by_them(results):
    page = html_of(results)
    assert "34\xa0% of alpha&#39;s, 2\xa0% of the unpruned model&#39;s" in page
    table = next(
        rows for name, rows in Tables(page).tables.items() if name.startswith("Generated answers")
    )
    assert table[1][0] == "unpruned"
    shown = {row[0].split("|")[0]: row for row in table[1:]}
    assert shown["alpha"][2] == "34.0\xa0%"
    assert shown["alpha"][3].startswith("+0.320|[+0.2")
    assert shown["beta"][4] == "20.0\xa0%"
    data = leaderboard_data(boards(results))
    (budget,) = data["models"][0]["budgets"]
    assert budget["answers"] == {
        "quiz": {
            "none": [0.02, 0.05],
            "random": [0.035, 0.05],
            "alpha": [0.34, 0.05],
            "beta": [0.02, 0.2],
        }
    }
    assert {score["id"] for score in data["scores"]} == {
        "score", "perplexity", "task:quiz", "task:ppl"
    }  # fmt: skip
    long = long_form(results).query("task == 'quiz' and metric == 'loops' and method == 'alpha'")
    assert long["value"].tolist() == [0.34]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_sees_them_beside_the_score(width, results, browser, tmp_path):
    page = render_page(results, tmp_path / "run")
    with visit(browser, page, width=width) as tab:
        warnings = tab.locator(".warnings li")
        assert warnings.count() == 2
        assert warnings.first.is_visible()
        assert "acc hides that answers end in a loop" in warnings.first.inner_text()
        if width == 1280:
            row = tab.locator("#lb tbody tr", has_text="alpha")
            assert "34 %, 5 %" in row.inner_text().replace("\xa0", " ")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert accessibility(tab) == []
        assert tab.problems == []
        assert foreign(tab) == []
