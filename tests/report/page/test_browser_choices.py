"""The page in a real browser: what readers can choose, keep in a link and take away."""

import csv
import io
import itertools
import json
from pathlib import Path

import pytest

from helpers.browsing import artefacts, open_everything, reach, sort, visit
from helpers.pages import paper_boards
from helpers.synthetic import PAPER_METHODS, paper_sized
from mbench.core.results import long_form
from mbench.report.words import bounds, difference, score_text

NONSENSE = "#x?sort=nothing&by=no&vs=nobody&kept=7&model=none&columns=a,b&none=%"


def board(model=0, budget=1):
    return paper_boards().groups[model].boards[budget]


def rows(tab):
    """Name -> texts of the leaderboard's cells by heading."""
    heads = [
        text.split("\n")[0].strip(" ↓↑") for text in tab.locator("#lb thead th").all_inner_texts()
    ]
    found = {}
    for line in tab.locator("#lb tbody tr:not(.unranked)").all():
        cells = line.locator("th, td").all_inner_texts()
        name = cells[0].split("\n")[0].removesuffix(" mean of 6").strip()
        found[name] = dict(zip(heads, cells, strict=True))
    return found


def choose(tab, label, text):
    tab.get_by_label(label, exact=True).select_option(label=text)


@pytest.mark.parametrize("reference", ["unpruned", "random", "tb-coverage", "mean"])
def test_the_method_to_compare_with_drives_every_difference(tab, reference):
    choose(tab, "compare with", reference)
    ranking = board().ranking
    shown = rows(tab)
    assert set(shown) >= {row.label for row in ranking.ranked}
    name = f"Difference to {reference}"
    other = "none" if reference == "unpruned" else reference
    for label, cells in shown.items():
        own = "none" if label == "unpruned" else label
        row = ranking.row_of(own)
        if label == reference or (row is not None and reference in row.names):
            assert "reference" in cells[name]
            continue
        compared = ranking.compare(own, other)
        text = " ".join(cells[name].split())
        assert difference(compared.value) in text
        assert bounds(compared.low, compared.high) in text
        words = "tie" if not compared.clear else "higher" if compared.value > 0 else "lower"
        assert words in text
    assert f"vs={other}" in tab.url


def test_budget_model_and_score_are_chosen_and_kept_in_the_address(browser, tab):
    tab.get_by_role("button", name="25\N{NO-BREAK SPACE}% pruned").click()
    tab.get_by_role("button", name="deepseek").click()
    choose(tab, "by", "Mean log perplexity")
    ranking = board(1, 0).by_perplexity
    shown = {name: cells["Mean log perplexity"].split()[0] for name, cells in rows(tab).items()}
    for row in ranking.ranked:
        assert shown[row.label] == score_text(row.summary.mean)
    with visit(browser, tab.url) as other:
        assert rows(other) == rows(tab)
        assert other.problems == []


def test_the_first_click_puts_the_best_on_top_and_a_reset_undoes_it(tab):
    usual = list(rows(tab))
    for head, best in (("Rank", min), ("Common Avg", max), ("arc_easy", max)):
        tab.locator("#lb thead button", has_text=head).click()
        figures = [
            float(cells[head].split()[0].split("–")[0])
            for cells in rows(tab).values()
            if cells[head][0].isdigit()
        ]
        assert figures[0] == best(figures)
        tab.locator("#lb thead button", has_text=head).click()
        turned = [
            float(cells[head].split()[0].split("–")[0])
            for cells in rows(tab).values()
            if cells[head][0].isdigit()
        ]
        assert turned == figures[::-1] or sorted(turned) == sorted(figures)
        tab.get_by_role("button", name="Reset").click()
        assert list(rows(tab)) == usual
    choose(tab, "by", "Mean log perplexity")
    tab.locator("#lb thead button", has_text="Mean log perplexity").click()
    figures = [float(cells["Mean log perplexity"].split()[0]) for cells in rows(tab).values()]
    assert figures == sorted(figures)


def test_filter_and_columns(tab):
    tab.get_by_role("searchbox").fill("reap, TB-")
    assert set(rows(tab)) == {
        "unpruned", "random", "tb-coverage", *(m for m in PAPER_METHODS if "reap" in m),
    }  # fmt: skip
    tab.get_by_role("searchbox").fill("")
    assert {name for label in rows(tab) for name in label.split(" = ")} >= set(PAPER_METHODS)
    tab.locator("summary", has_text="Columns").click()
    tab.get_by_label("Gap closed, 95 %").check()
    row = board().ranking.ranked[0]
    shown = rows(tab)[row.label]["Gap closed"]
    assert shown.startswith(f"{round(100 * row.gap_closed.value)} % [")
    tab.get_by_label("Rank", exact=True).uncheck()
    assert "Rank" not in rows(tab)[row.label]


def test_nonsense_in_the_address_changes_nothing(browser, written):
    with visit(browser, written) as tab:
        usual = rows(tab)
    with visit(browser, written.as_uri() + NONSENSE) as tab:
        assert rows(tab) == usual
        assert tab.problems == []


