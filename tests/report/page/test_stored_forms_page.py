"""Stored forms, published checkpoints and methods without a cell: on the page, in files, in a
terminal."""

import dataclasses
import functools
import itertools
import json
import re

import pytest

from helpers.altered import altered
from helpers.browsing import accessibility, overflow, visit
from helpers.page_tables import Tables
from helpers.pages import html_of, render_page
from helpers.stored_forms import FORMS, bytes_of, three_forms, with_gaps
from mbench.cli.standings import show_standings
from mbench.report.across_runs.merge import merge
from mbench.report.page.index import to_json
from mbench.report.page.score_maps import maps_script
from mbench.report.statistics.answers import answers
from mbench.report.statistics.boards import boards
from mbench.report.tables_for_papers import to_latex, to_markdown
from mbench.report.words import size

GAP = ("qwen", "frequency", 0.25)
BUDGETS = (0.75, 0.5, 0.25)


@functools.cache
def results():
    return with_gaps(three_forms(), [GAP])


@functools.cache
def run():
    return boards(results())


@pytest.fixture(scope="module")
def page():
    return html_of(results())


def test_the_page_says_how_weights_are_stored_of_quantised_models_alone(page):
    for model, form in FORMS.items():
        words = f"eights as stored in {form}, computed in bfloat16"
        assert (f"W{words}." in page) == bool(form)
        assert (f"w{words}; activations not quantised" in page) == bool(form)
        assert (f"Stored form of {model}<" in page) == bool(form)
    assert "Stored form of acme-merged-fp8<" in page
    assert "4 methods, 3 published checkpoints, random × 6" in page
    # Of one model alone under the title.
    alone = altered(lambda c: c if c.model == "qwen-fp8" else None, three_forms())
    line = html_of(alone).split("</nav>")[0]
    assert "weights as stored in FP8 128x128, computed in bfloat16" in line


