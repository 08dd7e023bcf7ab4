import dataclasses
import math
import re
from pathlib import Path

import pytest

from helpers import records
from helpers.demo_results import CLOZE, MODEL, synthetic
from helpers.page_tables import Tables
from helpers.pages import html_of, render_page
from mbench.core.evaluation import evaluation
from mbench.core.results import ProtocolEntry
from mbench.report import words
from mbench.report.charts import style as charts
from mbench.report.statistics.boards import boards
from mbench.storage.results_folder import read, write

HOSTILE = "<script>alert(1)</script>\"'&</style>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def html():
    return html_of(synthetic())


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
    html = html_of(dataclasses.replace(full, cells=tuple(cells)))
    body = html.partition("<script>")[0]
    assert not re.search(r"\bnan\b", body, re.IGNORECASE)
    if keep == "no-random":
        assert "random pruning was not run" in html


def test_overflown_perplexities_and_single_items_render():
    cells = []
    for cell in synthetic().cells[:9]:
        found = {}
        for task, one in cell.evaluations.items():
            worse = one.items.assign(nll=1e6) if task == "bible" else one.items
            found[task] = evaluation(task, worse.head(1) if task in CLOZE else worse)
        cells.append(dataclasses.replace(cell, evaluations=found))
    html = html_of(dataclasses.replace(synthetic(), cells=tuple(cells)))
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
    html = html_of(dataclasses.replace(synthetic(), cells=tuple(cells), masks={}))
    assert "No method has a complete and comparable Common Avg." in html
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
    assert [group.heading for group in boards(results).groups] == [
        f"{MODEL}, router sliced",
        "second/model, router sliced",
    ]
    html = html_of(results)
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
        provenance=records.provenance(
            {HOSTILE: "acc"},
            {HOSTILE: {HOSTILE: records.method(HOSTILE, corpora=(HOSTILE,))}},
            run=records.run_record(HOSTILE, (HOSTILE,), versions={HOSTILE: HOSTILE}),
        ),
        protocol=(ProtocolEntry(HOSTILE, HOSTILE),),
    )
    html = html_of(results)
    assert "<script>alert" not in html
    assert html.count("</style>") == 1
    assert html.count("{{ 7 * 7 }}") > 20
    assert "49&lt;" not in html


def test_rendering_follows_from_the_files(tmp_path):
    write(synthetic(), tmp_path)
    path = render_page(synthetic(), tmp_path)
    assert path == tmp_path / "index.html"
    assert html_of(read(tmp_path)).encode() == path.read_bytes()


def test_page_names_command_protocol_router_and_hashes(html):
    for text in ("mbench run quickstart", "window 128, stride 128", "versions › torch", "ab" * 32):
        assert text in html
    assert "router sliced" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_colours_and_shapes_are_never_shared():
    styles = charts.looks([f"method {n}" for n in range(84)])
    assert len(set(styles.values())) == 84
    css = (Path(charts.__file__).parents[1] / "templates/report.css").read_text()
    assert all(css.count(f"--c{n}: light-dark(#") == 1 for n in range(charts.COLOURS))


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
    assert words.difference(-0.0314) == "−0.031"
    assert words.difference(0.0004) == "+0.0004"
    assert words.difference(-0.00001) == "+0.0000"
    assert words.difference(0.0) == "+0.000"
    assert words.bounds(-0.1, 0.25) == "[−0.100, +0.250]"
    assert words.listing(["a"]) == "a"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.shorten("x " * 90).endswith("x…")


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_an_unpruned_loss_that_is_not_finite_leaves_a_page(loss):
    from helpers.small_runs import grid, run
    from mbench.core.evaluation import evaluation

    whole = run(grid())
    unpruned, *others = whole.cells
    table = unpruned.evaluations["ppl"].items.assign(nll=loss)
    found = {**unpruned.evaluations, "ppl": evaluation("ppl", table)}
    cells = (dataclasses.replace(unpruned, evaluations=found), *others)
    page = html_of(dataclasses.replace(whole, cells=cells))
    assert "unpruned" in page


@pytest.mark.parametrize("done", range(0, 17, 2))
def test_a_page_in_the_middle_of_a_run_renders(done):
    """Masks of the second model are made, and nothing of it is evaluated yet."""
    from helpers.small_runs import grid, run
    from mbench.core.cell_results import TaskStatus

    whole = run(grid(models=("m", "n")), average=("quiz",))
    left = dict.fromkeys(whole.task_metrics, TaskStatus("pending", "not reached yet"))
    cells = (
        one if number < done else dataclasses.replace(one, evaluations={}, tasks=left)
        for number, one in enumerate(whole.cells)
    )
    assert html_of(dataclasses.replace(whole, cells=tuple(cells)))
