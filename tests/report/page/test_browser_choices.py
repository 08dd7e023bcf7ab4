"""The page in a real browser: what readers can choose, keep in a link and take away."""

import csv
import io
import itertools
import json
import re
from pathlib import Path

import pytest

from helpers.browsing import artefacts, open_everything, reach, sort, visit
from helpers.synthetic import PAPER_METHODS, paper_sized
from mbench.core.results import long_form

BOARD = "#model-1-budget-2-table"
NONSENSE = f"#x?{BOARD[1:]}.sort=999&{BOARD[1:]}.hide=0.99.x.-1&metric=no&other.sort=1&none=%"


def figures(tab, column, table=BOARD):
    reach(tab, table)
    rows = f"{table} tbody tr:not(.pinned)"
    found = tab.eval_on_selector_all(rows, f"rows => rows.map(r => r.cells[{column}].dataset.sort)")
    return [None if text is None else float(text) for text in found]


def methods(tab, table=BOARD):
    reach(tab, table)
    heads = tab.locator(f"{table} tbody th").all()
    return [head.evaluate("cell => cell.firstChild.textContent") for head in heads]


def unfold(tab, table=BOARD):
    """The columns and downloads of a table."""
    reach(tab, table)
    tools = tab.locator(f".tools:has(+ .scroll {table})")
    tools.locator("summary").click()
    return tools


def test_sorting_by_click_and_key_and_back(tab):
    table = "#model-2-budget-3-table"  # where one method has no figure for mmlu
    before = methods(tab, table)
    head = tab.locator(f"{table} thead th", has_text="mmlu")
    column = head.evaluate("cell => cell.cellIndex")
    sort(head, "ascending")
    values = figures(tab, column, table)
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1])
    sort(head, "descending", key="Enter")
    values = figures(tab, column, table)
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1], reverse=True)
    assert methods(tab, table)[0] == "unpruned"
    sort(head, None, key="Space")
    assert methods(tab, table) == before


def test_summaries_stay_below_whatever_is_sorted(tab):
    table = "#model-1-budget-2-seeds"
    open_everything(tab)
    before = methods(tab, table)
    summaries = [name for name in before if "seed " not in name]
    assert len(summaries) == 4
    heads = tab.locator(f"{table} thead th")
    for column, direction in itertools.product((0, 1), ("ascending", "descending")):
        sort(heads.nth(column), direction)
        assert methods(tab, table)[-4:] == summaries
    values = figures(tab, 1, table)[:-4]
    assert values == sorted(values, reverse=True) != figures(tab, 1, table)


def test_filter_reaches_tables_charts_and_pictures(tab):
    tab.get_by_role("searchbox").fill("reap, TB-")
    assert set(methods(tab)) == {
        "unpruned",
        "tb-coverage",
        *(m for m in PAPER_METHODS if "reap" in m),
    }
    series = tab.eval_on_selector_all(
        "#model-1 .series",
        "all => all.filter(s => getComputedStyle(s).display !== 'none').map(s => s.dataset.method)",
    )
    assert {"tb-coverage", "reap-c4"} <= set(series)
    assert not {"mean", "max"} & set(series)
    assert re.fullmatch(r"\d+ of \d+ shown", tab.locator("#filtered").inner_text())
    tab.get_by_role("searchbox").fill("")
    assert len(methods(tab)) == 1 + len(PAPER_METHODS)


def test_metric_is_switched_where_a_task_has_it(tab):
    table = "#model-1-budget-1-metrics"
    open_everything(tab)
    reach(tab, table)

    def shown():
        heads = tab.locator(f"{table} thead th").all()[1:]
        return {
            head.get_attribute("data-task"): head.get_attribute("data-metric") for head in heads
        }

    assert shown()["arc_easy"] == "acc_norm"
    tab.get_by_role("combobox").select_option("acc")
    assert shown()["arc_easy"] == "acc"
    assert shown()["gsm8k"] == "exact_match,flexible-extract"
    assert len(shown()) == 11


