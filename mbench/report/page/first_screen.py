"""The first screen: by budget the answers to three questions, beside all methods on one axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles

from mbench.core.cell_results import UNPRUNED
from mbench.report.page.axis import Axis, axis
from mbench.report.page.early import early_at, early_note, items_in_words
from mbench.report.statistics.answers import MASKS_FOR_FIVE_PERCENT, Answer, answers
from mbench.report.statistics.boards import Board, GroupBoards
from mbench.report.statistics.families import Comparison
from mbench.report.statistics.groups import RANDOM
from mbench.report.statistics.ranking import Ranked, Ranking
from mbench.report.statistics.scores import Score
from mbench.report.stored_forms import stored_in_words
from mbench.report.words import bounds, difference, listing, score_text

MOST_ROWS = 12
"""Methods that are drawn at a budget; the leaderboard has all."""


@dataclass(frozen=True)
class Mark:
    """One method on the axis; places are per cent of its width."""

    label: str
    at: float
    low: float | None
    """The whisker's ends: the interval of the difference to the dashed line; None without one."""
    high: float | None
    kind: str
    """`tied` for best, `rest`, or `untold` where there is nothing to test."""
    beyond: str
    """The figure, where it lies outside the axis; else empty."""
    text: str
    """All of it in words."""
    early: bool
    """Whether it, or what its whisker is the difference to, lacks some of its items."""


