"""The view model: everything the page shows, as text and numbers in the order of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mbench import stats
from mbench.report import charts, words
from mbench.report.arrange import (
    Group,
    Score,
    Setting,
    arrange,
    average_score,
    perplexity_score,
    primary_score,
)
from mbench.report.experts import coinciding, entry_masks
from mbench.report.floors import ROOM, floors
from mbench.report.keeps import Keeps, keeps
from mbench.report.leaderboard import failures, leaderboard, seeds
from mbench.report.pairing import incomparable
from mbench.report.ranking import Standing, standings
from mbench.report.tables import Table
from mbench.report.task_table import task_table
from mbench.report.verdict import ALWAYS_UNKNOWN, Verdict, perplexity_verdict, verdict
from mbench.results import Results


@dataclass(frozen=True)
class BudgetView:
    """One budget of one model."""

    id: str
    heading: str
    verdict: Verdict
    leaderboard: Table
    tasks: Table | None
    notes: tuple[str, ...]
    seeds: Table | None
    keeps: Keeps | None


@dataclass(frozen=True)
class GroupView:
    """One model under one router mode."""

    id: str
    heading: str
    charts: tuple[charts.Chart, ...]
    budgets: tuple[BudgetView, ...]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    suite: str
    description: str
    routers: tuple[str, ...]
    progress: str
    protocol: tuple[tuple[str, str], ...]
    groups: tuple[GroupView, ...]
    failures: Table | None
    command: str
    provenance: tuple[tuple[str, str], ...]
    score: Score | None
    average: Score | None
    resamples: int
    """Of the paired bootstrap."""
    room: float
    """By how much a figure must clear the floor."""
    always_unknown: str
    """What no result here can say."""


def page(results: Results) -> Page:
    """Derive the page from the results; nothing else enters it."""
    groups = arrange(results)
    command = results.provenance.get("command", "")
    rest = {key: value for key, value in results.provenance.items() if key != "command"}
    return Page(
        title=results.title or results.suite,
        suite=results.suite,
        description=results.description,
        routers=tuple(dict.fromkeys(group.router for group in groups)),
        progress=_progress(results),
        protocol=results.protocol,
        groups=tuple(_group(results, group, number) for number, group in enumerate(groups, 1)),
        failures=failures(
            results, (one for group in groups for one in incomparable(group, results.task_metrics))
        ),
        command=command if isinstance(command, str) else " ".join(map(str, command)),
        provenance=tuple(flatten(rest)),
        score=primary_score(results),
        average=average_score(results),
        resamples=stats.RESAMPLES,
        room=ROOM,
        always_unknown=ALWAYS_UNKNOWN,
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


def _group(results: Results, group: Group, number: int) -> GroupView:
    score = primary_score(results)
    second = perplexity_score(results)
    found = standings(group, score) if score else {}
    drawn = [(score, found)] if score else []
    if score and second and second != score:
        drawn.append((second, standings(group, second)))
    return GroupView(
        id=f"model-{number}",
        heading=f"{group.model}, router {group.router}",
        charts=tuple(
            charts.chart(group, one, ranked, f"chart-{number}-{index}")
            for index, (one, ranked) in enumerate(drawn, 1)
            if group.settings
        ),
        budgets=tuple(
            _budget(results, group, setting, drawn, f"model-{number}-budget-{index}")
            for index, setting in enumerate(group.settings, 1)
        ),
    )


def _budget(
    results: Results,
    group: Group,
    setting: Setting,
    drawn: list[tuple[Score, dict[float, tuple[Standing, ...]]]],
    id: str,
) -> BudgetView:
    score, found = drawn[0] if drawn else (None, {})
    unranked = tuple(Standing(entry, None) for entry in setting.entries)
    ranked = found.get(setting.retain, unranked)
    uninformative = floors(group, setting, results.task_metrics)
    said = verdict(group, setting, score, ranked, uninformative)
    for other, all_ranked in drawn[1:]:
        sentence = perplexity_verdict(group, other, all_ranked[setting.retain])
        said = replace(said, findings=(*said.findings, *([sentence] if sentence else [])))
    heading = f"{words.percent(setting.retain)} of experts kept ({_kept(results, group, setting)})"
    where = f"{group.model}, {heading}, router {group.router}"
    return BudgetView(
        id=id,
        heading=heading,
        verdict=said,
        leaderboard=leaderboard(results, group, score, ranked, uninformative, f"{id}-table", where),
        tasks=task_table(results, ranked, uninformative, f"{id}-tasks", where),
        notes=tuple(_notes(setting)),
        seeds=seeds(results, setting, score, f"{id}-seeds", where),
        keeps=keeps(results, group, ranked, f"{id}-overlap", where),
    )


def _kept(results: Results, group: Group, setting: Setting) -> str:
    masks = [mask for entry in setting.entries for mask in entry_masks(entry, group, results.masks)]
    total = f" of {masks[0].shape[1]}" if masks else ""
    return f"{setting.kept}{total} per layer"


def _notes(setting: Setting) -> Iterator[str]:
    for entry in setting.entries:
        for note in dict.fromkeys(note for cell in entry.cells for note in cell.notes):
            yield f"{entry.method}: {note}"
    for names in coinciding(setting):
        verb = "both keep" if len(names) == 2 else "all keep"
        yield (
            f"{words.listing(names)} {verb} exactly the same experts: this mask was evaluated "
            "once, so their figures are one measurement."
        )


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested provenance as (path, text) rows."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from flatten(entry, f"{path} › {key}" if path else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(e, Mapping) for e in value):
        for index, entry in enumerate(value, 1):
            yield from flatten(entry, f"{path} › {index}")
    elif isinstance(value, (list, tuple)):
        yield path, ", ".join(map(str, value))
    elif isinstance(value, float) and math.isfinite(value):
        yield path, f"{value:.6g}"
    else:
        yield path, "" if value is None else str(value)
