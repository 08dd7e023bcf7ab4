"""The view model: everything the page shows, as text and numbers in the order of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mbench.core.results import Results, long_form
from mbench.report import words
from mbench.report.charts import agreement
from mbench.report.charts import style as charts
from mbench.report.charts.budgets import budget_chart
from mbench.report.charts.forest import forest
from mbench.report.charts.memory import memory_chart
from mbench.report.charts.seeds import alone, seed_chart
from mbench.report.page import provenance
from mbench.report.statistics.boards import Board, GroupBoards, boards, second_score
from mbench.report.statistics.floors import ROOM
from mbench.report.statistics.groups import (
    Group,
    Score,
    Setting,
    average_score,
    primary_score,
)
from mbench.report.statistics.ranking import Standing
from mbench.report.statistics.resampling import MANY_ITEMS, MANY_LOSSES, RESAMPLES
from mbench.report.statistics.verdict import ALWAYS_UNKNOWN, Verdict
from mbench.report.tables import costs
from mbench.report.tables.experts import Keeps, coinciding, entry_masks, keeps
from mbench.report.tables.leaderboard import failures, leaderboard, seeds
from mbench.report.tables.metrics import metric_table
from mbench.report.tables.per_task import task_table
from mbench.report.tables.published import Published, comparisons
from mbench.report.tables.savings import Savings, savings
from mbench.report.tables.table import Table


@dataclass(frozen=True)
class BudgetView:
    """One budget of one model."""

    id: str
    heading: str
    verdict: Verdict
    leaderboard: Table
    tasks: Table | None
    notes: tuple[str, ...]
    metrics: Table
    seeds: Table | None
    keeps: Keeps | None


@dataclass(frozen=True)
class GroupView:
    """One model under one router mode."""

    id: str
    heading: str
    charts: tuple[charts.Chart, ...]
    forests: tuple[charts.Chart, ...]
    budgets: tuple[BudgetView, ...]
    seeds: charts.Chart | None
    seed_sentences: tuple[str, ...]
    agreements: tuple[agreement.Agreement, ...]
    never_selected: tuple[str, ...]
    published: tuple[tuple[str, Table], ...]
    """(how the protocols differ, figures beside ours) of each paper."""
    costs: tuple[Table, ...]
    memory: charts.Chart | None
    """The score against memory, across the budgets."""


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
    groups: tuple[GroupView, ...]
    savings: tuple[Savings, ...]
    failures: Table | None
    command: str
    commit: str
    """Of mbench, where the runs' checkout had no changes; else empty."""
    csv: str
    """Every figure in long form."""
    metrics: tuple[str, ...]
    """Metrics that some tasks have beside the declared one."""
    costs: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    score: Score | None
    average: Score | None
    resamples: int
    """Of the paired bootstrap."""
    many_items: int
    many_losses: int
    """From how many a null distribution is known without draws."""
    room: float
    """By how much a figure must clear the floor."""
    always_unknown: str
    """What no result here can say."""


def page(
    results: Results,
    published: Sequence[Published] = (),
    found: Sequence[GroupBoards] | None = None,
) -> Page:
    """Derive the page from the results and what papers state; nothing else enters it.

    `found` is what `boards` finds in the results, where that is known already.
    """
    found = boards(results) if found is None else found
    groups = [each.group for each in found]
    views = tuple(_group(results, each, published, number) for number, each in enumerate(found, 1))
    columns = [c for v in views for b in v.budgets for c in b.metrics.columns if not c.declared]
    return Page(
        title=results.title or results.suite,
        suite=results.suite,
        description=results.description,
        changes=provenance.changes(results.provenance),
        merged=len(results.provenance.runs) > 1,
        routers=tuple(dict.fromkeys(group.router for group in groups)),
        progress=_progress(results),
        protocol=tuple((entry.name, entry.text) for entry in results.protocol),
        groups=views,
        savings=savings(results),
        failures=failures(results, (one for each in found for one in each.incomparable)),
        command=provenance.commands(results.provenance),
        commit=provenance.commit(results.provenance),
        csv=long_form(results).to_csv(index=False),
        metrics=tuple(dict.fromkeys(column.metric for column in columns if column.metric)),
        costs=costs.run_costs(results.provenance),
        provenance=provenance.rows(results.provenance),
        score=primary_score(results),
        average=average_score(results),
        resamples=RESAMPLES,
        many_items=MANY_ITEMS,
        many_losses=MANY_LOSSES,
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


def _group(
    results: Results, own: GroupBoards, published: Sequence[Published], number: int
) -> GroupView:
    group, score, second = own.group, primary_score(results), second_score(results)
    found = own.standings()
    drawn = [(score, found)] if score else []
    if second:
        drawn.append((second, own.standings(by_perplexity=True)))
    id = f"model-{number}"
    methods = results.provenance.methods.get(group.model, {})
    tables = (
        costs.weights(group, results.provenance, f"{id}-weights"),
        costs.calibration(group, results.provenance, f"{id}-calibration"),
    )
    return GroupView(
        id=id,
        heading=f"{group.model}, router {group.router}",
        charts=tuple(
            budget_chart(group, one, ranked, f"chart-{number}-{index}")
            for index, (one, ranked) in enumerate(drawn, 1)
            if group.settings
        ),
        forests=tuple(_forests(group, score, found, id)) if score else (),
        budgets=tuple(
            _budget(results, group, board, f"{id}-budget-{index}")
            for index, board in enumerate(own.boards, 1)
        ),
        seeds=seed_chart(group, score, found, f"{id}-seeds") if score else None,
        seed_sentences=tuple(alone(score, found)) if score else (),
        agreements=agreement.agreements(group, results.masks, methods, f"{id}-agreement"),
        never_selected=tuple(_never_selected(group, results)),
        published=comparisons(results, group, published, f"{id}-published"),
        costs=tuple(table for table in tables if table is not None),
        memory=memory_chart(results, group, score, found, f"{id}-memory") if score else None,
    )


def _forests(
    group: Group, score: Score, found: Mapping[float, Sequence[Standing]], id: str
) -> Iterator[charts.Chart]:
    for index, setting in enumerate(group.settings, 1):
        one = forest(group, setting, score, found[setting.retain], f"{id}-forest-{index}")
        if one is not None:
            yield one


def _never_selected(group: Group, results: Results) -> Iterator[str]:
    """Corpora on which the router passed experts by: a mean over their tokens does not exist."""
    for corpus, profile in results.provenance.profiles_of(group.model).items():
        count = profile.never_selected
        if count:
            experts = "1 expert was" if count == 1 else f"{count} experts were"
            yield (
                f"{experts} never selected by the router on {corpus}, counted over all layers: "
                "a mean over an expert's tokens has nothing to average there."
            )


def _budget(results: Results, group: Group, board: Board, id: str) -> BudgetView:
    setting, ranked, uninformative = board.setting, board.standings, board.uninformative
    score = primary_score(results)
    heading = f"{words.percent(setting.retain)} of experts kept ({_kept(results, group, setting)})"
    where = f"{group.model}, {heading}, router {group.router}"
    return BudgetView(
        id=id,
        heading=heading,
        verdict=board.verdict,
        leaderboard=leaderboard(results, group, score, ranked, uninformative, f"{id}-table", where),
        tasks=task_table(
            results.task_metrics, board.tasks, ranked, uninformative, f"{id}-tasks", where
        ),
        notes=tuple(_notes(setting)),
        metrics=metric_table(results, group, ranked, uninformative, f"{id}-metrics", where),
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
