"""The page in a real browser: in what surroundings it can be read."""

import dataclasses
import shutil

import pytest

from helpers import records
from helpers.browsing import (
    PUBLISHED,
    accessibility,
    artefacts,
    foreign,
    open_everything,
    overflow,
    reach,
    visit,
)
from helpers.demo_results import synthetic
from helpers.pages import render_page
from helpers.synthetic import paper_sized
from mbench.core.results import ProtocolEntry

BOARD = "#lb"
HOSTILE = "<img src=x onerror=alert(1)>\"'&</script></style>{{ 7 * 7 }}"
LONG = "a" * 300
RIGHT_TO_LEFT = "\N{RIGHT-TO-LEFT OVERRIDE}אבג" + "ש" * 40


SURROUNDINGS = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """One model at one budget: every kind of panel, on a page that axe reads in seconds."""
    results = paper_sized(items=25)
    own = [c for c in results.cells if c.model == "deepseek" and c.retain in (0.75, 1.0)]
    folder = tmp_path_factory.mktemp("reports")
    shutil.copytree(PUBLISHED, folder / "published")
    return render_page(dataclasses.replace(results, cells=tuple(own)), folder / "short")


@pytest.mark.parametrize(("width", "scheme"), SURROUNDINGS)
def test_page_is_accessible(browser, short, width, scheme):
    with visit(browser, short, width, scheme) as tab:
        open_everything(tab)
        tab.screenshot(path=artefacts() / f"whole-{width}-{scheme}.png", full_page=True)
        assert overflow(tab) <= 0
        assert accessibility(tab) == []
        assert tab.problems == []


@pytest.mark.parametrize(("width", "scheme"), [*SURROUNDINGS, (2560, "light")])
def test_page_is_quick_quiet_alone_and_fits(browser, written, width, scheme):
    with visit(browser, written, width, scheme) as tab:
        loaded = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        assert tab.evaluate(loaded) < 60_000  # half a second on an idle core
        tab.screenshot(path=artefacts() / f"top-{width}-{scheme}.png")
        open_everything(tab)
        assert overflow(tab) <= 0
        assert tab.problems == []
        assert foreign(tab) == []


def test_the_first_screen_answers_before_it_scrolls(browser, tmp_path):
    """Answers and the first drawing stand above 800 px, without a paragraph, and on a telephone
    all answers do."""
    path = render_page(synthetic(), tmp_path)
    top = "(q) => document.querySelector(q).getBoundingClientRect().top"
    with visit(browser, path) as tab:
        assert tab.evaluate(top, ".answer") < 250
        assert tab.evaluate(top, ".rows") < 250
        assert tab.evaluate(top, "#lb") < 1000
        assert tab.locator(".screen p").count() == 1  # what the whiskers are
        boxes = "(e) => e.scrollWidth - e.clientWidth"
        assert tab.locator(".lb-box").evaluate(boxes) <= 0
    with visit(browser, path, 390) as tab:
        bottoms = tab.eval_on_selector_all(
            ".answer", "all => all.map((e) => e.getBoundingClientRect().bottom)"
        )
        assert len(bottoms) == 9
        assert max(bottoms) < 844
        assert overflow(tab) <= 0


@pytest.mark.parametrize("width", [390, 1280])
def test_names_are_shown_whole_and_each_beside_its_dot(browser, tmp_path, width):
    longer = {"max": "max-of-the-normalised-router-weights", "mean": LONG}
    results = synthetic()
    cells = [dataclasses.replace(c, method=longer.get(c.method, c.method)) for c in results.cells]
    path = render_page(dataclasses.replace(results, cells=tuple(cells)), tmp_path)
    with visit(browser, path, width) as tab:
        tab.screenshot(path=artefacts() / f"names-{width}.png", full_page=True)
        whole = "all => all.map((e) => [e.innerText, e.scrollWidth - e.clientWidth])"
        for place in (".names", ".answer *", f"{BOARD} .name"):
            found = tab.eval_on_selector_all(place, whole)
            assert found
            assert [text for text, hidden in found if hidden > 0] == []
        middles = """(all) => all.map((e) => {
            const { top, bottom } = e.getBoundingClientRect(); return (top + bottom) / 2; })"""
        names = tab.eval_on_selector_all(".names:not(:has(a))", middles)
        dots = tab.eval_on_selector_all(".rows .dot", middles)
        assert len(names) == len(dots) > 30
        assert max(abs(name - dot) for name, dot in zip(names, dots, strict=True)) < 1
        assert overflow(tab) <= 0