@dataclass(frozen=True)
class Line:
    """The dashed line and the band around it."""

    at: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One budget."""

    board: Board
    answers: tuple[Answer, ...]
    marks: tuple[Mark, ...]
    random: Line | None
    more: int
    """Methods that are not drawn."""
    early: str
    """How many methods are early, and how well they are told apart; empty where none is."""


@dataclass(frozen=True)
class Screen:
    """One model."""

    boards: GroupBoards
    score: Score
    axis: Axis
    unpruned: float | None
    """Where its line stands."""
    unpruned_text: str
    panels: tuple[Panel, ...]
    """From few to many pruned experts."""
    whiskers: str
    """What the whiskers are, in a sentence."""
    stored: str
    """In which form the weights are stored and what they are computed in; empty for plain numbers.
    """
    gaps: str
    """Which methods have no cell at some budget; empty where all have."""
    lacking: bool
    """Whether methods have no figures, so that others are best among the rest only."""
    few_masks: str
    """What so few random masks cannot show; empty if they are enough."""
    warnings: tuple[str, ...]
    """What the score hides."""
    early: str
    """How much of it rests on some of the items; empty where nothing does."""


def first_screen(boards: GroupBoards) -> Screen | None:
    """The screen of a model; None where nothing was pruned or there is nothing to rank by."""
    ranked = [(board, board.ranking) for board in boards.boards if board.ranking]
    scores = [row.summary.mean for _, ranking in ranked for row in ranking.placed]
    references = {board.id: _reference(ranking) for board, ranking in ranked}
    whiskers = [
        _whisker(ranking, row, references[board.id])
        for board, ranking in ranked
        for row in ranking.ranked
    ]
    full = next((r.unpruned.summary.mean for _, r in ranked if r.unpruned), None)
    on = axis([*scores, *([full] if full is not None else [])], whiskers)
    if on is None or boards.score is None:
        return None
    return Screen(
        boards,
        boards.score,
        on,
        None if full is None else on.at(full),
        "" if full is None else score_text(full),
        tuple(_panel(board, ranking, on, references[board.id]) for board, ranking in ranked),
        _whisker_words(
            set(references.values()),
            early=any(row.early is not None for _, r in ranked for row in r.placed),
        ),
        stored_in_words(boards.results, boards.group.model),
        _gaps(boards),
        any(ranking.lacking for _, ranking in ranked),
        _few_masks([ranking for _, ranking in ranked]),
        boards.answer_warnings,
        early_note(boards.results, boards.group.model),
    )


def _gaps(boards: GroupBoards) -> str:
    found: dict[str, list[str]] = {}
    for board in boards.boards:
        for gap in board.gaps:
            found.setdefault(gap.method, []).append(board.pruned)
    if not found:
        return ""
    named = (f"{method} at {listing(budgets)}" for method, budgets in found.items())
    return f"No cell (the leaderboard says why): {'; '.join(named)}."


def _reference(ranking: Ranking) -> str:
    """What the whiskers of a budget are the difference to."""
    if ranking.random is not None and "random" not in ranking.untested:
        return RANDOM
    return UNPRUNED if "unpruned" not in ranking.untested else ""


def _whisker_words(references: set[str], *, early: bool) -> str:
    names = {RANDOM: "the dashed line", UNPRUNED: "the unpruned model"}
    compared = [names[name] for name in (RANDOM, UNPRUNED) if name in references]
    if not compared:
        return ""
    return (
        f"Whiskers: 95 % interval of the difference to {' or '.join(compared)}, all methods of a"
        " budget at once." + " Broken: early; all items may change a verdict either way." * early
    )


def _few_masks(rankings: Sequence[Ranking]) -> str:
    counts = {len(ranking.random.figures) for ranking in rankings if ranking.random}
    fewest = min(counts, default=MASKS_FOR_FIVE_PERCENT)
    if fewest >= MASKS_FOR_FIVE_PERCENT:
        return ""
    return (
        "Better than random compares with the mean of the random masks. Whether a method is better"
        f" than each of them is another question, for which {fewest} masks are few: one that is no"
        f" better than they are beats all with probability 1/{fewest + 1}"
        f" ({MASKS_FOR_FIVE_PERCENT} masks: 5 %)."
    )


def _whisker(ranking: Ranking, row: Ranked, reference: str) -> tuple[float, ...]:
    """The interval of the difference to the reference, drawn at the score."""
    compared = ranking.compare(row.label, reference) if reference else None
    if compared is None or compared.problem:
        return ()
    level = row.summary.mean - compared.value
    return level + compared.low, level + compared.high


def _panel(board: Board, ranking: Ranking, on: Axis, reference: str) -> Panel:
    drawn = ranking.ranked[:MOST_ROWS]
    return Panel(
        board,
        answers(ranking),
        tuple(_mark(ranking, row, on, reference) for row in drawn),
        _line(ranking, on),
        sum(len(row.names) for row in ranking.ranked[MOST_ROWS:]),
        early_at(ranking),
    )


def _mark(ranking: Ranking, row: Ranked, on: Axis, reference: str) -> Mark:
    value, whisker = row.summary.mean, _whisker(ranking, row, reference)
    low, high = map(on.at, whisker) if whisker else (None, None)
    compared = ranking.compare(row.label, reference) if reference else None
    said = (f"{row.label}: {score_text(value)}", *_told(ranking, row, reference))
    return Mark(
        row.label,
        on.at(value),
        low,
        high,
        "untold" if not ranking.compared else "tied" if row.tied else "rest",
        score_text(value) if on.beyond(value) else "",
        ", ".join(filter(None, said)),
        row.early is not None or (compared is not None and compared.early),
    )


def _told(ranking: Ranking, row: Ranked, reference: str) -> Iterator[str]:
    """Against the reference, and from how many items."""
    compared: Comparison | None = ranking.compare(row.label, reference) if reference else None
    if compared is not None:
        name = "random" if reference == RANDOM else "unpruned"
        yield f"{difference(compared.value)} {bounds(compared.low, compared.high)} against {name}"
    tasks = [task for task, _ in ranking.score.parts]
    yield items_in_words(c.early[t] for c in row.entry.cells for t in tasks if t in c.early)


def _line(ranking: Ranking, on: Axis) -> Line | None:
    """The mean of random pruning and the range of its masks; their middle 90 % from 19 masks on."""
    if ranking.random is None:
        return None
    figures, mean = ranking.random.figures, ranking.random.summary.mean
    low, high, what = min(figures), max(figures), ""
    if len(figures) >= MASKS_FOR_FIVE_PERCENT:
        cut = quantiles(figures, n=20, method="inclusive")
        low, high, what = cut[0], cut[-1], ", band: middle 90 %"
    plural = "s" if len(figures) > 1 else ""
    text = f"{len(figures)} random mask{plural}, mean {score_text(mean)}{what}"
    return Line(on.at(mean), on.at(low), on.at(high), text)
