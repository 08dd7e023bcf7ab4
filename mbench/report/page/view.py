"""The view model: everything the page shows, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mbench.core.results import Results, long_form
from mbench.report import words
from mbench.report.charts.corpus_overlap import corpus_overlap_by_layer
from mbench.report.charts.mask_pictures import mask_pictures
from mbench.report.charts.score_by_memory import score_by_memory
from mbench.report.charts.single_seeds import single_seeds
from mbench.report.figures_of_papers import Published
from mbench.report.page import provenance
from mbench.report.page.layout import (
    folded,
    notes,
    per_budget,
    section,
    shown,
    side_by_side,
)
from mbench.report.page.notes import budget_notes, never_selected, union_of_choices
from mbench.report.page.part import Block, Charts, Notes, Part, Stack, Text
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.corpus_choices import corpus_choices
from mbench.report.statistics.floors import ROOM
from mbench.report.statistics.scores import Score
from mbench.report.statistics.single_seeds import places_of_single_seeds
from mbench.report.tables.calibration import calibration
from mbench.report.tables.corpus_overlap import corpus_overlap
from mbench.report.tables.every_metric import every_metric, other_metrics
from mbench.report.tables.every_seed import every_seed
from mbench.report.tables.failures import failures
from mbench.report.tables.leaderboard import leaderboard
from mbench.report.tables.mask_overlap import mask_overlap
from mbench.report.tables.published_figures import published_figures
from mbench.report.tables.savings import savings
from mbench.report.tables.weights import weights
from mbench.report.tables.what_was_measured import what_was_measured
from mbench.storage.results_folder import to_csv

BUDGET_PARTS = (
    leaderboard,
    notes(budget_notes),
    folded(
        "Every task and metric",
        every_metric,
        note="Shaded: the best figure of a column among ranked methods; none where a task is at "
        "floor. Nothing is tested here: the leaderboard shows which differences are significant.",
    ),
    folded("Every seed", every_seed),
    folded(
        "Which experts are kept",
        mask_pictures,
        mask_overlap,
        note="The overlap of a method that has several seeds with itself is the mean over pairs "
        "of different seeds; for random pruning this is the level of chance.",
    ),
)
"""The parts of one budget, in order."""


def model_parts(papers: Sequence[Published]) -> tuple[Callable[[GroupBoards], Block | None], ...]:
    """The parts of one model, in order."""
    return (
        per_budget(_budget),
        section(
            "How much a single seed can mislead",
            "seeds-section",
            side_by_side(single_seeds, notes(places_of_single_seeds)),
        ),
        section(
            "Do calibration texts agree?",
            "agreement",
            _calibration_texts,
            notes(never_selected),
            intro="Methods that differ only in their calibration text, compared by the experts "
            "they keep. The less they overlap, the more a pruned model depends on the text.",
        ),
        section("Published figures", "published", partial(_published, papers)),
        section("Cost", "cost", side_by_side(score_by_memory, weights, calibration)),
    )


def run_parts(
    run: RunBoards, papers: Sequence[Published], panels: Sequence[Part]
) -> tuple[Part, ...]:
    """The parts of the page between the verdict and the protocol, in order."""
    models = (
        Part(boards.heading, shown(boards, model_parts(papers)), id=boards.id)
        for boards in run.groups
    )
    parts = (*models, _savings(run), *panels, _failures(run), _what_was_measured(run))
    return tuple(part for part in parts if part is not None)


def _budget(board: Board) -> Part:
    return Part(board.heading, shown(board, BUDGET_PARTS), id=board.id, kind="budget")


def _calibration_texts(boards: GroupBoards) -> Stack | None:
    families = tuple(
        Part(
            choices.heading,
            (
                Notes(union_of_choices(choices)),
                corpus_overlap(choices),
                Part("Layer by layer", (Charts(corpus_overlap_by_layer(choices)),), folded=True),
            ),
        )
        for choices in corpus_choices(boards)
    )
    return Stack(families) if families else None


def _published(papers: Sequence[Published], boards: GroupBoards) -> Stack | None:
    blocks: list[Block] = []
    for number, paper in enumerate(papers, 1):
        table = published_figures(boards, paper, f"{boards.id}-published-{number}")
        if table is not None:
            blocks += [Text(paper.protocol), table]
    return Stack(tuple(blocks)) if blocks else None


def _savings(run: RunBoards) -> Part | None:
    blocks: list[Block] = []
    for tables in savings(run):
        text = (
            f"{tables.model} on {tables.device}, pruned physically and run by stock transformers, "
            "in turns with the full model. Size and speed depend on how many experts are kept, "
            "hardly on which: for each budget one mask was measured, its experts spread evenly. "
            "Checkpoint: the weights in the dtype they are stored in."
        )
        if tables.allocations:
            text += (
                " Peak memory: the weights in the suite's dtype, and the most that was allocated "
                f"beside them while one batch was generated ({tables.allocations})."
            )
        blocks += [Text(text, quiet=True), tables.budgets]
        if tables.scores:
            blocks.append(Part("Score against memory", (tables.scores,), folded=True))
    return Part("What pruning saves", tuple(blocks), id="savings") if blocks else None


def _failures(run: RunBoards) -> Part | None:
    table = failures(run)
    if table is None:
        return None
    text = Text("None of these enters an average or a ranking.")
    return Part("Failures", (text, table), id="failures")


def _what_was_measured(run: RunBoards) -> Part | None:
    table = what_was_measured(run)
    return None if table is None else Part("What was measured", (table,), id="measured")


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    suite: str
    description: str
    changes: tuple[str, ...]
    """Options of the command line, by run, that changed what the suite file says."""
    merged: bool
    """Whether it joins several runs."""
    routers: tuple[str, ...]
    progress: str
    protocol: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    command: str
    commit: str
    """Of mbench, if the runs' checkouts had no changes; else empty."""
    csv: str
    """Every figure in long form."""
    metrics: tuple[str, ...]
    """Metrics that some tasks have beside the declared one."""
    costs: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    score: Score | None
    room: float
    """How far above the floor a figure must be."""


def page(run: RunBoards, papers: Sequence[Published] = (), panels: Sequence[Part] = ()) -> Page:
    """Derive the page from the results, the figures of papers and the panels of plugins."""
    results = run.results
    metrics = (m for boards in run.groups for board in boards.boards for m in other_metrics(board))
    return Page(
        title=results.title or results.suite,
        suite=results.suite,
        description=results.description,
        changes=provenance.changes(results.provenance),
        merged=len(results.provenance.runs) > 1,
        routers=tuple(dict.fromkeys(boards.group.router for boards in run.groups)),
        progress=_progress(results),
        protocol=tuple((entry.name, entry.text) for entry in results.protocol),
        parts=run_parts(run, papers, panels),
        command=provenance.commands(results.provenance),
        commit=provenance.commit(results.provenance),
        csv=to_csv(long_form(results)),
        metrics=tuple(dict.fromkeys(metrics)),
        costs=provenance.run_costs(results.provenance),
        provenance=provenance.rows(results.provenance),
        score=run.score,
        room=ROOM,
    )


def _progress(results: Results) -> str:
    states = [
        cell.task_status(task).status for cell in results.cells for task in results.task_metrics
    ]
    counts = [(states.count(state), state) for state in dict.fromkeys(sorted(states))]
    done = states.count("ok")
    text = f"{done} of {len(states)} evaluations complete"
    others = [f"{count} {state}" for count, state in counts if state != "ok"]
    return f"{text}; {words.listing(others)}" if others else text