def test_a_figure_over_seeds_is_said_to_be_a_mean(browser, tmp_path):
    results = synthetic()
    seeded = [
        dataclasses.replace(cell, method="drawn", mask=cell.mask[::-1])
        for cell in results.cells
        if cell.method == "random"
    ]
    own = {(cell.model, cell.mask): results.masks[cell.model, cell.mask[::-1]] for cell in seeded}
    results = dataclasses.replace(
        results, cells=(*results.cells, *seeded), masks={**results.masks, **own}
    )
    with visit(browser, render_page(results, tmp_path)) as tab:
        names = [name.strip() for name in tab.locator(f"{BOARD} tbody th").all_inner_texts()]
        means = {name for name in names if "mean of" in name}
        assert means == {"random mean of 6", "drawn mean of 6"}
        assert "mean" in names  # a method of that name, of one mask


@pytest.mark.parametrize("width", [390, 1280])
def test_how_a_run_was_narrowed_fits_the_window(browser, tmp_path, width):
    results = synthetic()
    options = [f"--method method-number-{number}" for number in range(20)]
    runs = [dataclasses.replace(run, changes=(*options, LONG)) for run in results.provenance.runs]
    provenance = dataclasses.replace(results.provenance, runs=tuple(runs))
    path = render_page(dataclasses.replace(results, provenance=provenance), tmp_path)
    with visit(browser, path, width) as tab:
        tab.get_by_text("narrowed", exact=True).click()
        box = tab.locator(".badge div").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert overflow(tab) <= 0


@pytest.mark.parametrize("width", [390, 1047, 1280])
def test_failures_stay_within_their_cells(browser, tmp_path, width):
    cells = tuple(
        dataclasses.replace(
            cell,
            reason="/a/path/" + 90 * "x" if cell.status != "ok" else "",
            tasks={t: dataclasses.replace(s, reason=90 * "y") for t, s in cell.tasks.items()},
        )
        for cell in synthetic().cells
    )
    path = render_page(dataclasses.replace(synthetic(), cells=cells), tmp_path)
    with visit(browser, path, width) as tab:
        found = tab.eval_on_selector_all(
            "td.failed", "all => all.map((cell) => cell.scrollWidth - cell.clientWidth)"
        )
        assert len(found) >= 1
        assert max(found) <= 0


