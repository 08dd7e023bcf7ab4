"""What the API's calls return: results and plans with tables, and how a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.cell_results import LACKS, UNPRUNED
from mbench.core.results import Results, long_form
from mbench.report.statistics.answers import answers
from mbench.report.statistics.boards import Board, RunBoards, boards
from mbench.report.statistics.groups import RANDOM
from mbench.report.statistics.ranking import Ranked, Reference

if TYPE_CHECKING:
    import pandas as pd

    from mbench.api.request import Request
    from mbench.api.running import Finished
    from mbench.run.score_stage import Scored

RANKED = {
    "model": "str",
    "retain": "float64",
    "experts_kept": "int64",
    "method": "str",
    "rank": "Int64",
    "last_rank": "Int64",
    "tied": "boolean",
    "score": "str",
    "value": "float64",
    "seed_sd": "float64",
    "vs_random": "float64",
    "vs_random_low": "float64",
    "vs_random_high": "float64",
    "vs_unpruned": "float64",
    "vs_unpruned_low": "float64",
    "vs_unpruned_high": "float64",
    "early": "boolean",
}
"""The columns of the ranked table, in order."""


def ranked(results: Results) -> pd.DataFrame:
    """The leaderboard: one row per model, budget and method, from best to worst.

    Columns: `model`, `retain`, `experts_kept` (per layer), `method` (several with `=` between them
    have the same masks), `rank` and `last_rank` (the best and the worst rank it may have; NA for
    random pruning), `tied` (with the best), `score` (its name), `value` (over seeds), `seed_sd`
    (NaN for one mask), the differences from random pruning and from the unpruned model with
    intervals that hold for the whole family at once, NaN where nothing is compared, and `early`
    (whether some of its items were not evaluated: then the intervals are of the difference over
    all of them, without a test).
    """
    return _ranked(boards(results))


def _ranked(run: RunBoards) -> pd.DataFrame:
    import pandas as pd

    from mbench.api.ranked_table import RankedTable

    rows = [row for group in run.groups for board in group.boards for row in _rows(board)]
    return RankedTable(pd.DataFrame(rows, columns=list(RANKED)).astype(RANKED))


def _rows(board: Board) -> Iterator[dict[str, Any]]:
    ranking = board.ranking
    for row in ranking.placed if ranking is not None else ():
        placed = isinstance(row, Ranked)
        label = row.label if isinstance(row, Ranked) else row.entry.method
        yield {
            "model": board.group.model,
            "retain": board.retain,
            "experts_kept": board.budget.kept,
            "method": label,
            "rank": row.rank if isinstance(row, Ranked) else None,
            "last_rank": row.last_rank if isinstance(row, Ranked) else None,
            "tied": row.tied if placed and isinstance(row, Ranked) else None,
            "score": ranking.score.name if ranking is not None else "",
            "value": row.summary.mean,
            "seed_sd": row.summary.std if row.summary.count > 1 else None,
            "early": row.early is not None,
            **_difference(board, label, row, RANDOM, "vs_random"),
            **_difference(board, label, row, UNPRUNED, "vs_unpruned"),
        }


def _difference(
    board: Board, label: str, row: Ranked | Reference, reference: str, name: str
) -> dict[str, float]:
    if board.ranking is None or label == reference:
        return {}
    comparison = board.ranking.compare(label, reference)
    if comparison is None:
        return {}
    if comparison.problem:
        return {name: comparison.value}
    return {
        name: comparison.value,
        f"{name}_low": comparison.low,
        f"{name}_high": comparison.high,
    }


@dataclass(frozen=True)
class RunResults(Results):
    """The results of a run, with the report that was written of them."""

    page: Path = Path()
    """The report's page."""
    boards: RunBoards | None = field(default=None, repr=False, compare=False)
    """Its rankings, computed once."""

    def ranked(self) -> pd.DataFrame:
        """The leaderboard (see `mbench.ranked`)."""
        return _ranked(self.boards or boards(self))

    def long_form(self) -> pd.DataFrame:
        """Every figure, one a row (see `mbench.long_form`)."""
        return long_form(self)

    @property
    def problems(self) -> dict[str, str]:
        """What has no result -> why: cells, and cells on tasks."""
        found = {}
        for cell in self.cells:
            if cell.status != "ok":
                found[cell.label] = cell.reason
                continue
            for task in self.task_metrics:
                status = cell.task_status(task)
                if status.status in LACKS:
                    found[f"{cell.label} on {task}"] = status.reason
        return found

    def _repr_html_(self) -> str:
        """The answers of each budget, what failed, and where the report lies."""
        run = self.boards or boards(self)
        heads = ("Model", "Pruned", "Which is best?", "Did pruning hurt?", "Better than random?")
        table = _table(heads, (row for group in run.groups for row in map(_answers, group.boards)))
        failed = [f"{what}: {why}" for what, why in self.problems.items()]
        place = self.page.resolve()
        return "".join(
            (
                f"<p><b>{escape(self.title)}</b></p>",
                table,
                _table(("Without a result",), ((line,) for line in failed)) if failed else "",
                f'<p>Report: <a href="{escape(place.as_uri())}">{escape(str(self.page))}</a></p>',
            )
        )


