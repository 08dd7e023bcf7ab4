"""Tables for a paper: LaTeX (booktabs) and Markdown, one per model, best figures marked.

A figure is bold where its method is separated from every other at that budget; where it is not,
the best one and all that are not separated from it carry a dagger. The tests are the page's.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import CellResult, Results
from mbench.report.statistics.boards import GroupBoards, second_score
from mbench.report.statistics.groups import Entry, Group, average_score, perplexity_score
from mbench.report.statistics.ranking import Standing, leaders, winner
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.words import MINUS, number, percent
from mbench.storage.store import write_atomically

LATEX, MARKDOWN = "tables.tex", "tables.md"

NOTE = (
    "Bold: separated from every other method at the same budget (paired over items, Holm's"
    " correction over all pairs of methods; for single tasks, over all pairs on all tasks)."
    " Dagger: not separated from the best. Double dagger: no better than guessing. Several seeds:"
    " mean and sample standard deviation. A dash: no complete result."
)


@dataclass(frozen=True)
class Syntax:
    """How a format writes what both have in common."""

    text: Callable[[str], str]
    """Escapes a name."""
    plain: str
    bold: str
    tied: str
    floor: str
    spread: str
    infinite: str
    missing: str
    minus: str
    lower: str


def latex_text(text: str) -> str:
    """Text that LaTeX (T1 encoding) sets as it is: no command, no ligature, one line."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
    return re.sub(r"([-,])(?=\1)", r"\1{}", escaped)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, inside a table too, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    visible = "".join(" " if unicodedata.category(sign)[0] == "C" else sign for sign in text)
    return " ".join(visible.split())


_SYNTAX = {
    "latex": Syntax(
        latex_text,
        "%s",
        r"\textbf{%s}",
        r"%s$^\dagger$",
        r"%s$^\ddagger$",
        r"$\pm$",
        r"$\infty$",
        "--",
        "$-$",
        r"$\downarrow$",
    ),
    "markdown": Syntax(markdown_text, "%s", "**%s**", "%s†", "%s‡", "±", "∞", "–", MINUS, "↓"),
}


@dataclass(frozen=True)
class Grid:
    """One model's table in the words of a format."""

    caption: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[tuple[str, ...], ...], ...]
    """The unpruned model, then each budget: rows of as many entries as there are columns."""


def _marks(own: GroupBoards, results: Results) -> list[dict[tuple[float, str], str]]:
    """By column: (retain ratio, method) -> `bold` or `tied` of those that are best, or `floor`."""
    found: list[dict[tuple[float, str], str]] = []
    if average_score(results):
        found.append(_of_standings(own.standings()))
    if perplexity_score(results):
        found.append(_of_standings(own.standings(by_perplexity=second_score(results) is not None)))
    for task in results.task_metrics:
        marks = {}
        for board in own.boards:
            masks = {entry.method: entry.masks for entry in board.setting.entries}
            one = board.tasks[task]
            kinds = {masks[method] for method in one.best}
            alone = len(kinds) == 1 and len(one.figures) > len(one.best)
            kind = "bold" if alone else "tied"
            if task in board.uninformative:
                marks |= {(board.setting.retain, method): "floor" for method in one.figures}
            else:
                marks |= {(board.setting.retain, method): kind for method in one.best}
        found.append(marks)
    return found


def _of_standings(found: Mapping[float, Sequence[Standing]]) -> dict[tuple[float, str], str]:
    marks = {}
    for retain, ranked in found.items():
        kind = "bold" if winner(ranked) is not None else "tied"
        marks |= {(retain, method): kind for method in leaders(ranked)}
    return marks


