"""The report in a real browser: how tests open it, judge it and keep pictures of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from helpers.pages import render_page
from helpers.places import PUBLISHED, ROOT
from helpers.synthetic import paper_sized

PATIENCE = 240_000
"""Milliseconds in which a page shows what is waited for, on a machine however busy."""

NAMES = ("chromium", "chromium-browser", "google-chrome")


def artefacts() -> Path:
    """Where screenshots are kept; git ignores the default."""
    folder = Path(os.environ.get("MBENCH_ARTEFACTS", ROOT / "tests" / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium, started once."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"needs one of {', '.join(NAMES)} on the PATH")
    api = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
    with api.sync_playwright() as playwright:
        # The sandbox needs rights that containers lack; the only pages opened are our own.
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The page of stand-in results in the shape of suites/paper.yaml, beside published figures."""
    folder = tmp_path_factory.mktemp("reports")
    shutil.copytree(PUBLISHED, folder / "published")
    return render_page(paper_sized(items=25), folder / "paper")


@pytest.fixture
def tab(browser, written):
    """That page opened anew; afterwards it must have been quiet and alone."""
    with visit(browser, written) as tab:
        yield tab
        assert tab.problems == []
        assert foreign(tab) == []


@contextlib.contextmanager
def visit(browser, address, width=1280, scheme="light", **options):
    """A fresh profile with `address` open; gathers `problems` and `requests` on the tab."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, **options
    )
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    tab.problems, tab.requests = [], []
    tab.on(
        "console",
        lambda m: tab.problems.append(m.text) if m.type in ("error", "warning") else None,
    )
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.goto(address.as_uri() if isinstance(address, Path) else address)
    if options.get("java_script_enabled", True):
        # The tables' library is unpacked after the page has loaded.
        tab.wait_for_function("'ready' in document.documentElement.dataset")
    try:
        yield tab
    finally:
        context.close()


def foreign(tab):
    """Requests that left the page."""
    return [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))]


def reach(tab, table):
    """Open a table's tab and scroll to it, which is sorted only from there on."""
    tab.evaluate(
        "(q) => document.querySelector(q).closest('.tab')?.removeAttribute('hidden')", table
    )
    tab.evaluate(
        "(q) => { for (let d = document.querySelector(q).closest('details'); d;"
        " d = d.parentElement.closest('details')) d.open = true; }",
        table,
    )
    tab.locator(table).scroll_into_view_if_needed()
    tab.wait_for_selector(f"{table}.dataTable")


def sort(head, wanted, key=None):
    """Click a column's head, or press a key on it, and wait for the order that must follow."""
    button = head.get_by_role("button")
    button.press(key) if key else button.click()
    head.page.wait_for_function(
        "([head, wanted]) => head.getAttribute('aria-sort') === wanted",
        arg=[head.element_handle(), wanted],
    )


def open_everything(tab):
    """Show every tab, unfold all that is folded, and make every table ready as for a printer."""
    tab.evaluate("document.querySelectorAll('.tab').forEach((t) => t.removeAttribute('hidden'))")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.evaluate("document.querySelectorAll('main details').forEach((d) => { d.open = true; })")


def overflow(tab):
    """Pixels by which the page is wider than its window."""
    return tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def accessibility(tab):
    """What axe finds, as (rule, impact, first element)."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    found = axe.Axe().run(tab).response["violations"]
    return [(v["id"], v["impact"], v["nodes"][0]["html"][:160]) for v in found]
