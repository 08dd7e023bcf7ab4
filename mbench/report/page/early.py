"""What is said of figures from some of the items: on the first screen, and in the details."""

from __future__ import annotations

from collections.abc import Iterator

from mbench.core.results import Results
from mbench.report.page.part import Part, Text
from mbench.report.statistics.boards import RunBoards
from mbench.report.tables.early import early_figures
from mbench.report.words import listing

WHOLE_ONLY = (
    "Pages of items, items won and lost, flips, divergence of choices, subtasks, every metric,"
    " every seed, methods crossed with texts and equal bytes are of whole evaluations alone: what"
    " is listed here is not in them."
)


def early_note(results: Results, model: str) -> str:
    """How much of a model's evaluations is early; empty where nothing is."""
    cells = [cell for cell in results.cells if cell.model == model]
    early = [figure for cell in cells for figure in cell.early.values()]
    if not early:
        return ""
    states = [cell.task_status(task).status for cell in cells for task in results.task_metrics]
    whole, every = states.count("ok"), len(states) - states.count("left out")
    share = 100 * sum(figure.items for figure in early) / sum(figure.of for figure in early)
    asked = listing(dict.fromkeys(_asked(results)))
    said = f"asked for {asked}; " if asked else ""
    are = "is" if whole == 1 else "are"
    return (
        f"Early verdict: {said}{whole} of {every} evaluations {are} whole, {len(early)} rest on"
        f" {share:.0f}\N{NO-BREAK SPACE}% of their items. These are told apart by intervals and not"
        " tested. The same command without --precision and --hours goes on from here."
    )


def _asked(results: Results) -> Iterator[str]:
    """What the runs' command lines asked for."""
    for run in results.provenance.runs:
        words = [part for word in run.command for part in word.split("=", 1)]
        for option, said in (("--precision", "±{}"), ("--hours", "{} hours")):
            if option in words[:-1]:
                yield said.format(words[words.index(option) + 1])


def early_part(run: RunBoards) -> Part | None:
    """Every early figure; None where there is none."""
    table = early_figures(run)
    if table is None:
        return None
    how = (
        "Estimated over all items: the outcomes of the items that were evaluated, and for the"
        " others what the outcomes of the unpruned model and of finished masks tell of them. The"
        " interval is of the difference to the unpruned model over all items, and holds however"
        " often it was looked at. In rankings intervals hold for all masks of a budget at once"
        " (Bonferroni), and for an average for all tasks at once: it lies between the means of the"
        " bounds. To differences the error over other items like these is added, and that of the"
        " masks of a mean over seeds; two methods are told apart where zero is outside all of it."
        " There are no p-values."
    )
    return Part("Early figures", (Text(how), Text(WHOLE_ONLY), table), id="early-figures")