def test_published_checkpoints_are_listed_with_what_they_are(page):
    head, *rows = Tables(page).tables["Published checkpoints"]
    by_name = {row[0].split("|")[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(by_name) == ["acme-mean", "acme-tuned", "acme-merged-fp8"]
    for name, row in by_name.items():
        source = next(text for column, text in row.items() if column.startswith("Source"))
        assert source == f"hub acme/{name}|revision v1.0|content 0123456789ab"
    same, tuned, merged = by_name.values()
    assert same["Its experts"] == tuned["Its experts"] == "those of mean"
    assert same["Beside them"] == "computes what the mask computes"
    assert tuned["Beside them"] == "differs in: router of 8 layers, 32 tensors"
    assert merged["Its experts"].startswith("no selection of the model's experts: layer 3")
    assert merged["Pruned"] == "56.25\xa0%|14 kept"
    stored = next(text for column, text in merged.items() if column.startswith("Stored"))
    assert stored == f"as FP8 128x128|{size(bytes_of('qwen-fp8', 14), 'B')}"


def test_they_are_rows_of_their_budget_and_join_equal_masks(page):
    tables = Tables(page).tables
    half = next(n for n in tables if n.startswith("Leaderboard: qwen, 50"))
    names = [row[0].split("|")[0] for row in tables[half][1:]]
    assert "mean = acme-mean" in names
    assert "acme-tuned" in names
    alone = next(n for n in tables if n.startswith("Leaderboard: qwen, 56.25"))
    row = next(row for row in tables[alone] if row[0].startswith("acme-merged-fp8"))
    assert "published checkpoint|stored in FP8 128x128" in row[0]
    assert not any("acme" in " ".join(map(str, t)) for n, t in tables.items() if "qwen, 75" in n)


def test_a_gap_is_told_with_its_reason_everywhere(page, capsys):
    tables = Tables(page).tables
    board = next(t for n, t in tables.items() if n.startswith("Leaderboard: qwen, 75"))
    assert ["frequency", "no cell|it cannot protect 12 of 8 experts"] in [row[:2] for row in board]
    assert "No cell (the leaderboard says why): frequency at 75\xa0% pruned." in page
    show_standings(run())
    printed = capsys.readouterr().err
    assert "no cell: frequency at 75\xa0% pruned, it cannot protect 12 of 8 experts" in printed
    assert "No cell: frequency at 75 % pruned." in to_markdown(run())


@pytest.mark.parametrize(
    "gone",
    [
        [("qwen", "random", 0.5)],
        [("qwen", method, 0.5) for method in ("mean", "tb-coverage", "reap-code", "frequency")],
        [(m, "random", retain) for m in FORMS for retain in BUDGETS],
        [("qwen-fp8", method, 0.25) for method in ("random", "mean", "reap-code", "frequency")],
    ],
)
def test_any_cell_may_be_lacking(gone, capsys):
    made = with_gaps(three_forms(), gone)
    of_run = boards(made)
    page = html_of(made)
    for model, method, retain in gone:
        board = next(
            board
            for own in of_run.groups
            for board in own.boards
            if (own.group.model, board.retain) == (model, retain)
        )
        assert method in [gap.method for gap in board.gaps]
        assert f"it cannot protect 12 of {32 * retain:g} experts" in page
    show_standings(of_run)
    assert capsys.readouterr().err.count("no cell: ") == len(gone)
    for text in (to_markdown(of_run), to_latex(of_run), maps_script(of_run)):
        assert text
    json.dumps(to_json(of_run), allow_nan=False)


def test_maps_show_the_experts_of_what_is_recognised_and_say_what_differs(page):
    data = json.loads(maps_script(run()).removeprefix("scoreMaps(").rstrip(");\n"))
    half = next(b for b in data["models"][0]["budgets"] if b["retain"] == 0.5)
    masks = {mask["label"]: mask for mask in half["masks"]}
    assert masks["acme-tuned"]["mask"] == masks["mean"]["mask"] == masks["acme-mean"]["mask"]
    assert masks["acme-tuned"]["marks"] == [
        "published checkpoint",
        "differs in: router of 8 layers, 32 tensors",
    ]
    assert masks["mean"]["marks"] == []
    labels = [m["label"] for b in data["models"][0]["budgets"] for m in b["masks"]]
    assert "acme-merged-fp8" not in labels
    assert "No mask of acme-merged-fp8 is shown" in page


def test_page_terminal_tables_and_file_name_the_same_best_under_every_limit(page, capsys):
    show_standings(run())
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    (board,) = run().equal_bytes
    (written,) = to_json(run())["equal_bytes"]
    _, *rows = Tables(page).tables[f"{board.heading}: by limit"]
    markdown = to_markdown(run())
    for limit, own, row in zip(board.limits, written["limits"], rows, strict=True):
        answer = answers(limit.ranking)[0]
        assert own["answer"]["answer"] == answer.chip
        assert own["bytes"] == limit.bytes
        assert [each["bytes"] for each in own["rows"]] == [each.bytes for each in limit.rows]
        assert row[0] == size(limit.bytes, "B")
        assert answer.chip in row[1]
        assert " ".join(f"{row[0]} {answer.name or answer.chip}".split()) in printed
        first = f"| {size(limit.bytes, 'B')} | {limit.rows[0].name} ("
        assert first.replace("\xa0", " ") in markdown
        table = Tables(page).tables[f"{board.heading}, {limit.words}"]
        assert [text[0].split("|")[0] for text in table[1:]] == [r.name for r in limit.rows]


def test_merged_runs_keep_gaps_and_forms():
    whole = three_forms()
    parts = {}
    for model in FORMS:
        records = whole.provenance.models
        kept = {model: dataclasses.replace(records[model])}
        methods = {model: whole.provenance.methods[model]}
        provenance = dataclasses.replace(whole.provenance, models=kept, methods=methods)
        parts[model] = dataclasses.replace(
            whole,
            cells=tuple(c for c in whole.cells if c.model == model),
            masks={key: keep for key, keep in whole.masks.items() if key[0] == model},
            left_out=tuple(left for left in whole.left_out if left.model == model),
            provenance=provenance,
        )
    merged = merge(parts)
    assert merged.left_out == whole.left_out
    (joined,), (alone,) = boards(merged).equal_bytes, boards(whole).equal_bytes
    assert [limit.bytes for limit in joined.limits] == [limit.bytes for limit in alone.limits]
    # A gap of one run that another one fills is none.
    filled = merge({"gap": with_gaps(parts["qwen"], [GAP]), "whole": parts["qwen"]})
    assert filled.left_out == parts["qwen"].left_out


@pytest.mark.parametrize("width", [1280, 390])
def test_the_tab_reads_on_any_screen(browser, tmp_path, width):
    address = render_page(results(), tmp_path / "forms")
    with visit(browser, address, width=width) as tab:
        tab.get_by_role("link", name="Equal bytes").first.click()
        first = tab.locator("#equal-bytes table").first
        first.wait_for()
        assert overflow(tab) <= 0
        shown = tab.locator("#bytes-1-chart").bounding_box()
        assert shown["x"] >= 0
        assert shown["x"] + shown["width"] <= width
        names = tab.locator("#bytes-1-chart text").all_text_contents()
        assert {"qwen, unpruned", "qwen-fp8, unpruned"} <= set(names)
        boxes = [
            name.bounding_box()
            for name in tab.locator("#bytes-1-chart text").all()
            if "," in name.text_content()
        ]
        assert len(boxes) >= 3
        for one, two in itertools.combinations(boxes, 2):
            apart = (
                one["x"] + one["width"] <= two["x"]
                or two["x"] + two["width"] <= one["x"]
                or one["y"] + one["height"] <= two["y"]
                or two["y"] + two["height"] <= one["y"]
            )
            assert apart
        assert accessibility(tab) == []
        tab.get_by_role("link", name="Results").first.click()
        tab.get_by_role("button", name="75\N{NO-BREAK SPACE}% pruned").click()
        line = tab.locator("#lb tr.unranked", has_text="frequency")
        assert "it cannot protect 12 of 8 experts" in line.inner_text()
        tab.get_by_role("button", name="50\N{NO-BREAK SPACE}% pruned").click()
        assert "acme-mean: published checkpoint" in tab.locator("#lb").inner_text()
        tab.evaluate("choices.set({ columns: 'bytes' })")
        column = [
            re.sub(r"\s", " ", text) for text in tab.locator("#lb td.c-bytes").all_inner_texts()
        ]
        assert {"16.3 GB", "8.58 GB"} == set(column)
        assert overflow(tab) <= 0
        assert tab.problems == []
