import dataclasses
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_results import ABILITY, CLOZE, CORPORA, MODEL, SEEDS, synthetic

from mbench import stats
from mbench.errors import MbenchError
from mbench.evaluate.outcome import evaluation
from mbench.report import charts, experts, render, words
from mbench.report.arrange import arrange, average_score, perplexity_score, primary_score
from mbench.report.figures import page
from mbench.report.ranking import standings
from mbench.report.render import to_html
from mbench.results_files import read, write

CHROMIUM = "/usr/bin/chromium"
HOSTILE = "<script>alert(1)</script>\"'&</style>{{ 7 * 7 }}"


class Tables(HTMLParser):
    """Every table as caption -> rows of texts; small lines are joined to their cell by a bar."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.caption, self.ids, self.sections = {}, None, [], 0
        self._rows, self._cell = None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = []
        elif tag == "small" and self._cell is not None:
            self._cell.append("|")

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag in ("td", "th", "caption"):
            text = "".join(self._cell).strip()
            self._cell = None
            if tag == "caption":
                self.caption = text
            else:
                self._rows[-1].append(text)
        elif tag == "table":
            self.tables[self.caption] = self._rows


@pytest.fixture(scope="module")
def html():
    return to_html(synthetic())


@pytest.fixture(scope="module")
def tables(html):
    return Tables(html).tables


def leaderboard(tables, percent):
    name = next(n for n in tables if n.startswith(f"Leaderboard: {MODEL}, {percent}\xa0%"))
    head, *rows = tables[name]
    return {row[0].split("|")[0]: dict(zip(head, row, strict=False)) for row in rows}


def first(text):
    return float(text.split("|")[0].replace("−", "-"))


def test_leaderboard_figures_follow_from_the_items(tables, tmp_path):
    """Recomputed from the stored outcomes with nothing of the report's or results' code."""
    write(synthetic(), tmp_path)
    items = pd.read_parquet(tmp_path / "items.parquet")
    csv = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    masks = csv.drop_duplicates(["method", "seed", "retain"]).query("retain == 0.5")

    def outcome(mask, task):
        own = items[(items["mask"] == mask) & (items["task"] == task)]
        if task in CLOZE:
            return own.acc_norm.mean(), own.acc_norm.std() / math.sqrt(len(own))
        return math.exp(own.nll.sum() / own.tokens.sum()), None

    rows = leaderboard(tables, 50)
    for method in set(ABILITY) - {"frequency"}:  # whose last task failed
        mask = masks[masks.method == method]["mask"].item()
        values = [outcome(mask, task) for task in CLOZE]
        average = np.mean([value for value, _ in values])
        error = math.sqrt(sum(e**2 for _, e in values)) / 3
        shown, shown_error = rows[method]["Common Avg|more is better"].split("|")
        assert float(shown) == pytest.approx(average, abs=6e-4)
        assert float(shown_error[2:]) == pytest.approx(error, abs=6e-4)
        for task, (value, _) in zip(CLOZE, values, strict=True):
            assert first(rows[method][f"{task}|acc_norm"]) == pytest.approx(value, abs=6e-4)
        for corpus in CORPORA:
            shown = first(rows[method][f"{corpus}|perplexity ↓"])
            assert shown == pytest.approx(outcome(mask, corpus)[0], rel=1e-3)

    random = [np.mean([outcome(m, t)[0] for t in CLOZE]) for m in masks.query("seed != ''")["mask"]]
    shown = rows["random"]["Common Avg|more is better"].split("|")
    assert len(random) == 6
    assert first(shown[0]) == pytest.approx(np.mean(random), abs=6e-4)
    assert float(shown[1][2:]) == pytest.approx(np.std(random, ddof=1), abs=6e-4)
    bounds = [float(text) for text in shown[2].split("–")]
    assert bounds == pytest.approx([min(random), max(random)], abs=6e-4)

    full = csv[csv.method == "none"]["mask"].iloc[0]
    unpruned = np.mean([outcome(full, task)[0] for task in CLOZE])
    mask = masks[masks.method == "mean"]["mask"].item()
    value = np.mean([outcome(mask, task)[0] for task in CLOZE])
    share = (value - np.mean(random)) / (unpruned - np.mean(random))
    assert rows["mean"]["Recovered|of the gap"] == f"{share:.0%}".replace("%", "\xa0%")
    gap = rows["mean"]["Over random|95 % interval"]
    assert first(gap) == pytest.approx(value - np.mean(random), abs=6e-4)


def test_unpruned_comes_first_and_incomplete_methods_last_without_rank(tables):
    for percent, missing in ((25, "expert-sparsity"), (50, "frequency"), (75, "output-norm")):
        rows = list(leaderboard(tables, percent).items())
        assert rows[0][0] == "unpruned"
        assert rows[0][1]["Rank|ties share"] == "–"
        assert rows[-1][0] == missing
        ranks = [int(row["Rank|ties share"]) for _, row in rows[1:-1]]
        assert ranks[0] == 1
        assert ranks == sorted(ranks)
        averages = [first(row["Common Avg|more is better"]) for _, row in rows[1:-1]]
        assert averages == sorted(averages, reverse=True)


def test_failures_are_shown_with_their_reason(tables):
    assert leaderboard(tables, 50)["frequency"]["cloze-code|acc_norm"] == "failed|out of memory"
    assert leaderboard(tables, 50)["frequency"]["Common Avg|more is better"] == "incomplete"
    whole = leaderboard(tables, 25)["expert-sparsity"]["Rank|ties share"]
    assert whole.startswith("failed|expert-sparsity: no subset")
    # A task outside the average does not cost a method its rank.
    mean = leaderboard(tables, 75)["mean"]
    assert mean["Rank|ties share"].isdigit()
    assert mean["bible|perplexity ↓"] == "failed|loss is not finite in window 3"
    listed = {(row[0], row[4], row[5]) for row in tables["Without a result"][1:]}
    assert listed == {
        ("expert-sparsity", "mask", "failed"),
        ("frequency", "cloze-code", "failed"),
        ("output-norm", "cloze-code", "interrupted"),
        ("mean", "bible", "failed"),
    }


def test_every_seed_is_listed_with_its_summary(tables):
    name = next(n for n in tables if n.startswith("Every seed") and "50\xa0%" in n)
    heads = [row[0] for row in tables[name][1:]]
    assert heads[:6] == [f"random, seed {seed}" for seed in SEEDS]
    assert heads[6:] == [f"random, {w}" for w in ("mean", "standard deviation", "min", "max")]


def test_verdict_says_what_the_table_says(html, tables):
    rows = leaderboard(tables, 50)
    best = next(name for name in rows if name != "unpruned")
    tied = {n for n, r in rows.items() if r["From the best|95 % interval"].endswith("separated")}
    sentence = page(synthetic()).groups[0].budgets[1].verdict
    assert sentence[0].startswith(f"{best} leads with a Common Avg of")
    assert "over the random mean" in sentence[0]
    assert sentence[0] in html
    assert tied
    assert {n for n in rows if re.search(rf"[ ,]{n}[ ,]", sentence[1])} == tied
    assert sentence[2] == "None of the 6 random seeds reaches it."
    assert sentence[3] == "frequency is incomplete and not ranked."


def test_notes_tell_of_clamped_budgets_and_coinciding_masks(html):
    notes = page(synthetic()).groups[0].budgets[0].notes
    assert notes[0] == "tb-coverage: protection budget clamped from 12 to 8"
    assert notes[1].startswith("max and max-protected both keep exactly the same experts")
    assert all(note in html for note in notes)


def test_equal_masks_tie():
    group = arrange(synthetic())[0]
    ranked = standings(group, average_score(synthetic()))[0.25]
    by_name = {standing.entry.method: standing for standing in ranked}
    assert by_name["max"].rank == by_name["max-protected"].rank


def test_methods_that_differ_by_noise_share_the_first_rank():
    rng = np.random.default_rng(0)
    cells = []
    for cell in synthetic(failures=False).cells:
        found = dict(cell.evaluations)
        for task in CLOZE:
            noise = rng.integers(0, 2, 200).astype(float)
            items = found[task].items.assign(acc_norm=noise)
            found[task] = evaluation(task, items)
        cells.append(dataclasses.replace(cell, evaluations=found))
    results = dataclasses.replace(synthetic(failures=False), cells=tuple(cells))
    for ranked in standings(arrange(results)[0], average_score(results)).values():
        assert {standing.rank for standing in ranked} == {1}
        assert all(standing.tied for standing in ranked)
    sentences = page(results).groups[0].budgets[0].verdict
    assert sentences[0].endswith("which is not separated from it.")
    assert sentences[1].endswith("thus from none.")


def test_items_in_another_order_are_paired_by_name():
    results = synthetic(failures=False)
    cell = results.cells[10]
    shuffled = cell.evaluations["cloze-code"].items.sample(frac=1, random_state=3)
    found = {**cell.evaluations, "cloze-code": evaluation("cloze-code", shuffled)}
    cells = list(results.cells)
    cells[10] = dataclasses.replace(cell, evaluations=found)
    other = dataclasses.replace(results, cells=tuple(cells))
    score = average_score(results)
    ours, theirs = (standings(arrange(r)[0], score)[0.25] for r in (results, other))
    assert [s.rank for s in ours] == [s.rank for s in theirs]
    assert [s.from_leader for s in ours] == [s.from_leader for s in theirs]
    less = shuffled.iloc[1:].reset_index(drop=True)
    found["cloze-code"] = evaluation("cloze-code", less)
    with pytest.raises(MbenchError, match="other items of cloze-code"):
        standings(arrange(other)[0], score)


def test_without_an_average_log_perplexity_ranks():
    results = synthetic(average="")
    score = primary_score(results)
    assert score == perplexity_score(results)
    ranked = standings(arrange(results)[0], score)[0.5]
    means = [s.summary.mean for s in ranked if s.rank is not None]
    assert means == sorted(means)
    assert ranked[0].from_random.value < 0 < ranked[0].recovered < 1
    html = to_html(results)
    assert "leads with a Mean log perplexity of" in html
    assert html.count("<svg class=") == 1


def test_without_a_score_nothing_is_ranked():
    results = synthetic(average="")
    metrics = {task: "acc" for task in CLOZE}
    results = dataclasses.replace(results, task_metrics=metrics)
    html = to_html(results)
    assert "methods are not ranked" in html
    assert ">Rank<" not in html


@pytest.mark.parametrize("keep", ["none", "no-random", "one-seed", "one-method", "nothing"])
def test_partial_runs_render(keep):
    full = synthetic()
    cells = {
        "none": [c for c in full.cells if c.method == "none"],
        "no-random": [c for c in full.cells if c.method not in ("random", "none")],
        "one-seed": [c for c in full.cells if c.seed in (None, 42)],
        "one-method": [c for c in full.cells if c.method == "mean" and c.retain == 0.5],
        "nothing": [],
    }[keep]
    html = to_html(dataclasses.replace(full, cells=tuple(cells)))
    body = html.partition("<script>")[0]
    assert not re.search(r"\bnan\b", body, re.IGNORECASE)
    if keep == "no-random":
        assert "over the random mean" not in html


def test_overflown_perplexities_and_single_items_render():
    cells = []
    for cell in synthetic().cells[:9]:
        found = {}
        for task, one in cell.evaluations.items():
            worse = one.items.assign(nll=1e6) if task == "bible" else one.items
            found[task] = evaluation(task, worse.head(1) if task in CLOZE else worse)
        cells.append(dataclasses.replace(cell, evaluations=found))
    html = to_html(dataclasses.replace(synthetic(), cells=tuple(cells)))
    body = html.partition("<script>")[0]
    assert "∞" in body
    assert not re.search(r">[^<]*\bnan\b", body)


def test_nothing_but_failures_renders():
    cells = [
        dataclasses.replace(
            c, status="failed", reason="no weights", mask="", evaluations={}, tasks={}
        )
        for c in synthetic().cells
    ]
    html = to_html(dataclasses.replace(synthetic(), cells=tuple(cells), masks={}))
    assert "No method has a complete Common Avg." in html
    assert html.count("no weights") > len(cells)


def test_models_are_never_compared():
    keep = {"none", "random", "mean", "max"}  # a few are enough, and quick
    own = [c for c in synthetic().cells if c.method in keep]
    more = [dataclasses.replace(c, model="second/model") for c in own]
    masks = synthetic().masks
    results = dataclasses.replace(
        synthetic(),
        cells=(*own, *more),
        masks={**masks, **{("second/model", mask): keep for (_, mask), keep in masks.items()}},
    )
    view = page(results)
    assert [group.heading for group in view.groups] == [
        f"{MODEL}, router sliced",
        "second/model, router sliced",
    ]
    html = to_html(results)
    ids = Tables(html).ids
    assert len(ids) == len(set(ids))


def test_hostile_names_are_text():
    def taint(cell):
        return dataclasses.replace(
            cell,
            model=HOSTILE,
            method=HOSTILE if cell.method == "max" else cell.method,
            reason=HOSTILE if cell.reason else "",
            notes=(HOSTILE,),
            tasks={
                t: dataclasses.replace(s, reason=HOSTILE if s.status != "ok" else "")
                for t, s in cell.tasks.items()
            },
        )

    results = dataclasses.replace(
        synthetic(),
        suite=HOSTILE,
        title=HOSTILE,
        description=HOSTILE,
        average=HOSTILE,
        cells=tuple(map(taint, synthetic().cells)),
        masks={(HOSTILE, mask): keep for (_, mask), keep in synthetic().masks.items()},
        provenance={HOSTILE: {HOSTILE: HOSTILE}, "command": HOSTILE},
        protocol=((HOSTILE, HOSTILE),),
    )
    html = to_html(results)
    assert "<script>alert" not in html
    assert html.count("</style>") == 1
    assert html.count("{{ 7 * 7 }}") > 20
    assert "49&lt;" not in html


def test_rendering_is_deterministic_and_follows_from_the_files(tmp_path):
    write(synthetic(), tmp_path)
    path = render(synthetic(), tmp_path)
    assert path == tmp_path / "index.html"
    once = path.read_bytes()
    # In another process, where hashing of strings is seeded otherwise.
    code = "import sys; from mbench import report, results_files;"
    code += "report.render(results_files.read(sys.argv[1]), sys.argv[1])"
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    assert path.read_bytes() == once
    assert to_html(read(tmp_path)).encode() == once


def test_page_names_command_protocol_router_and_hashes(html):
    for text in ("mbench run quickstart", "window 128, stride 128", "versions › torch", "ab" * 32):
        assert text in html
    assert "router sliced" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_colours_and_shapes_are_never_shared():
    styles = charts.looks([f"method {n}" for n in range(84)])
    assert len(set(styles.values())) == 84
    css = Path(charts.__file__).with_name("templates").joinpath("report.css").read_text()
    assert all(css.count(f"--c{n}: #") == 2 for n in range(charts.COLOURS))


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (2.0, 2.0001), (-3.0, 900.0), (0.61, 0.68)])
def test_ticks_lie_within_the_axis(low, high):
    values = charts.ticks(low, high)
    assert 3 <= len(values) <= 9
    assert low <= values[0] < values[-1] <= high


def test_jaccard_and_picture():
    first = np.array([[True, True, False, False], [True, True, False, False]])
    second = np.array([[True, False, True, False], [True, True, False, False]])
    assert experts.jaccard(first, second) == pytest.approx((1 / 3 + 1) / 2)
    assert experts.overlap([first], [second]) == experts.jaccard(first, second)
    same = [first, second]
    assert experts.overlap(same, same) == experts.jaccard(first, second)
    alone = [first]
    assert experts.overlap(alone, alone) is None
    assert experts.picture(first, second).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("acc", 0.12345, "0.123"),
        ("perplexity", 12.345, "12.35"),
        ("perplexity", 432.1, "432.1"),
        ("perplexity", 54321.6, "54322"),
        ("perplexity", 3.21e9, "3.2e9"),
        ("perplexity", math.inf, "∞"),
        ("acc", math.nan, "–"),
    ],
)
def test_numbers(metric, value, expected):
    assert words.number(metric, value) == expected


def test_words():
    assert words.percent(0.125) == "12.5\xa0%"
    assert words.signed(-0.0314) == "−0.031"
    assert words.listing(["a"]) == "a"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.shorten("x " * 90).endswith("x…")


def test_seeds_enter_the_intervals_of_random_pruning():
    """Against random pruning, an interval is wider than item sampling alone would make it."""
    group = arrange(synthetic())[0]
    score = average_score(synthetic())
    found = {s.entry.method: s for s in standings(group, score)[0.5]}["mean"]
    width = found.from_random.high - found.from_random.low
    values = [score.value(cell) for cell in group.settings[1].entries[0].cells]
    assert width > 2 * 1.96 * stats.summarize(values).std / math.sqrt(6)


@pytest.fixture(scope="module")
def browser():
    if not shutil.which(CHROMIUM):
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    api = pytest.importorskip("playwright.sync_api", reason="needs the playwright package")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return render(synthetic(), tmp_path_factory.mktemp("page"))


def visit(browser, path, width=1280, scheme="light", **options):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, **options
    )
    tab = context.new_page()
    tab.problems, tab.requests = [], []
    tab.on("console", lambda m: tab.problems.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.goto(path.as_uri())
    return tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_quiet_alone_and_fits(browser, written, width, scheme):
    tab = visit(browser, written, width, scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.problems == []
    assert all(url.startswith(("file:", "data:")) for url in tab.requests)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:  # the leaderboard itself fits without scrolling
        overflow = "[...document.querySelectorAll('.budget > .scroll')]"
        overflow += ".map((box) => box.scrollWidth - box.clientWidth)"
        assert max(tab.evaluate(overflow)) <= 0
    tab.context.close()


def test_checks_of_the_page_can_fail(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<p style='width:3000px'>x<img src='http://127.0.0.1:9/x.png'>")
    tab = visit(browser, bad)
    assert tab.problems
    assert any(url.startswith("http:") for url in tab.requests)
    assert tab.evaluate("document.documentElement.scrollWidth") > 1280
    tab.context.close()


def test_sorting_keeps_the_unpruned_row_and_puts_missing_last(browser, written):
    tab = visit(browser, written)
    table = tab.locator("table").first
    head = table.locator("thead th", has_text="cloze-code")
    for direction in ("ascending", "descending"):
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == direction
        names = table.locator("tbody th").all_inner_texts()
        assert names[0] == "unpruned"
        assert names[-1] == "expert-sparsity"
        column = head.evaluate("(cell) => cell.cellIndex")
        cells = table.locator(f"tbody tr:not(.pinned) > :nth-child({column + 1})[data-sort]")
        values = [float(cell.get_attribute("data-sort")) for cell in cells.all()]
        assert len(values) == 12
        assert values == sorted(values, reverse=direction == "descending")
    tab.context.close()


def test_page_is_readable_without_script(browser, written):
    tab = visit(browser, written, java_script_enabled=False)
    text = tab.inner_text("body")
    assert "leads with a Common Avg" in text
    assert "Bold: separated" in text
    tab.context.close()


def test_a_handful_of_items_separates_nothing(tmp_path):
    whole = standings_of(synthetic())
    assert any(standing.differs_from_random for standing in whole)
    few = standings_of(synthetic(), items=19)
    assert not any(standing.differs_from_random for standing in few)
    assert {standing.rank for standing in few if standing.rank} == {1}


def standings_of(results, items=None):
    cells = tuple(
        dataclasses.replace(
            cell,
            evaluations={
                task: evaluation(task, found.items if items is None else found.items.head(items))
                for task, found in cell.evaluations.items()
            },
        )
        for cell in results.cells
    )
    results = dataclasses.replace(results, cells=cells)
    (group,) = arrange(results)
    found = standings(group, primary_score(results))
    return [standing for each in found.values() for standing in each]
