"""Prints what a run will do: its cost as a table, and the differences that it can find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mbench.cli.output import clean, console_of, say
from mbench.cli.summary import counted, duration

if TYPE_CHECKING:
    from rich.table import Table

    from mbench.core.early import EarlyGoal
    from mbench.core.suite import Suite
    from mbench.plan.cost import Estimate, ModelCost
    from mbench.plan.detectable import Detectable
    from mbench.plan.plan import Plan
    from mbench.plan.random_masks import FewMasks

LONG = 3600.0
"""Seconds on a few CPU cores from which on a plan also estimates the time on accelerators."""

COLUMNS = (
    *("Cells", "Masks", "Passes\nto do", "Passes\nstored", "Profiles\nto do"),
    *("Forward\ntokens", "Time", "Weights"),
)
"""A pass is a mask on a task, a profile is of a calibration corpus."""

NARROW = 11
"""Columns of a terminal for a question, so that a table fits into 80."""


def show_plan(
    estimate: Estimate,
    plan: Plan,
    *,
    err: bool,
    goal: EarlyGoal | None = None,
    reached: bool = False,
) -> None:
    """A row per model: cells, masks, passes to do and stored, tokens, time, memory; then notes.

    `reached`: what is stored is all that the goal asks for.
    """
    suite = plan.suite
    # A published checkpoint may bring a budget of its own.
    retains = sorted({cell.budget.retain for cell in plan.cells}, reverse=True)
    budgets = ", ".join(f"{100 * (1 - ratio):.4g}" for ratio in retains) or "no"
    methods = counted(len(suite.methods), "method")
    tasks = counted(len(suite.tasks) + len(suite.perplexity), "task")
    click.echo(f"{methods} at {budgets} % pruned, {tasks}", err=err)
    costs = estimate.models
    table = _table("Model", *COLUMNS)
    for cost in costs:
        table.add_row(clean(cost.model), *_figures(cost))
    if len(costs) > 1:
        table.add_row("all", *_totals(costs))
    console_of(stderr=err).print(table)
    # With a goal nothing is forecast: only a run without one measures speeds beforehand.
    for line in _notes(estimate, suite, forecast=goal is None):
        say(line, err=err)
    if goal is not None and not estimate.nothing_to_do:
        say(_reached(goal) if reached else _upper_bound(costs, goal), err=err)


def _reached(goal: EarlyGoal) -> str:
    return (
        f"early verdict, asked for {goal.in_words}: nothing to do, what is stored is enough; the"
        " table is for all items"
    )


def _upper_bound(costs: Sequence[ModelCost], goal: EarlyGoal) -> str:
    """What the table is where a mask may have had enough items before all."""
    measured = all(cost.speed_measured for cost in costs)
    said = (
        f"early verdict, asked for {goal.in_words}: the table is for all items, the most it takes"
    )
    known = measured and not any(cost.unknown_tasks for cost in costs)
    seconds = sum(cost.seconds for cost in costs)
    if goal.hours is None:
        return said
    if not all(cost.speed_known for cost in costs):
        return f"{said}; what the hours suffice for is not known before speeds are measured"
    first = sum(cost.first_seconds for cost in costs)
    if first >= 3600 * goal.hours:
        return (
            f"{said}; the hours suffice for no verdict: what comes before, the unpruned model"
            f" included, takes about {duration(first)}, and is gone on with by the next run"
        )
    if not known:
        return said
    if seconds <= 3600 * goal.hours:
        return f"{said}, and all may be done within the hours"
    return f"{said}; after {duration(3600 * goal.hours)} nothing more is begun"


def _table(first: str, *others: str) -> Table:
    """Only spaces between its columns: it reads alike in terminals and files."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", max_width=max(NARROW, len("10 % assumed")))
    return table