def test_permalink_brings_back_what_was_chosen(browser, tab, written):
    reach(tab, BOARD)
    sort(tab.locator(f"{BOARD} thead th").nth(2), "ascending")
    tab.get_by_role("searchbox").fill("reap")
    tab.get_by_role("combobox").select_option("acc")
    tools = unfold(tab)
    tools.get_by_role("button", name="Gap closed").click()
    tab.get_by_role("link", name="Terms", exact=True).click()
    assert "#terms?" in tab.url
    with visit(browser, tab.url) as other:
        assert other.locator("#terms").evaluate("e => e.getBoundingClientRect().top") < 900
        assert methods(other) == methods(tab)
        assert figures(other, 2) == sorted(figures(other, 2))
        assert not other.locator(f"{BOARD} thead th", has_text="Gap closed").is_visible()
        assert other.locator(f"{BOARD} thead th", has_text="Common Avg").is_visible()
        assert other.get_by_role("combobox").input_value() == "acc"
        assert other.get_by_role("searchbox").input_value() == "reap"
    with visit(browser, written.as_uri() + "#model-1-budget-1-overlap") as other:
        assert other.locator("#model-1-budget-1-overlap").is_visible()  # its fold was opened
    hidden = f"#?{BOARD[1:]}.sort=3&{BOARD[1:]}.hide=2"
    with visit(browser, written.as_uri() + hidden) as other:
        assert methods(other)[:2] == ["unpruned", "random"]
        assert other.problems == []
    with visit(browser, written.as_uri()) as other:
        whole = methods(other), other.locator(f"{BOARD} thead th").count()
    with visit(browser, written.as_uri() + NONSENSE) as other:
        assert (methods(other), other.locator(f"{BOARD} thead th").count()) == whole
        assert other.problems == []


def download(tab, click):
    with tab.expect_download() as waiting:
        click()
    return Path(waiting.value.path()).read_bytes()


def test_downloads_hold_what_is_shown(tab):
    results = paper_sized(items=25)
    tab.get_by_role("searchbox").fill("reap")
    tools = unfold(tab)
    tools.get_by_role("button", name="Gap closed").click()
    button = lambda name: download(tab, tools.get_by_role("button", name=name).click)  # noqa: E731
    rows = list(csv.DictReader(io.StringIO(button("CSV").decode())))
    assert [row["Method"] for row in rows] == methods(tab)
    cell = next(c for c in results.cells if (c.method, c.retain) == ("reap-c4", 0.5))
    own = next(row for row in rows if row["Method"] == "reap-c4")
    assert float(own["Common Avg, higher is better"]) == pytest.approx(
        results.average_of(cell).value
    )
    assert not any(name.startswith("Gap closed") for name in own)
    data = json.loads(button("JSON"))
    assert [row["Method"] for row in data["rows"]] == methods(tab)
    assert set(data["rows"][0]) == set(own)
    assert data["rows"][1]["Common Avg, higher is better"] == float(
        rows[1]["Common Avg, higher is better"]
    )
    latex = button("LaTeX").decode()
    significant = tab.locator(f"{BOARD} td.significant").all_inner_texts()
    bold = [text.replace("$-$", "−") for text in re.findall(r"\\textbf{(.*?)}", latex)]
    assert bold == [text.split("\n")[0] for text in significant] != []
    assert latex.count(r"\\") == 2 + 3
    assert r"arc\_challenge, acc\_norm" in latex
    assert r"{\scriptsize $\pm$ 0." in latex
    assert all(line.count(" & ") == 16 for line in latex.splitlines() if line.endswith(r"\\"))
    assert latex.isascii()


def test_all_results_and_charts_can_be_saved(tab):
    whole = download(tab, tab.get_by_role("link", name="results.csv").click).decode()
    assert whole == long_form(paper_sized(items=25)).to_csv(index=False)
    png = download(tab, tab.locator(".png").first.click)
    assert png.startswith(b"\x89PNG")
    (artefacts() / "chart.png").write_bytes(png)
    # Not an empty sheet: a flat picture of this size compresses to a few kilobytes.
    assert len(png) > 10_000
