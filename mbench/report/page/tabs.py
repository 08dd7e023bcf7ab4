"""The tabs of the page beside the results, and the parts in each, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mbench.report.charts.corpus_overlap import corpus_overlap_by_layer
from mbench.report.charts.score_by_memory import score_by_memory
from mbench.report.charts.single_seeds import single_seeds
from mbench.report.figures_of_papers import Published
from mbench.report.page.answer_shapes import answers_part
from mbench.report.page.crossing import method_or_text
from mbench.report.page.early import early_part
from mbench.report.page.equal_bytes import equal_bytes_parts
from mbench.report.page.layout import folded, notes, per_budget, section, shown, side_by_side
from mbench.report.page.notes import budget_notes, never_selected, union_of_choices
from mbench.report.page.part import Block, Charts, Notes, Part, Stack, Text
from mbench.report.page.score_maps import score_maps
from mbench.report.page.subtasks import subtask_parts
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.corpus_choices import corpus_choices
from mbench.report.statistics.floors import GUESSING
from mbench.report.statistics.single_seeds import places_of_single_seeds
from mbench.report.tables.calibration import calibration
from mbench.report.tables.corpus_overlap import corpus_overlap
from mbench.report.tables.every_metric import every_metric
from mbench.report.tables.every_seed import every_seed
from mbench.report.tables.failures import failures
from mbench.report.tables.mask_facts import mask_facts_table
from mbench.report.tables.mask_overlap import mask_overlap
from mbench.report.tables.published_checkpoints import published_checkpoints
from mbench.report.tables.published_figures import published_figures
from mbench.report.tables.savings import savings
from mbench.report.tables.weights import weights
from mbench.report.tables.what_was_measured import what_was_measured


@dataclass(frozen=True)
class Tab:
    """What is shown alone under its title."""

    title: str
    id: str
    parts: tuple[Part, ...] = ()


def tabs(run: RunBoards, papers: Sequence[Published], panels: Sequence[Part]) -> tuple[Tab, ...]:
    """The results first; a tab without parts is left out."""
    maps = (*filter(None, (_score_maps(run),)), *_by_model(run, EXPERTS, "experts"))
    details = (
        *panels,
        *filter(
            None,
            (
                _published_checkpoints(run),
                _savings(run),
                early_part(run),
                _failures(run),
                _what_was_measured(run),
            ),
        ),
        *_by_model(run, (*DETAILS, _papers(papers)), "more"),
    )
    found = [Tab("Results", "results")]
    if run.equal_bytes:
        found.append(Tab("Equal bytes", "equal-bytes", equal_bytes_parts(run)))
    if maps:
        found.append(Tab("Score maps", "maps", maps))
    return (*found, Tab("Details", "details", details))


def _by_model(
    run: RunBoards, parts: Sequence[Callable[[GroupBoards], Block | None]], name: str
) -> tuple[Part, ...]:
    """A part for each model that has something to show."""
    found = ((boards, shown(boards, parts)) for boards in run.groups)
    return tuple(
        Part(boards.heading, blocks, id=f"{boards.id}-{name}") for boards, blocks in found if blocks
    )


def _of_budget(
    name: str, *parts: Callable[[Board], Block | None]
) -> Callable[[GroupBoards], Stack | None]:
    """Parts of every budget of a model under its heading."""

    def show(board: Board) -> Part | None:
        blocks = shown(board, parts)
        return Part(board.heading, blocks, id=f"{board.id}-{name}") if blocks else None

    return per_budget(show)


def _score_maps(run: RunBoards) -> Part | None:
    maps = score_maps(run)
    return None if maps is None else Part("Score maps", (maps,), id="score-maps-section")


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


def _published_checkpoints(run: RunBoards) -> Part | None:
    table = published_checkpoints(run)
    if table is None:
        return None
    text = Text(
        "Where a checkpoint is the model with some of its experts and nothing else changed, the"
        " mask on the full model was evaluated in its place. Any other one was loaded and evaluated"
        " itself, so that its figures are those of the files named here."
    )
    return Part("Published checkpoints", (text, table), id="published-checkpoints")


def _failures(run: RunBoards) -> Part | None:
    table = failures(run)
    if table is None:
        return None
    text = Text("None of these enters an average or a ranking.")
    return Part("Failures", (text, table), id="failures")


def _what_was_measured(run: RunBoards) -> Part | None:
    table = what_was_measured(run)
    return None if table is None else Part("What was measured", (table,), id="measured")


def _papers(papers: Sequence[Published]) -> Callable[[GroupBoards], Part | None]:
    return section("Published figures", "published", partial(_published, papers))


EXPERTS = (
    _of_budget("masks", mask_overlap),
    section(
        "Do calibration texts agree?",
        "agreement",
        _calibration_texts,
        notes(never_selected),
        intro="Methods that differ only in their calibration text, compared by the experts "
        "they keep. The less they overlap, the more a pruned model depends on the text.",
    ),
)
"""What is said of the experts that a model keeps."""

DETAILS = (
    _of_budget(
        "details",
        notes(budget_notes),
        folded("Masks: layers, stability, cost", mask_facts_table),
        folded(
            "Every task and metric",
            every_metric,
            note="Shaded: the best figure of a column among ranked methods; none where a task is "
            f"{GUESSING}. Nothing is tested here: the leaderboard shows which differences are"
            " clear.",
        ),
        answers_part,
        folded("Every seed", every_seed),
        subtask_parts,
    ),
    section(
        "Does the method matter more, or the calibration text?",
        "crossing",
        method_or_text,
        intro="Methods that were run on the same calibration texts, and differ in nothing else from"
        " text to text. What is said holds for these methods and these texts.",
    ),
    section(
        "How much a single seed can mislead",
        "seeds-section",
        side_by_side(single_seeds, notes(places_of_single_seeds)),
    ),
    section("Cost", "cost", side_by_side(score_by_memory, weights, calibration)),
)
"""What else is said of a model."""
