"""The view model: everything the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbench.core.results import Results, long_form
from mbench.report import words
from mbench.report.figures_of_papers import Published
from mbench.report.page import provenance
from mbench.report.page.first_screen import Screen, first_screen
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.page.part import Part
from mbench.report.page.tabs import Tab, tabs
from mbench.report.statistics.boards import RunBoards
from mbench.report.statistics.floors import ROOM
from mbench.report.statistics.groups import RANDOM
from mbench.report.statistics.scores import Score
from mbench.report.statistics.strata import ENOUGH
from mbench.report.stored_forms import forms_in_words, stored_in_words
from mbench.report.tables.leaderboard import leaderboard
from mbench.storage.results_folder import to_csv


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    suite: str
    description: str
    facts: tuple[str, ...]
    """The line under the title: models, items, methods, status."""
    changes: tuple[str, ...]
    """Options of the command line, by run, that changed what the suite file says."""
    merged: bool
    """Whether it joins several runs."""
    screens: tuple[Screen, ...]
    """By model."""
    nothing: str
    """Why there is no screen."""
    leaderboards: tuple[Part, ...]
    """By model and budget, for readers without scripts."""
    tabs: tuple[Tab, ...]
    """The first is that of the results."""
    data: Mapping[str, Any]
    """What the leaderboard shows; see `leaderboard_data`."""
    protocol: tuple[tuple[str, str], ...]
    command: str
    commit: str
    """Of mbench, if the runs' checkouts had no changes; else empty."""
    csv: str
    """Every figure in long form."""
    costs: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    early: bool
    """Whether any figure is estimated from some of the items."""
    score: Score | None
    room: float
    """How far above the floor a figure must be."""
    enough: int
    """Fewest effective documents of a test."""


def page(run: RunBoards, papers: Sequence[Published] = (), panels: Sequence[Part] = ()) -> Page:
    """Derive the page from the results, the figures of papers and the panels of plugins."""
    results = run.results
    nothing = "The suite declares neither an average nor a perplexity: nothing is ranked."
    if run.score is not None:
        nothing = f"No method has a complete and comparable {run.score.name}."
    return Page(
        title=results.title or results.suite,
        suite=results.suite,
        description=results.description,
        facts=_facts(run),
        changes=provenance.changes(results.provenance),
        merged=len(results.provenance.runs) > 1,
        screens=tuple(screen for boards in run.groups if (screen := first_screen(boards))),
        nothing=nothing,
        leaderboards=tuple(
            Part(board.where, (leaderboard(board),), id=f"{board.id}-board")
            for boards in run.groups
            for board in boards.boards
        ),
        tabs=tabs(run, papers, panels),
        data=leaderboard_data(run),
        protocol=(
            *((entry.name, entry.text) for entry in results.protocol),
            *forms_in_words(results),
        ),
        command=provenance.commands(results.provenance),
        commit=provenance.commit(results.provenance),
        csv=to_csv(long_form(results)),
        costs=provenance.run_costs(results.provenance),
        provenance=provenance.rows(results.provenance),
        early=any(cell.early for cell in results.cells),
        score=run.score,
        room=ROOM,
        enough=round(ENOUGH),
    )


def _facts(run: RunBoards) -> tuple[str, ...]:
    """Models, items, methods and status, one short text each."""
    models = [boards.group.model for boards in run.groups]
    facts = [f"model{'s' * (len(models) > 1)} {words.listing(models)}"]
    if len(models) == 1 and (stored := stored_in_words(run.results, models[0])):
        facts.append(stored)
    rankings = (b.ranking for boards in run.groups for b in boards.boards if b.ranking)
    units = next((ranking.units for ranking in rankings if ranking.units), ())
    if units:
        count = sum(own.count for own in units)
        tasks = f"{len(units)} task{'s' * (len(units) > 1)}"
        facts.append(f"{count:,} {units[0].unit}, {tasks}")
    entries = [e for g in run.groups for b in g.boards for e in b.budget.entries]
    published = {entry.method for entry in entries if entry.cells[0].published}
    methods = {entry.method for entry in entries} - {RANDOM} - published
    text = f"{len(methods)} method{'s' * (len(methods) != 1)}"
    if published:
        text += f", {len(published)} published checkpoint{'s' * (len(published) > 1)}"
    masks = max((len(e.cells) for e in entries if e.method == RANDOM), default=0)
    facts.append(text + f", random × {masks}" * bool(masks))
    return (*facts, _progress(run.results))


def _progress(results: Results) -> str:
    states = [
        cell.task_status(task).status for cell in results.cells for task in results.task_metrics
    ]
    states = [state for state in states if state != "left out"]
    done = states.count("ok")
    if done == len(states):
        return "✓ complete"
    others = [f"{states.count(state)} {state}" for state in sorted(set(states)) if state != "ok"]
    return f"{done} of {len(states)} evaluations complete; {words.listing(others)}"