def finished_run(finished: Finished) -> RunResults:
    """The results of a run that has ended."""
    results, published = finished.results, finished.published
    values = {each.name: getattr(results, each.name) for each in fields(Results)}
    return RunResults(**values, page=published.page, boards=published.boards)


def _answers(board: Board) -> tuple[str, ...]:
    where = (board.group.model, f"{board.pruned} ({board.kept})")
    if board.ranking is None:
        return (*where, "nothing to rank by", "", "")
    cells = []
    for answer in answers(board.ranking):
        head = f"{answer.name}, {answer.chip}" if answer.name else answer.chip
        parts = (head, answer.figures_text, answer.interval_text, answer.why, answer.note)
        cells.append("\n".join(part for part in parts if part))
    return (*where, *cells)


@dataclass(frozen=True)
class PlannedRun:
    """What a run would do."""

    suite: str
    costs: pd.DataFrame = field(repr=False)
    """A row per model: masks, passes to do and stored, tokens, seconds, bytes of weights."""
    cells: pd.DataFrame = field(repr=False)
    """A row per model, budget, method and seed: experts kept per layer, whether its mask is stored,
    notes, and the problem of a method that cannot be used."""
    detectable: pd.DataFrame = field(repr=False)
    """Per task, the least difference that each family of comparisons tells apart."""
    settings: Mapping[str, str] = field(repr=False)
    """The protocol and every method in words."""

    def _repr_html_(self) -> str:
        """Its costs, and the cells that cannot be made."""
        broken = self.cells[self.cells["problem"] != ""]
        parts = [f"<p><b>{escape(self.suite)}</b></p>", self.costs.to_html(index=False)]
        if len(broken):
            parts.append(broken[["model", "method", "retain", "problem"]].to_html(index=False))
        return "".join(parts)


def planned_run(asked: Request) -> PlannedRun:
    """The tables of a plan; raises `AdmissionError` for what a run would refuse, as far as nothing
    need be fetched to know it."""
    import pandas as pd

    from mbench.plan.admission.admit import admit_what_is_here, refuse
    from mbench.plan.cost import estimate
    from mbench.plan.detectable import detectable
    from mbench.plan.in_words import methods_in_words, protocol_in_words

    plan, store = asked.plan, asked.store
    refuse(admit_what_is_here(plan, store), asked.source)
    costs = pd.DataFrame(
        {
            "model": cost.model,
            "masks": cost.masks,
            "passes_to_do": cost.evaluations_left,
            "passes_stored": cost.evaluations_cached,
            "profiles_to_do": cost.profiles,
            "tokens": None if cost.unknown_tasks else cost.evaluation_tokens + cost.profile_tokens,
            "seconds": None if cost.unknown_tasks or not cost.speed_known else cost.seconds,
            "weight_bytes": cost.weight_bytes,
        }
        for cost in estimate(plan, store).models
    )
    cells = pd.DataFrame(
        {
            "model": cell.model,
            "method": cell.method.name,
            "seed": cell.seed,
            "retain": cell.budget.retain,
            "experts_kept": cell.budget.kept,
            "stored": cell.mask_key is not None and store.read_json(cell.mask_key) is not None,
            "notes": "; ".join(cell.notes),
            "problem": cell.problem,
        }
        for cell in plan.cells
        if cell.method.evaluated
    )
    differences = pd.DataFrame(
        {
            "model": row.model,
            "task": row.name,
            "items": row.units,
            **{f"least_{family}": least for family, least in row.least.items()},
        }
        for row in detectable(plan, store)
    )
    in_words = (*protocol_in_words(plan.suite, plan.corpora), *methods_in_words(plan))
    words = {entry.name: entry.text for entry in in_words}
    return PlannedRun(plan.suite.name, costs, cells, differences, words)


def scores_frame(found: Scored) -> pd.DataFrame:
    """Every score, one a row."""
    import pandas as pd

    dtypes = {"model": "str", "seed": "Int64", "corpus": "str", "layer": "int64", "expert": "int64"}
    rows = [
        (each.model, each.seed, each.corpus, layer, expert, value)
        for each in found.scores
        for (layer, expert), value in np.ndenumerate(each.values)
    ]
    return pd.DataFrame(rows, columns=[*dtypes, "score"]).astype(dtypes)


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A table of texts, whose lines stay lines."""

    def row(cells: tuple[str, ...], tag: str) -> str:
        shown = (escape(cell).replace("\n", "<br>") for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(heads, 'th')}</thead><tbody>{body}</tbody></table>"