def to_latex(results: Results, found: Sequence[GroupBoards]) -> str:
    """One `table` environment per model, marked by what `boards` found in the results."""
    # pandas' Styler sets rules between budgets only with the index in a header of its own, and
    # escapes neither ligatures nor < > |.
    lines = ["% needs \\usepackage{booktabs,textcomp} and \\usepackage[T1]{fontenc}"]
    for grid in _grids(results, _SYNTAX["latex"], found):
        blocks = "\\midrule\n".join(
            "".join(" & ".join(row) + " \\\\\n" for row in block) for block in grid.blocks
        )
        lines += [
            "\\begin{table}[t]",
            "\\centering",
            f"\\caption{{{grid.caption}. {latex_text(NOTE)}}}",
            f"\\begin{{tabular}}{{ll{'r' * (len(grid.columns) - 2)}}}",
            "\\toprule",
            " & ".join(grid.columns) + " \\\\",
            f"\\midrule\n{blocks}\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(lines) + "\n"


def to_markdown(results: Results, found: Sequence[GroupBoards]) -> str:
    """One table per model, marked by what `boards` found in the results."""
    parts = []
    for grid in _grids(results, _SYNTAX["markdown"], found):
        rule = ["---", "---", *["---:"] * (len(grid.columns) - 2)]
        rows = [grid.columns, rule, *(row for block in grid.blocks for row in block)]
        table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
        parts.append(f"**{grid.caption}**\n\n{table}\n{NOTE}\n")
    return "\n".join(parts)


def _grids(results: Results, syntax: Syntax, found: Sequence[GroupBoards]) -> Iterator[Grid]:
    overall = [score for score in (average_score(results), perplexity_score(results)) if score]
    heads = [_head(syntax, score.name, not score.higher) for score in overall]
    heads += [_head(syntax, t, m in LOWER_IS_BETTER) for t, m in results.task_metrics.items()]
    getters = [(score.name, score.value) for score in overall]
    getters += [
        (metric, partial(_figure, task, metric)) for task, metric in results.task_metrics.items()
    ]
    for each in found:
        group, marks, blocks = each.group, _marks(each, results), []
        if group.unpruned:
            own = Entry("unpruned", (group.unpruned,))
            blocks.append(
                ((syntax.text(percent(1.0)), "unpruned", *_entries(syntax, own, getters)),)
            )
        for setting in group.settings:
            rows = []
            for entry in setting.entries:
                figures = _entries(syntax, entry, getters)
                marked = (
                    getattr(syntax, mark.get((setting.retain, entry.method), "plain")) % figure
                    for mark, figure in zip(marks, figures, strict=True)
                )
                kept = "" if rows else syntax.text(percent(setting.retain))
                rows.append((kept, syntax.text(_name(group, entry)), *marked))
            blocks.append(tuple(rows))
        caption = syntax.text(f"{results.title}: {group.model}, router {group.router}")
        yield Grid(caption, ("Kept", "Method", *heads), tuple(blocks))


def _name(group: Group, entry: Entry) -> str:
    router = entry.cells[0].router
    return entry.method if router == group.router else f"{entry.method}, router {router}"


def _head(syntax: Syntax, name: str, lower: bool) -> str:
    return syntax.text(name) + (f" {syntax.lower}" if lower else "")


def _figure(task: str, metric: str, cell: CellResult) -> float | None:
    found = cell.metric(task, metric)
    return None if found is None else found.value


def _entries(
    syntax: Syntax,
    entry: Entry,
    getters: Sequence[tuple[str, Callable[[CellResult], float | None]]],
) -> Iterator[str]:
    """One entry a column; what failed has no figure."""
    for metric, get in getters:
        values = [value for value in map(get, entry.cells) if value is not None]
        if len(values) < len(entry.cells):
            yield syntax.missing
            continue
        summary = summarize(values)
        text = _number(syntax, metric, summary.mean)
        if summary.count > 1 and math.isfinite(summary.std):
            error = number(metric, summary.std, scale=summary.mean)
            text += f" {syntax.spread} {error}"
        yield text


def _number(syntax: Syntax, metric: str, value: float) -> str:
    return number(metric, value).replace(MINUS, syntax.minus).replace("∞", syntax.infinite)


def write_tables(results: Results, found: Sequence[GroupBoards], directory: Path) -> None:
    """Write `tables.tex` and `tables.md`."""
    for name, text in ((LATEX, to_latex(results, found)), (MARKDOWN, to_markdown(results, found))):
        content = text.encode()
        write_atomically(directory / name, lambda path, content=content: path.write_bytes(content))
