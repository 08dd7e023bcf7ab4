"""The index and the page of a comparison in a real browser: small pages with the same tables."""

import pytest

from helpers.browsing import (
    accessibility,
    artefacts,
    foreign,
    open_everything,
    overflow,
    reach,
    sort,
    visit,
)
from helpers.demo_results import synthetic
from helpers.small_runs import grid, run
from mbench.report.across_runs.compare import compare
from mbench.report.page.comparison import write_page
from mbench.report.page.index import write_index
from mbench.report.publish import publish
from mbench.storage.results_folder import write

SURROUNDINGS = [(390, "dark"), (1280, "light")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two reports and a directory that cannot be listed."""
    folder = tmp_path_factory.mktemp("reports")
    for name, made in (("small", run(grid())), ("whole", synthetic())):
        write(made, folder / name)
        publish(made, folder / name)
    (folder / "bad").mkdir()
    (folder / "bad" / "results.json").write_text("{")
    write_index(folder)
    write_page(compare(("a", run(grid())), ("b", run(grid()))), folder / "compare.html")
    return folder


@pytest.mark.parametrize(("width", "scheme"), SURROUNDINGS)
@pytest.mark.parametrize(
    ("page", "table"), [("index.html", "#reports"), ("compare.html", "#differences")]
)
def test_small_pages_fit_and_are_accessible(browser, folder, page, table, width, scheme):
    with visit(browser, folder / page, width, scheme) as tab:
        reach(tab, table)
        open_everything(tab)
        tab.screenshot(path=artefacts() / f"{page}-{width}-{scheme}.png", full_page=True)
        assert overflow(tab) <= 0
        assert accessibility(tab) == []
        assert tab.problems == []
        assert foreign(tab) == []


def test_reports_stand_under_one_another_on_a_telephone(browser, folder):
    with visit(browser, folder / "index.html", width=390) as tab:
        rows = tab.locator("#reports tbody tr")
        assert rows.count() == 3
        for cell in rows.nth(1).locator("th, td").all():
            box = cell.bounding_box()
            assert box["x"] == 16
            assert box["width"] == 390 - 2 * 16


def test_the_index_is_sorted(browser, folder):
    with visit(browser, folder / "index.html") as tab:
        reach(tab, "#reports")
        head = tab.locator("#reports thead th", has_text="Status")
        for direction, step in (("ascending", 1), ("descending", -1)):
            sort(head, direction)
            found = tab.locator("#reports tbody td:nth-child(4)").all_inner_texts()
            assert found == sorted(found)[::step]
        assert any(text.startswith("cannot be listed") for text in found)
