"""Items beside a report: their files against the outcomes, and the page that opens them."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from helpers.browsing import accessibility, overflow, visit
from helpers.small_runs import cell, grid, results
from mbench.core.evaluation import evaluation
from mbench.core.item_texts import ItemText, end_of, from_rows, to_rows
from mbench.report.item_files import FOLDER, file_of
from mbench.report.publish import publish

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\x1b[31m"


def made(count=120):
    """Two methods, random and the unpruned model on a quiz of four choices."""
    cells = []
    for number, key in enumerate(grid(retains=(0.5,))):
        one = cell(*key)
        random = np.random.default_rng(number)
        logs = random.normal(-20, 3, (count, 4)).round(3)
        logs[:, 0] += 1.5
        table = pd.DataFrame(
            {
                "item": [f"{n}:ab:cd:ef" for n in range(count)],
                "acc": (logs.argmax(axis=1) == np.arange(count) % 4).astype(float),
                "loglikelihoods": [tuple(row) for row in logs],
            }
        )
        found = {**one.evaluations, "quiz": evaluation("quiz", table)}
        cells.append(dataclasses.replace(one, evaluations=found))
    texts = tuple(
        ItemText(
            f"{n}:ab:cd:ef",
            f"Question {n}? {HOSTILE if n == 3 else ''}",
            tuple(f"choice {c} of {n}" for c in range(4)),
            n % 4,
        )
        for n in range(count)
    )
    return dataclasses.replace(results(cells), item_texts={"quiz": texts})


def outcomes(run, method):
    (one,) = [c for c in run.cells if c.method == method]
    return one.evaluations["quiz"].items.set_index("item")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "run"
    publish(made(), folder, files={})
    return folder


def test_a_file_holds_what_was_asked_and_what_every_mask_answered(written):
    text = (written / FOLDER / file_of("quiz")).read_text()
    assert text.startswith("mbenchItems(")
    data = json.loads(text.removeprefix("mbenchItems(").rstrip().removesuffix(")"))
    run = made()
    assert data["prompts"][5] == "Question 5? "
    assert "\x1b" not in data["prompts"][3]
    assert data["truth"] == [n % 4 for n in range(120)]
    assert len(data["outcomes"]) == len({(c.router, c.mask) for c in run.cells})
    for one in run.cells:
        own = data["outcomes"][f"{one.model} {one.router} {one.mask}"]
        table = one.evaluations["quiz"].items
        assert own["items"] == table["item"].tolist()
        assert own["values"] == table["acc"].tolist()
        # Answers follow from the log-likelihoods.
        right = [max(range(4), key=logs.__getitem__) == n % 4 for n, logs in enumerate(own["logs"])]
        assert right == [value == 1 for value in own["values"]]


def test_names_of_files_are_safe_and_never_shared():
    names = ["quiz", "a/b", "../x", "a b", "a-b", "ä" * 300, ""]
    files = [file_of(name) for name in names]
    assert len(set(files)) == len(files)
    assert all("/" not in file and not file.startswith(".") and len(file) < 80 for file in files)
    assert end_of("x" * 5000) == "…" + "x" * 1200
    texts = made(4).item_texts["quiz"]
    assert from_rows(json.loads(json.dumps(to_rows(texts)))) == texts


@pytest.mark.parametrize("width", [390, 1280])
def test_a_click_opens_the_items_on_which_two_methods_disagree(browser, written, width):
    run = made()
    alpha, beta = outcomes(run, "alpha")["acc"], outcomes(run, "beta")["acc"]
    won, lost = int((alpha > beta).sum()), int((alpha < beta).sum())
    with visit(browser, written / "index.html", width) as tab:
        assert f"{FOLDER}/" not in " ".join(tab.requests)
        tab.get_by_label("compare with", exact=True).select_option("beta")
        if width == 390:  # the column has no room there: a link leads to the items as well
            tab.evaluate(
                "document.dispatchEvent(new CustomEvent('mbench:drill', {detail: {model: 'm',"
                " retain: 0.5, method: 'alpha', reference: 'beta'}}))"
            )
        else:
            tab.get_by_role("button", name=f"{won} : {lost}").click()
        drill = tab.locator("#drill")
        drill.locator("article").first.wait_for()
        assert f"they disagree on {won + lost} items" in drill.inner_text()
        shown = drill.locator("article").count()
        assert shown == min(20, won + lost)
        while drill.get_by_role("button", name="Show more").is_visible():
            drill.get_by_role("button", name="Show more").click()
        assert drill.locator("article").count() == won + lost
        boxed = drill.locator("td.pick").count()
        assert boxed == 2 * (won + lost)
        drill.get_by_role("searchbox").fill("choice 2 of 7")
        found = [n for n in range(120) if str(n).startswith("7") and alpha.iloc[n] != beta.iloc[n]]
        assert drill.locator("article").count() == len(found)
        assert tab.locator("img[src=x]").count() == 0
        assert overflow(tab) <= 0
        assert accessibility(tab) == []
        with visit(browser, tab.url, width) as other:
            other.locator("#drill article").first.wait_for()
        drill.get_by_role("button", name="Close").click()
        assert not drill.is_visible()
        assert "drill=" not in tab.url
        assert tab.problems == []


def test_without_the_files_the_page_says_so(browser, tmp_path):
    publish(dataclasses.replace(made(), item_texts={}), tmp_path / "run", files={})
    address = (tmp_path / "run" / "index.html").as_uri() + "#?drill=alpha&against=beta"
    with visit(browser, address) as tab:
        tab.get_by_text("The items of quiz are not at hand").wait_for()


def test_a_link_to_several_masks_names_the_one_it_shows(browser, tmp_path):
    publish(made(), tmp_path / "run", files={})
    address = (tmp_path / "run" / "index.html").as_uri() + "#?drill=alpha&against=random"
    with visit(browser, address) as tab:
        tab.get_by_role("heading", name="alpha against random, seed 0").wait_for()