def test_tabs_open_by_their_links_and_by_places_in_them(browser, tab, written):
    assert tab.locator("#results").is_visible()
    assert not tab.locator("#details").is_visible()
    tab.get_by_role("link", name="Details").click()
    tab.locator("#details").wait_for()  # the event of a link comes after its click
    assert not tab.locator("#results").is_visible()
    with visit(browser, written.as_uri() + "#model-1-budget-1-metrics") as other:
        assert other.locator("#model-1-budget-1-metrics").is_visible()  # its fold was opened
    with visit(browser, written.as_uri() + "#terms?vs=mean") as other:
        assert other.locator("#terms").evaluate("e => e.getBoundingClientRect().top") < 900


def test_summaries_stay_below_whatever_is_sorted(tab):
    table = "#model-1-budget-2-seeds"
    open_everything(tab)
    reach(tab, table)

    def names():
        heads = tab.locator(f"{table} tbody th").all()
        return [head.evaluate("cell => cell.firstChild.textContent") for head in heads]

    summaries = [name for name in names() if "seed " not in name]
    assert len(summaries) == 4
    heads = tab.locator(f"{table} thead th")
    for column, direction in itertools.product((0, 1), ("ascending", "descending")):
        sort(heads.nth(column), direction)
        assert names()[-4:] == summaries


def download(tab, click):
    with tab.expect_download() as waiting:
        click()
    return Path(waiting.value.path()).read_bytes(), waiting.value.suggested_filename


def test_downloads_are_complete(tab):
    choose(tab, "compare with", "mean")
    tab.locator("summary", has_text="Download").click()
    button = lambda name: download(tab, tab.get_by_role("button", name=name).click)  # noqa: E731
    content, name = button("CSV")
    assert name == "qwen-50-pruned-common-avg-vs-mean.csv"
    found = {row["method"]: row for row in csv.DictReader(io.StringIO(content.decode()))}
    ranking = board().ranking
    for row in ranking.ranked:
        own = found[row.label]
        assert float(own["value"]) == pytest.approx(row.summary.mean, abs=1e-5)
        assert (own["rank_best"], own["rank_worst"]) == (str(row.rank), str(row.last_rank))
        assert own["n"] == str(sum(units.count for units in ranking.units))
        compared = ranking.compare(row.label, "mean")
        if compared is None:
            assert own["difference"] == ""
            continue
        for field, figure in (
            ("difference", compared.value),
            ("low", compared.low),
            ("high", compared.high),
        ):
            assert float(own[field]) == pytest.approx(figure, abs=1.01e-5)
        assert float(own["p_adjusted"]) == pytest.approx(compared.adjusted, rel=0.06)
        assert (own["family"], own["family_size"]) == ("methods", str(compared.size))
    rows_of_json = json.loads(button("JSON")[0])["rows"]
    assert {own["method"]: own["low"] for own in rows_of_json} == {
        name: float(own["low"]) if own["low"] else None for name, own in found.items()
    }
    latex = button("LaTeX")[0].decode()
    assert r"\toprule" in latex
    assert "items of arc\\_challenge" in latex
    assert latex.isascii()
    markdown = button("Markdown")[0].decode()
    assert markdown.count("\n| ") == 2 + len(found)


def test_all_results_and_charts_can_be_saved(tab):
    open_everything(tab)
    whole, _ = download(tab, tab.get_by_role("link", name="results.csv").click)
    assert whole.decode() == long_form(paper_sized(items=25)).to_csv(index=False)
    chart = tab.locator("svg.chart").first
    buttons = tab.locator(".pictures-of").first
    png, name = download(tab, buttons.get_by_role("button", name="PNG").click)
    assert png.startswith(b"\x89PNG")
    assert name.endswith(".png")
    (artefacts() / "chart.png").write_bytes(png)
    # Not an empty sheet: a flat picture of this size compresses to a few kilobytes.
    assert len(png) > 10_000
    svg, _ = download(tab, buttons.get_by_role("button", name="SVG").click)
    caption = chart.evaluate("e => e.closest('figure').querySelector('figcaption').textContent")
    assert caption.strip() in svg.decode()


def test_p_values_are_never_written_as_zero_or_over_the_level(tab):
    written = tab.evaluate("[0, 3e-12, 0.0497, 0.0512].map(leaderboardFigures.pText)")
    assert written == ["< 1e−300", "3e−12", "< 0.05", "0.051"]


def test_menus_close_with_escape_and_by_a_click_beside_them(tab):
    for name in ("Columns", "Download"):
        menu = tab.locator("details.menu", has=tab.locator("summary", has_text=name))
        for close in (lambda: tab.keyboard.press("Escape"), lambda: tab.locator("h1").click()):
            menu.locator("summary").click()
            assert menu.get_attribute("open") is not None
            close()
            assert menu.get_attribute("open") is None


def test_items_won_and_lost_are_to_the_unpruned_model_beside_random_pruning(tab):
    row = board().ranking.ranked[0]
    ranking = board().ranking
    count = len(ranking.ranked)
    won, lost = int(ranking.won[0, count]), int(ranking.won[count, 0])
    assert rows(tab)[row.label]["Items"] == f"{won} : {lost}"
    link = tab.locator("#lb tbody tr", has_text=row.label).locator(".drill").first
    assert link.get_attribute("title").endswith("and unpruned disagree")
