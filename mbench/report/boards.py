"""Who stands where at every budget, for all places that say it outside the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mbench.evaluate.outcome import LOWER_IS_BETTER
from mbench.report.arrange import Group, Score, Setting, arrange, primary_score
from mbench.report.floors import floors
from mbench.report.ranking import Standing, leaders, standings, winner
from mbench.report.verdict import Verdict, verdict
from mbench.results import Results


@dataclass(frozen=True)
class Board:
    """One budget of one model."""

    setting: Setting
    standings: tuple[Standing, ...]
    """From best to worst, then those that cannot be ranked."""
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


def boards(results: Results, score: Score | None = None) -> tuple[GroupBoards, ...]:
    """All budgets, by `score` or by the one that the page ranks by."""
    score = score or primary_score(results)
    return tuple(GroupBoards(group, _boards(results, group, score)) for group in arrange(results))


def _boards(results: Results, group: Group, score: Score | None) -> tuple[Board, ...]:
    found = standings(group, score) if score else {}
    ranked: list[Board] = []
    for setting in group.settings:
        own = found.get(setting.retain, tuple(Standing(entry, None) for entry in setting.entries))
        uninformative = floors(group, setting, results.task_metrics)
        ranked.append(Board(setting, own, verdict(group, setting, score, own, uninformative)))
    return tuple(ranked)


def task_score(task: str, metric: str) -> Score:
    """One task's declared metric as a score of its own; of a perplexity, its logarithm."""
    if metric in LOWER_IS_BETTER:
        return Score(f"{task}, log perplexity", ((task, "mean_nll"),), higher=False)
    return Score(task, ((task, metric),), higher=True)


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
