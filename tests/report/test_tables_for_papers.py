"""Tables for papers: every name survives its escaping, and only what is significant is bold."""

from __future__ import annotations

import dataclasses
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from helpers.demo_results import synthetic
from helpers.small_runs import cell, grid, items, results, run
from mbench.core.evaluation import evaluation
from mbench.report import tables_for_papers as exports
from mbench.report.notations import latex_text, markdown_text
from mbench.report.statistics.boards import boards

HOSTILE = r"""\input{/x} $a_1^2$ & 50% #1 ~ {x} <b>|</b> `"' -- ,, ---[y](z) *w* \\ &amp; a|b"""
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" "))

COMMANDS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textquotedbl": '"',
    "textquotesingle": "'",
    "textasciigrave": "`",
}


def to_latex(results):
    return exports.to_latex(boards(results))


def to_markdown(results):
    return exports.to_markdown(boards(results))


def read_latex(source):
    """What LaTeX would set; refuses every sign that means something to it by itself."""
    text, place = "", 0
    pattern = re.compile(r"\\([a-z]+)\{\}|\\([&%$#_{}])|\{\}|([^\\&%$#_{}~^<>|\"'`])")
    while place < len(source):
        found = pattern.match(source, place)
        assert found, f"bare {source[place:]!r} in {source!r}"
        command, escaped, plain = found.groups()
        text += COMMANDS[command] if command else escaped or plain or ""
        place = found.end()
        assert not (plain and plain in "-," and source[place : place + 1] == plain), "a ligature"
    return text


def read_markdown(source):
    """Tables as rows of texts, and all other text, by a parser of its own."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source)
    rows, paragraphs = [], []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            assert {c.type for c in token.children} <= {"text", "text_special", *STRONG}
            text = "".join(child.content for child in token.children)
            (rows[-1] if before.type in ("td_open", "th_open") else paragraphs).append(text)
    return rows, paragraphs


STRONG = ("strong_open", "strong_close", "softbreak")


@settings(deadline=None, max_examples=60)
@given(NAMES)
@example(HOSTILE)
def test_latex_sets_names_as_they_are(name):
    assert read_latex(latex_text(name)) == " ".join(name.split())


@settings(deadline=None, max_examples=60)
@given(NAMES)
@example(HOSTILE)
def test_markdown_shows_names_as_they_are(name):
    shown = " ".join(name.split())
    source = f"| x {markdown_text(name)} y | b |\n| --- | --- |\n"
    rows, _ = read_markdown(source)
    assert rows == [[f"x {shown} y" if shown else "x  y", "b"]]


def test_hostile_names_stay_in_their_places():
    whole = run(grid())
    cells = [dataclasses.replace(c, method=HOSTILE) for c in whole.cells if c.method == "alpha"]
    hostile = dataclasses.replace(
        whole,
        title=HOSTILE,
        average=HOSTILE,
        cells=(*(c for c in whole.cells if c.method != "alpha"), *cells),
    )
    (header, *rows), (caption, _) = read_markdown(to_markdown(hostile))
    assert header[2] == " ".join(HOSTILE.split())
    assert caption.startswith(" ".join(HOSTILE.split()))
    assert {len(row) for row in rows} == {len(header)}
    assert sum(row[1] == " ".join(HOSTILE.split()) for row in rows) == 2
    latex = to_latex(hostile)
    lines = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(rows)
    for line in lines:
        assert len(re.findall(r"(?<!\\)&", line)) == len(header) - 1
    depth = 0
    for sign in re.sub(r"\\[{}\\]", "", latex):
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0


def marked(ability):
    """One budget of random and two methods; `ability`: share of the quiz each gets right."""
    cells = []
    for key in grid(retains=(0.5,)):
        one = cell(*key)
        right = ability.get(key[1], 0.2) * 300
        table = items("quiz", one.mask, 300).assign(acc=[float(n < right) for n in range(300)])
        found = {**one.evaluations, "quiz": evaluation("quiz", table)}
        cells.append(dataclasses.replace(one, evaluations=found))
    rows, _ = read_markdown(to_markdown(results(cells)))
    return rows, to_markdown(results(cells)), to_latex(results(cells))


def test_bold_is_the_best_and_what_is_not_told_apart_from_it():
    _, text, latex = marked({"alpha": 0.9, "beta": 0.5})
    assert re.search(r"\| alpha \| \*\*0\.900\*\* \|", text)
    assert re.search(r"\| beta \| 0\.500 \|", text)
    assert r" & alpha & \textbf{0.900} & " in latex
    _, text, latex = marked({"alpha": 0.51, "beta": 0.5})  # all tied: nothing is bold
    assert re.search(r"\| alpha \| 0\.510 \|", text)
    assert re.search(r"\| beta \| 0\.500 \|", text)


def test_guesses_are_never_bold_and_named_below():
    rows, text, _ = marked({"none": 0.0, "random": 0.0, "alpha": 0.01, "beta": 0.0})
    assert [row[rows[0].index("quiz")] for row in rows[2:]] == [
        "0.000 ± 0.000",
        "0.010",
        "0.000",
    ]
    assert "quiz: not told apart from guessing" in text


def test_what_the_page_cannot_compare_carries_no_mark():
    whole = run(grid())
    cells = []
    for one in whole.cells:
        table = one.evaluations["quiz"].items
        if one.retain == 0.25:
            table = table.assign(item="other " + table["item"])
        found = {**one.evaluations, "quiz": evaluation("quiz", table)}
        cells.append(dataclasses.replace(one, evaluations=found))
    rows, _ = read_markdown(to_markdown(dataclasses.replace(whole, cells=tuple(cells))))
    column = rows[0].index("quiz")
    assert all(row[column] for row in rows[2:])


def test_seeds_are_mean_and_deviation_and_failures_are_dashes():
    rows, _ = read_markdown(to_markdown(synthetic()))
    head = rows[0]
    table = [dict(zip(head, row, strict=True)) for row in rows[1:]]
    assert head[:4] == ["Pruned", "Method", "Common Avg", "Mean log perplexity ↓"]
    values = [
        c.metric("code", "perplexity").value
        for c in synthetic().cells
        if (c.method, c.retain) == ("random", 0.75)
    ]
    mean = sum(values) / len(values)
    std = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    random = next(row for row in table if row["Method"] == "random")
    assert random["code ↓"] == f"{mean:.2f} ± {std:.2f}"
    failed = [row for row in table if row["Method"] == "expert-sparsity"][-1]
    assert set(list(failed.values())[2:]) == {"–"}
    assert "± nan" not in to_markdown(synthetic())