def _figures(cost: ModelCost) -> tuple[str, ...]:
    at_most = "" if cost.masks_final else "≤ "
    left = cost.evaluations_left
    unknown = bool(cost.unknown_tasks)
    return (
        f"{cost.cells:,}",
        f"{at_most}{cost.masks:,}",
        f"{at_most if left else ''}{left:,}",
        f"{cost.evaluations_cached:,}",
        f"{cost.profiles:,}",
        "not counted"
        if unknown
        else f"{'≤ ' if cost.search_tokens else ''}{tokens(_tokens(cost))}",
        _time(cost),
        size(cost.weight_bytes),
    )


def _time(cost: ModelCost) -> str:
    """Nothing but what measured speeds come to: what is assumed was three times too short."""
    if cost.unknown_tasks or not cost.speed_known:
        return "-"
    return f"{'' if cost.speed_measured else '~'}{duration(cost.seconds)}"


def _tokens(cost: ModelCost) -> int:
    return cost.evaluation_tokens + cost.profile_tokens + cost.search_tokens


def _totals(costs: Sequence[ModelCost]) -> tuple[str, ...]:
    """The figures of all models together; the weights are those of the largest."""
    return _figures(
        replace(
            costs[0],
            cells=sum(cost.cells for cost in costs),
            masks=sum(cost.masks for cost in costs),
            masks_final=all(cost.masks_final for cost in costs),
            evaluations=sum(cost.evaluations for cost in costs),
            evaluations_cached=sum(cost.evaluations_cached for cost in costs),
            profiles=sum(cost.profiles for cost in costs),
            evaluation_tokens=sum(cost.evaluation_tokens for cost in costs),
            generated_tokens=sum(cost.generated_tokens for cost in costs),
            profile_tokens=sum(cost.profile_tokens for cost in costs),
            search_tokens=sum(cost.search_tokens for cost in costs),
            unknown_tasks=tuple(task for cost in costs for task in cost.unknown_tasks),
            seconds=sum(cost.seconds for cost in costs),
            speed_measured=all(cost.speed_measured for cost in costs),
            speed_known=all(cost.speed_known for cost in costs),
            weight_bytes=max(cost.weight_bytes for cost in costs),
        )
    )


def tokens(count: int) -> str:
    """Exact below a million: 297,142,608 -> `297.1 M`."""
    return f"{count / 1e6:,.1f} M" if count >= 1_000_000 else f"{count:,}"


def size(count: int) -> str:
    """Bytes of weights in GB, or MB where they are few."""
    return f"{count / 1e9:.0f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _notes(estimate: Estimate, suite: Suite, *, forecast: bool) -> Iterator[str]:
    costs = estimate.models
    if not all(cost.masks_final for cost in costs):
        yield "pass: one mask on one task; ≤: masks that turn out to be equal are evaluated once"
    unknown = _names(task for cost in costs for task in cost.unknown_tasks)
    if estimate.nothing_to_do:
        yield "nothing to do: everything is in the store"
    elif unknown:
        yield (
            f"tokens and time: not known, for nobody has counted {unknown} here yet: `mbench check`"
            " with the same suite and options does, and says what a run would refuse"
        )
    else:
        yield from _on_time(costs, forecast=forecast)
    if begun := sum(cost.evaluations_begun for cost in costs):
        yield f"of the passes to do, {begun:,} are begun: tokens and time are of what is missing"
    if expected := _names(task for cost in costs for task in cost.expected_tasks):
        yield f"tokens of {expected}: as the suite states them"
    if generated := sum(cost.generated_tokens for cost in costs):
        yield f"of the tokens, up to {tokens(generated)} are generated one after another"
    if searching := sum(cost.search_tokens for cost in costs):
        yield f"of the tokens, searches for masks may spend up to {tokens(searching)}"
    if suite.efficiency is not None:
        yield "not in these figures: measuring memory and speed of each budget, as the suite asks"
    for cost in costs:
        if not cost.files_available:
            yield f"{cost.model}: its files cannot be read: sizes are those the suite states"
        if cost.seconds > LONG and not cost.speed_measured:
            yield f"{cost.model} on accelerators, roughly: {_on_accelerators(cost)}"


