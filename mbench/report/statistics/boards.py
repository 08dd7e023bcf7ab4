"""Who stands where at every budget: computed once, and told by the page, the tables for papers,
the terminal and the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mbench.core.results import CellKey, CellResult, Results
from mbench.report.statistics.floors import Floor, floors
from mbench.report.statistics.groups import (
    Group,
    Score,
    Setting,
    arrange,
    perplexity_score,
    primary_score,
)
from mbench.report.statistics.pairing import Paired, cells_of, pair, to_part
from mbench.report.statistics.ranking import LEVEL, Standing, leaders, standings, winner
from mbench.report.statistics.task_differences import TaskComparison, by_task
from mbench.report.statistics.verdict import Verdict, perplexity_verdict, verdict
from mbench.report.words import listing


@dataclass(frozen=True)
class Board:
    """One budget of one model."""

    setting: Setting
    standings: tuple[Standing, ...]
    """From best to worst, then those that cannot be ranked."""
    by_perplexity: tuple[Standing, ...]
    """The same by mean log perplexity; empty if that ranks already, or the suite has none."""
    tasks: Mapping[str, TaskComparison]
    uninformative: Mapping[str, Floor]
    """Tasks that tell nothing at this budget."""
    verdict: Verdict

    @property
    def leaders(self) -> tuple[str, ...]:
        """The best method and those that are not separated from it; empty if none is ranked."""
        return leaders(self.standings)

    @property
    def winner(self) -> str | None:
        """The one method that is separated from all others, of which there must be one."""
        return winner(self.standings)


@dataclass(frozen=True)
class GroupBoards:
    """One model under one router mode."""

    group: Group
    boards: tuple[Board, ...]
    incomparable: tuple[tuple[CellResult, str], ...]
    """Every cell that cannot be compared on one of the tasks, with the reason."""

    def standings(self, *, by_perplexity: bool = False) -> dict[float, tuple[Standing, ...]]:
        """Retain ratio -> standings."""
        return {
            board.setting.retain: board.by_perplexity if by_perplexity else board.standings
            for board in self.boards
        }


def boards(results: Results) -> tuple[GroupBoards, ...]:
    """All budgets of all models, ranked by the score that the suite declares."""
    return tuple(_of_group(results, group) for group in arrange(results))


def second_score(results: Results) -> Score | None:
    """Mean log perplexity, where a suite that has it ranks by something else."""
    score = perplexity_score(results)
    return None if score == primary_score(results) else score


def _of_group(results: Results, group: Group) -> GroupBoards:
    cells = cells_of(group)
    paired = {
        task: pair(cells, [to_part(task, metric)]) for task, metric in results.task_metrics.items()
    }
    strangers = tuple(
        (cell, one.problems[cell.key])
        for one in paired.values()
        for cell in cells.values()
        if cell.key in one.problems
    )
    return GroupBoards(group, tuple(_boards(results, group, paired)), strangers)


def _boards(
    results: Results, group: Group, paired: Mapping[str, Paired[CellKey]]
) -> Iterator[Board]:
    score, second = primary_score(results), second_score(results)
    found = standings(group, score) if score else {}
    by_perplexity = standings(group, second) if second else {}
    for setting in group.settings:
        unranked = tuple(Standing(entry, None) for entry in setting.entries)
        own = found.get(setting.retain, unranked)
        others = by_perplexity.get(setting.retain, ())
        uninformative = floors(group, setting, results.task_metrics)
        said = verdict(group, setting, score, own, uninformative)
        if second and (sentence := perplexity_verdict(group, second, others)):
            said = replace(said, findings=(*said.findings, sentence))
        tasks = by_task(setting, results.task_metrics, paired, uninformative, LEVEL)
        few = [task for task, one in tasks.items() if not one.enough]
        if few:
            text = (
                f"Too few items or blocks of windows to separate any two methods: {listing(few)}."
            )
            said = replace(said, caveats=(*said.caveats, text))
        yield Board(
            setting=setting,
            standings=own,
            by_perplexity=others,
            tasks=tasks,
            uninformative=uninformative,
            verdict=said,
        )


def to_json(results: Results, found: Sequence[GroupBoards]) -> dict[str, Any]:
    """What an index needs to know of a run without reading its outcomes."""
    score = primary_score(results)
    statuses = [c.task_status(task).status for c in results.cells for task in results.task_metrics]
    return {
        "suite": results.suite,
        "title": results.title,
        "score": score.name if score else "",
        "evaluations": {status: statuses.count(status) for status in sorted(set(statuses))},
        "budgets": [
            {
                "model": one.group.model,
                "router": one.group.router,
                "retain": board.setting.retain,
                "leaders": list(board.leaders),
                "verdict": list(board.verdict.sentences),
            }
            for one in found
            for board in one.boards
        ],
        "models": list(dict.fromkeys(one.group.model for one in found)),
    }