def test_checks_of_the_page_can_fail(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<html data-ready><p style='width:3000px'>x<img src='http://127.0.0.1:9/x.png'>")
    with visit(browser, bad) as tab:
        assert tab.problems
        assert foreign(tab)
        assert overflow(tab) > 0
        assert "image-alt" in [rule for rule, *_ in accessibility(tab)]


def test_theme_follows_the_system_until_it_is_chosen(browser, written):
    back = "getComputedStyle(document.body).backgroundColor"
    with visit(browser, written, scheme="dark") as tab:
        dark = tab.evaluate(back)
        assert tab.locator("#theme").get_attribute("aria-pressed") == "true"
        tab.click("#theme")
        light = tab.evaluate(back)
        assert light != dark
        tab.reload()
        assert tab.evaluate(back) == light
        assert tab.locator("#theme").get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("key", [False, True])
def test_definition_opens_beside_its_column_and_closes(tab, key):
    table = "#model-1-budget-2-metrics"
    reach(tab, table)
    head = tab.locator(f"{table} thead th", has_text="ppl-c4").first
    term = head.locator("a.term")
    if key:
        term.press("Enter")
    else:
        term.click()
    box = tab.locator("#definition")
    assert head.get_attribute("aria-sort") is None
    assert box.is_visible()
    assert "Lower is better" in box.inner_text()
    assert "#term-" not in tab.url
    tab.keyboard.press("Escape")
    assert not box.is_visible()


def test_print_shows_whole_tables_on_white(browser, written):
    with visit(browser, written, width=1047, scheme="dark") as tab:  # A4 landscape, 10 mm margins
        tab.emulate_media(media="print")
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert not tab.locator("#leaderboard .controls").is_visible()
        assert not tab.locator(".tools").first.is_visible()
        right = "(e) => e.getBoundingClientRect().right"
        assert tab.locator("#lb").evaluate(right) <= 1047
        assert tab.locator("#terms").is_visible()  # every tab is printed
        pdf = tab.pdf(prefer_css_page_size=True, print_background=True)
        assert pdf.startswith(b"%PDF")
        (artefacts() / "print.pdf").write_bytes(pdf)


def test_page_is_readable_without_script(browser, written):
    with visit(browser, written, java_script_enabled=False) as tab:
        text = tab.inner_text("body")
        assert "Which is best?" in text
        assert "What the run took" in text
        assert tab.locator("#model-1-budget-2-table").is_visible()
        assert tab.locator("#leaderboard .controls").count() == 0


def test_keyboard_reaches_every_control(tab):
    reached = set()
    name = "(e => e.dataset.focus || e.id || e.className || e.dataset.tab || e.tagName)"
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate(f"{name}(document.activeElement)"))
    assert {
        "details", "theme", "Model qwen", "Budget 0.5", "compare with", "by", "filter", "SUMMARY",
        "lb-box", "sort method", "sort difference",
    } <= reached  # fmt: skip


@pytest.mark.parametrize("name", [HOSTILE, LONG, RIGHT_TO_LEFT], ids=["markup", "long", "rtl"])
def test_hostile_names_are_text(browser, tmp_path, name):
    results = paper_sized(items=25)
    cells = tuple(
        dataclasses.replace(
            cell,
            model=name,
            method=name if cell.method == "max" else cell.method,
            notes=(name,) if cell.notes else (),
        )
        for cell in results.cells
        if cell.model == "qwen" and cell.retain in (0.5, 1.0)
    )
    masks = {(name, mask): keep for (model, mask), keep in results.masks.items() if model == "qwen"}
    provenance = records.provenance(
        {name: "acc"},
        {name: {name: records.method(name, corpora=(name,))}},
        run=records.run_record(name, (name,)),
    )
    tasks = {name if t == "mmlu" else t: m for t, m in results.task_metrics.items()}
    cells = tuple(
        dataclasses.replace(
            cell,
            tasks={name if t == "mmlu" else t: s for t, s in cell.tasks.items()},
            evaluations={name if t == "mmlu" else t: e for t, e in cell.evaluations.items()},
        )
        for cell in cells
    )
    results = dataclasses.replace(
        results, suite=name, title=name, description=name, cells=cells, masks=masks,
        task_metrics=tasks, protocol=(ProtocolEntry(name, name),),
        provenance=provenance,
    )  # fmt: skip
    path = render_page(results, tmp_path / "page")
    for width in (390, 1280):
        with visit(browser, path, width) as tab:
            tab.on("dialog", lambda dialog: pytest.fail(dialog.message))
            open_everything(tab)
            tab.screenshot(path=artefacts() / f"hostile-{width}-{name[:3].encode().hex()}.png")
            assert overflow(tab) <= 0
            shown = name.replace("\N{RIGHT-TO-LEFT OVERRIDE}", r"\u202e")
            assert shown in tab.text_content(BOARD)
            assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in tab.text_content("body")
            assert tab.locator("img[src=x]").count() == 0
            assert tab.problems == []