def _on_time(costs: Sequence[ModelCost], *, forecast: bool) -> Iterator[str]:
    """What the times rest on, and what they leave out."""
    later = "; a run measures it in its first minute" if forecast else ""
    if not all(cost.speed_known for cost in costs):
        yield f"time -: no speed was measured here yet{later}"
        return
    if all(cost.speed_measured for cost in costs):
        yield "time: at the speed last measured"
    else:
        rough = "~: rough: tasks not measured here are taken to be as fast, per token, as others"
        yield rough + later
    yield "not in the time: starting, reading texts and tasks, and writing the report"


def _names(names: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _on_accelerators(cost: ModelCost) -> str:
    return ", ".join(
        f"{time.device} {duration(3600 * time.hours)}"
        + ("" if time.fits else " (too small for the weights)")
        for time in cost.devices
    )


def show_few_masks(few: FewMasks) -> None:
    """One line on random masks that cannot reach 5 %, and what enough of them cost."""
    from mbench.plan.random_masks import ENOUGH

    cost = "" if few.tokens is None else f", {tokens(few.tokens)} tokens"
    cost += "" if few.seconds is None else f", {duration(few.seconds)}"
    bound = " at most" if cost and not few.all_tasks else ""
    say(
        f"random: {counted(few.masks, 'mask')} at each budget: a method that beats them all has, by"
        f" its rank, p = 1/{few.masks + 1} = {few.least_p:.2f}; for 0.05 it takes {ENOUGH} masks:"
        f" --set {few.key}={ENOUGH} adds {few.more} at each budget{cost}{bound}"
    )


def show_detectable(rows: Sequence[Detectable]) -> None:
    """Per task, and for the suite's score, the least difference that each family finds."""
    from mbench.plan.detectable import ASSUMED, QUESTIONS

    by_model: dict[str, list[Detectable]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(replace(row, model=""))
    alike = len({tuple(map(_cells, of_model)) for of_model in by_model.values()}) == 1
    if not any(least is not None for row in rows for least in row.least.values()):
        say("least difference that a run on all items finds: not known before `mbench check`")
        return
    say(
        "least difference that a run on all items finds in 80 of 100 cases (5 % for each question):"
    )
    questions = [
        f"{question}\n{_tests([row.comparisons[family] for row in rows])}"
        for family, question in QUESTIONS.items()
    ]
    table = _table("Task", "Items", "Disagree", *questions)
    for model, of_model in list(by_model.items())[: 1 if alike else None]:
        for row in of_model:
            name = row.name if alike else f"{model}: {row.name}"
            table.add_row(clean(name), *_cells(row))
    console_of(stderr=False).print(table)
    if any(row.disagree is None and row.units is not None for row in rows):
        say(
            "perplexities: items are documents, counted as if of equal size; differences are of the"
            " logarithm"
        )
    if any(not row.measured for row in rows):
        say(
            f"assumed: two masked models disagree on {100 * ASSUMED:.0f} % of right/wrong items,"
            " and random masks score alike; of perplexities nothing is known before a run"
        )


def _tests(counts: Sequence[int]) -> str:
    """`36 tests`; fewer where methods have a shorter list of tasks."""
    fewest, most = min(counts), max(counts)
    return counted(most, "test") if fewest == most else f"{fewest:,}–{counted(most, 'test')}"


def _cells(row: Detectable) -> tuple[str, ...]:
    from mbench.plan.detectable import QUESTIONS

    disagree = "-"
    if row.disagree is not None:
        ends = dict.fromkeys(f"{100 * share:.0f}" for share in row.disagree)
        disagree = f"{' to '.join(ends)} %" + ("" if row.measured else " assumed")
    return (
        "-" if row.units is None else f"{row.units:,}",
        disagree,
        *("-" if row.least[f] is None else f"{row.least[f]:.3f}" for f in QUESTIONS),
    )
